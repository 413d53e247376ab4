"""Actions of persons, from what is remembered of their video.

Shapes: B clips or keyframes, N persons of each, M remembered persons, C channels of a
query, W channels of the memory, A actions.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule, ModuleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from stmixer_mm.models.heads.stmixer_head import STMixerHead
from stmixer_mm.models.parts import Batch, Prediction, QueryPart
from stmixer_mm.projects.memory.bank import SAME_S, check_window
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, Queries, StageOutput


class PersonVectors(QueryPart):
    """Hands on what a memory needs of each person: vectors (n, 2 C), and the logits."""

    output_type = StageOutput  # persons of keyframes, not tubelets

    def finish(
        self, batch: Batch, outputs: DecoderOutput, predictions: list[InstanceData]
    ) -> list[InstanceData]:
        last, vectors = outputs.stages[-1], torch.cat(outputs.queries, dim=-1)
        for clip, instances in enumerate(predictions):
            rows = clip, instances.queries
            instances.person_vectors = vectors[rows].float()
            instances.person_logits = last.person_logits[rows].float()
            instances.action_logits = last.action_logits[rows].float()
        return predictions


@MODELS.register_module()
class LongTermActions(PersonVectors):
    """Add to action logits what other keyframes of the video tell.

    Each person attends to the persons of all other keyframes in a window, itself
    included, and to a learned token for nothing. Without any remembered person nothing
    is added, as by a new part, whose last layer is zero. The idea is that of long-term
    feature banks (Wu et al., CVPR 2019).

    Args:
        window_s: Seconds to remember before a keyframe and after it.
        past_only: Nothing after it: detections then come as soon as without memory.
        vectors: What is remembered of a person beside its box.
        width: W.
        num_heads: Heads of the attention.
        num_layers: Layers.
        num_frequencies: Sines and cosines of the time that has passed; 0 leaves it out.
        drop_prob: Dropout of what is recalled, in training.
        forget_prob: Of each remembered person to be forgotten, in training, so that a
            memory does not learn videos by heart.
        **kwargs: See :class:`.QueryPart`.
    """

    def __init__(
        self,
        *,
        window_s: float = 30.0,
        past_only: bool = False,
        vectors: Sequence[str] = Queries._fields,
        width: int = 128,
        num_heads: int = 4,
        num_layers: int = 2,
        num_frequencies: int = 8,
        drop_prob: float = 0.5,
        forget_prob: float = 0.5,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.window_s, self.past_only = check_window(window_s), past_only
        self.forget_prob = forget_prob
        self.vectors = [Queries._fields.index(name) for name in vectors]
        waves = torch.logspace(0, 1, num_frequencies, base=4 * window_s)  # seconds
        self.register_buffer('waves', waves, persistent=False)
        of_person = len(vectors) * self.embed_dims + 4
        self.embedding = nn.Sequential(nn.Linear(of_person, width), nn.LayerNorm(width))
        sizes = width, num_heads, width + 2 * num_frequencies, drop_prob
        self.layers = ModuleList(Recall(*sizes) for _ in range(num_layers))
        self.actions = nn.Linear(width, self.num_classes - 1)
        nn.init.zeros_(self.actions.weight)
        nn.init.zeros_(self.actions.bias)

    def embed(self, vectors: Tensor, bboxes: Tensor) -> Tensor:
        """Persons (..., W), of vectors (..., 2 C) and boxes (..., 4) in [0, 1]."""
        halves = vectors.float().unflatten(-1, (2, -1))[..., self.vectors, :]
        return self.embedding(torch.cat((halves.flatten(-2), bboxes), dim=-1))

    def forward(self, persons: Tensor, remembered: Tensor, passed_s: Tensor) -> Tensor:
        """Addends to the action logits, (B, N, A).

        Args:
            persons: (B, N, W), from :meth:`embed`.
            remembered: (B, M, W), likewise.
            passed_s: (B, M): seconds from the keyframe to the remembered ones; what is
                outside the window, such as NaN, is padding.
        """
        distance_s = passed_s.abs()
        valid_mask = (distance_s <= self.window_s + SAME_S) & (distance_s >= SAME_S)
        if self.past_only:
            valid_mask = valid_mask & (passed_s < 0)
        if self.training:
            valid_mask = valid_mask & (torch.rand_like(passed_s) >= self.forget_prob)
        angles = passed_s.where(valid_mask, 0)[..., None] * (2 * torch.pi / self.waves)
        entries = torch.cat((remembered, angles.sin(), angles.cos()), dim=-1)
        for layer in self.layers:
            # A few persons at a time, as all of a crowd would fill the RAM.
            chunks = persons.split(8, dim=1) if not self.training else [persons]
            persons = torch.cat(
                [layer(chunk, entries, valid_mask) for chunk in chunks], dim=1
            )
        has_entries = valid_mask.any(dim=1)[:, None, None]
        return self.actions(persons).where(has_entries, 0)

    def follow(
        self, predictions: Iterable[Prediction], head: STMixerHead
    ) -> Iterator[Prediction]:
        """Predictions along a video, each when the window behind it has been seen."""
        remembered: deque[tuple[float, Tensor]] = deque()
        waiting: deque[tuple[Prediction, Tensor]] = deque()
        behind_s = SAME_S if self.past_only else -self.window_s - SAME_S

        @torch.inference_mode()
        def recall() -> Prediction:
            (clip, instances), persons = waiting.popleft()
            while remembered[0][0] < clip.time_s - self.window_s - SAME_S:
                remembered.popleft()
            times, of_keyframes = zip(*remembered, strict=True)
            passed_s = np.repeat(times, [*map(len, of_keyframes)]) - clip.time_s
            entries = torch.cat(of_keyframes)[None]
            passed_s = torch.from_numpy(passed_s).to(entries)[None]
            (added,) = self(persons[None], entries, passed_s)
            return clip, rescore(instances, added, head)

        for clip, instances in predictions:
            instances = instances.to(self.waves.device)  # tiles are merged on the host
            with torch.inference_mode():
                persons = self.embed(instances.pop('person_vectors'), instances.bboxes)
            remembered.append((clip.time_s, persons))
            waiting.append(((clip, instances), persons))
            while waiting and waiting[0][0][0].time_s < clip.time_s + behind_s:
                yield recall()
        while waiting:
            yield recall()


def rescore(instances: InstanceData, added: Tensor, head: STMixerHead) -> InstanceData:
    """Persons with scores of their logits and addends to these, (n, A)."""
    logits = instances.pop('person_logits'), instances.pop('action_logits') + added
    scored = head.score(
        StageOutput(*logits, instances.bboxes), instances.bboxes.new_ones(4)
    )
    instances.scores = F.pad(scored.action_scores, (1, 0)).to(instances.scores)
    return instances


class Recall(BaseModule):
    """A layer: attention of persons to what is remembered, and a feed-forward network.

    Few persons attend to thousands: queries are taken into the space of the entries, so
    that these need no keys and values of their own.

    Args:
        width: W, of all heads.
        num_heads: H, heads of the attention.
        entry_width: E, channels of an entry.
        drop_prob: Dropout of what is recalled.
    """

    def __init__(
        self, width: int, num_heads: int, entry_width: int, drop_prob: float
    ) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        sizes = num_heads, width // num_heads
        self.key, self.value = (
            nn.Parameter(entry_width**-0.5 * torch.randn(*sizes, entry_width))
            for _ in range(2)
        )
        self.nothing = nn.Parameter(0.02 * torch.randn(2, *sizes))
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(drop_prob))
        self.norm = nn.LayerNorm(width)
        self.ffn = FFN(width, 2 * width, ffn_drop=drop_prob)
        self.ffn_norm = nn.LayerNorm(width)

    def forward(self, persons: Tensor, entries: Tensor, valid_mask: Tensor) -> Tensor:
        """Persons (B, N, W), of these, and of entries (B, M, E) in ``valid_mask``."""
        no_key, no_value = self.nothing
        query = self.query(persons).unflatten(-1, no_key.shape)  # (B, N, H, d)
        query = query * no_key.size(1) ** -0.5
        entry_queries = torch.einsum('bnhd,hde->bnhe', query, self.key)
        logits = torch.einsum('bnhe,bme->bnhm', entry_queries, entries)
        logits = logits.masked_fill(~valid_mask[:, None, None], -torch.inf)
        nothing = (query * no_key).sum(dim=-1, keepdim=True)
        weights = torch.cat((nothing, logits), dim=-1).softmax(dim=-1)
        weighted_entries = torch.einsum('bnhm,bme->bnhe', weights[..., 1:], entries)
        values = torch.einsum('bnhe,hde->bnhd', weighted_entries, self.value)
        values = values + weights[..., :1] * no_value
        persons = self.norm(persons + self.out(values.flatten(2)))
        return self.ffn_norm(self.ffn(persons))

"""Queries that live on: who was found is carried to the next keyframe of its video.

Shapes: B clips, keyframes of as many videos; Q queries of the decoder, n tracks of a
video, N the most of these in a batch, or 1; k persons of a keyframe, C channels.

The tracks of a video are an ``InstanceData`` that the caller keeps: ``spatial`` and
``temporal`` (n, C) query vectors and ``boxes_xyzr`` (n, 4), from when the person was
last seen, ``ids`` (n,), and ``missed`` (n,), keyframes since then.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmcv.ops import nms
from mmdet.models.layers import DetrTransformerEncoderLayer
from mmdet.structures.bbox import bbox_overlaps
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import sine_position_code, xyzr_to_xyxy
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.decoder.stage import Queries, StageOutput
from stmixer_mm.models.heads.matching import score_persons
from stmixer_mm.models.heads.stmixer_head import sample_name
from stmixer_mm.registry import MODELS

NOBODY = -1  # id of a false track


@MODELS.register_module()
class QueryInteraction(BaseModule):
    """Carries queries that found persons to the next keyframe, behind the learned ones.

    Zeng et al., "MOTR: End-to-End Multiple-Object Tracking with Transformer", ECCV
    2022: a track query claims its person, so that learned queries find newcomers alone.
    Both vectors of the tracks attend among themselves, with the position code of their
    boxes in query and key, and pass a feed-forward network. In training the truth says
    whom a query tracks; some tracks are lost, and false ones join them.

    Args:
        embed_dims: C, a multiple of ``num_heads``; the detector sets it.
        num_queries: Q; the detector sets it. A video has at most as many tracks.
        num_heads: Heads of the attention.
        feedforward_channels: Hidden width of the feed-forward networks.
        birth_score: Person score from which a query of the decoder begins a track.
        keep_score: Person score from which a track has seen its person.
        max_missed: A track ends after not seeing its person for as many keyframes.
        max_overlap: Where boxes have a larger IoU, only the track that has moved least
            sees its person, so that tracks of persons who meet stay apart.
        drop_prob: In training, probability that a track is lost.
        false_prob: In training, probability that a false track joins a track: the query
            without a person whose box overlaps it most.
        init_cfg: Initialisation, see :class:`mmengine.model.BaseModule`.

    Raises:
        UserError: An argument is out of range.
    """

    output_type = StageOutput  # persons of keyframes, not tubelets

    def __init__(
        self,
        *,
        embed_dims: int,
        num_queries: int,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        birth_score: float = 0.7,
        keep_score: float = 0.6,
        max_missed: int = 5,
        max_overlap: float = 0.7,
        drop_prob: float = 0.1,
        false_prob: float = 0.3,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        shares = dict(
            birth_score=birth_score,
            keep_score=keep_score,
            max_overlap=max_overlap,
            drop_prob=drop_prob,
            false_prob=false_prob,
        )
        counts = dict(max_missed=max_missed, num_heads=num_heads)
        wrong = [f'{name}={one}' for name, one in shares.items() if not 0 <= one <= 1]
        wrong += [f'{name}={one}' for name, one in counts.items() if one < 1]
        if wrong:
            raise UserError(
                'QueryInteraction takes scores, overlaps and probabilities in [0, 1] and '
                f'counts of 1 or more, but not {", ".join(wrong)}; correct it.'
            )
        if embed_dims % num_heads:
            raise UserError(
                f'QueryInteraction has num_heads={num_heads}, which does not divide the '
                f"decoder's embed_dims={embed_dims}; choose one that does."
            )
        self.embed_dims = embed_dims
        self.num_queries = num_queries
        self.birth_score = birth_score
        self.keep_score = keep_score
        self.max_missed = max_missed
        self.max_overlap = max_overlap
        self.drop_prob = drop_prob
        self.false_prob = false_prob
        self.spatial, self.temporal = (
            DetrTransformerEncoderLayer(
                self_attn_cfg=dict(embed_dims=embed_dims, num_heads=num_heads),
                ffn_cfg=dict(
                    embed_dims=embed_dims, feedforward_channels=feedforward_channels
                ),
            )
            for _ in Queries._fields
        )

    def start(self) -> InstanceData:
        """The tracks before the first keyframe of a video: none."""
        like = self.spatial.norms[0].weight.detach()
        numbers = like.new_zeros(0, dtype=torch.long)
        return InstanceData(
            metainfo=dict(next_id=0),
            spatial=like.new_zeros(0, self.embed_dims),
            temporal=like.new_zeros(0, self.embed_dims),
            boxes_xyzr=like.new_zeros(0, 4),
            ids=numbers,
            missed=numbers,
        )

    def forward(self, tracks: Sequence[InstanceData]) -> ExtraQueries:
        """The tracks of B videos as N queries; padding is last, and unseen."""
        counts = [len(one) for one in tracks]
        spatial, temporal, boxes_xyzr = (
            pad_tracks([one[name] for one in tracks])
            for name in ('spatial', 'temporal', 'boxes_xyzr')
        )
        slots = torch.arange(boxes_xyzr.size(1), device=boxes_xyzr.device)
        padding = slots >= slots.new_tensor(counts)[:, None]
        # An attention that sees nothing is NaN: without any track it sees padding.
        unseen = padding & ~padding.all(dim=1, keepdim=True)
        code = sine_position_code(boxes_xyzr, self.embed_dims)
        queries = Queries(
            spatial=self.spatial(spatial, code, unseen),
            temporal=self.temporal(temporal, code, unseen),
        )
        blocked = F.pad(padding, (self.num_queries, 0))
        blocked = blocked[:, None].expand(-1, blocked.size(1), -1)
        return ExtraQueries(queries, boxes_xyzr, blocked)

    def hold(
        self, tracks: Sequence[InstanceData], data_samples: Sequence[ActionDataSample]
    ) -> Tensor:
        """Whom the tracks stand for in the next keyframe, by the truth.

        Returns:
            ``held`` of :meth:`.STMixerHead.loss_and_match`, (B, N): i + 1 for the i-th
            person of the clip, 0 for persons not there, -1 for padding.
        """
        size = max(1, *map(len, tracks))
        held = []
        for one, sample in zip(tracks, data_samples, strict=True):
            same = one.ids[:, None] == person_ids(sample, one.ids)
            persons = F.pad(same.int(), (1, 0)).argmax(dim=1)  # column 0: nobody
            held.append(F.pad(persons, (0, size - len(persons)), value=-1))
        return torch.stack(held)

    def teach(
        self,
        tracks: Sequence[InstanceData],
        queries: Queries,
        boxes_xyzr: Tensor,
        person_logits: Tensor,
        assigned: Tensor,
        data_samples: Sequence[ActionDataSample],
    ) -> list[InstanceData]:
        """The tracks for the next keyframe, by the truth.

        Args:
            tracks: Those of this keyframe.
            queries: What the decoder made of them, behind its own, (B, Q + N, C) each.
            boxes_xyzr: Their boxes, (B, Q + N, 4).
            person_logits: Of the last stage, (B, Q + N, 2).
            assigned: Whom they stand for, from :meth:`.STMixerHead.loss_and_match`.
            data_samples: The ground truth.
        """
        taught = []
        found = self._found(tracks, queries, boxes_xyzr)
        scores = score_persons(person_logits)
        for one, now, sample, persons, score in zip(
            tracks, found, data_samples, assigned, scores, strict=True
        ):
            ids = person_ids(sample, one.ids)
            persons, score = persons[: len(now)], score[: len(now)]
            # Of several queries for a person, the surest.
            rows = [
                int(score.where(persons == number, -1).argmax())
                for number in range(1, len(ids) + 1)
                if (persons == number).any()
            ]
            rows = persons.new_tensor(rows)
            seen = now[rows]
            seen.ids = ids[persons[rows] - 1]
            lost = one[(one.ids != NOBODY) & ~torch.isin(one.ids, ids)]
            kept = InstanceData.cat([seen, self._missing(lost)])
            kept = kept[torch.rand_like(kept.boxes_xyzr[:, 0]) >= self.drop_prob]
            joined = kept[torch.rand_like(kept.boxes_xyzr[:, 0]) < self.false_prob]
            idle = now[: self.num_queries][persons[: self.num_queries] == 0]
            if len(joined) and len(idle):
                bboxes = (xyzr_to_xyxy(each.boxes_xyzr) for each in (joined, idle))
                false = idle[bbox_overlaps(*bboxes).argmax(dim=1).unique()]
                kept = InstanceData.cat([kept, false])
            taught.append(kept[: self.num_queries])
        return taught

    def follow(
        self,
        tracks: Sequence[InstanceData],
        queries: Queries,
        boxes_xyzr: Tensor,
        person_logits: Tensor,
    ) -> tuple[list[InstanceData], list[Tensor]]:
        """The tracks for the next keyframe, by the scores; see :meth:`teach`.

        Returns:
            The tracks, and the ids (Q + n,) of all queries of each clip. Those without
            a track have ids that nobody had before, the surest first; those that lost
            their box to another one have ``NOBODY``.
        """
        following, ids = [], []
        found = self._found(tracks, queries, boxes_xyzr)
        scores = score_persons(person_logits)
        for one, now, score in zip(tracks, found, scores, strict=True):
            new, known = score[: len(now)].split((self.num_queries, len(one)))
            bboxes = xyzr_to_xyxy(now.boxes_xyzr)
            stay = bbox_overlaps(
                bboxes[self.num_queries :],
                xyzr_to_xyxy(one.boxes_xyzr),
                is_aligned=True,
            )
            is_sure = known >= self.keep_score
            # A shared box goes to the sure track that moved least, else to the surest.
            claims = torch.cat((new, torch.where(is_sure, 1 + stay, known)))
            _, winners = nms(bboxes, claims, iou_threshold=self.max_overlap)
            wins = torch.zeros_like(claims, dtype=torch.bool)
            wins[winners] = True
            places = new.argsort(descending=True).argsort()
            now.ids = torch.cat((one.next_id + places, one.ids))
            has_won, is_seen = wins.split((self.num_queries, len(one)))
            is_seen = is_seen & is_sure
            seen, lost = now[self.num_queries :][is_seen], one[~is_seen]
            born = now[: self.num_queries][has_won & (new >= self.birth_score)]
            kept = InstanceData.cat([seen, self._missing(lost), born])
            following.append(kept[: self.num_queries])
            ids.append(now.ids.where(wins, NOBODY))
        return following, ids

    def _found(
        self, tracks: Sequence[InstanceData], queries: Queries, boxes_xyzr: Tensor
    ) -> list[InstanceData]:
        """The Q + n queries of each clip as tracks that see somebody, ids unknown."""
        found = []
        for clip, one in enumerate(tracks):
            count = self.num_queries + len(one)
            boxes = boxes_xyzr[clip, :count].detach()
            found.append(
                InstanceData(
                    metainfo=one.metainfo,
                    spatial=queries.spatial[clip, :count].float(),
                    temporal=queries.temporal[clip, :count].float(),
                    boxes_xyzr=boxes,
                    ids=one.ids.new_full((count,), NOBODY),
                    missed=one.missed.new_zeros(count),
                )
            )
        return found

    def _missing(self, lost: InstanceData) -> InstanceData:
        """Tracks that missed their person once more, less those that end by it."""
        lost.missed = lost.missed + 1
        return lost[lost.missed < self.max_missed]


def pad_tracks(values: Sequence[Tensor]) -> Tensor:
    """Rows (n, ·) of each video to (B, N, ·), zeros behind them."""
    padded = pad_sequence([*values], batch_first=True)
    return padded if padded.size(1) else F.pad(padded, (0, 0, 0, 1))


def person_ids(sample: ActionDataSample, like: Tensor) -> Tensor:
    """Ids of a sample's persons in its video, (k,)."""
    return torch.as_tensor(sample.entity_ids).to(like)


def split_keyframes(data_samples: Sequence[ActionDataSample]) -> list[slice]:
    """Slices: the samples of the first keyframe of each sequence, of the second, ….

    Raises:
        UserError: They are no sequences of keyframes of a video, or lack identities.
    """
    remedy = (
        'take them from KeyframeSequences, whose pipeline ends with PackActionInputs('
        "algorithm_keys=('entity_ids',))."
    )
    keyframes = data_samples[-1].get('sequence_place', 0) + 1
    size, rest = divmod(len(data_samples), keyframes)
    if keyframes < 2 or rest:
        raise UserError(
            'query_interaction learns from sequences of keyframes of a video, but the '
            f'batch with {sample_name(data_samples[0])} has none; {remedy}'
        )
    for sample in data_samples:
        if len(sample.get('entity_ids', ())) != len(sample.gt_instances.bboxes):
            raise UserError(
                f'{sample_name(sample)} does not say which person is which; {remedy}'
            )
    for first, second in zip(data_samples, data_samples[size:], strict=False):
        before, after = (
            (one.get('video_id'), one.get('timestamp', 0)) for one in (first, second)
        )
        if before[0] != after[0] or before[1] > after[1]:
            raise UserError(
                f'{sample_name(second)} follows {sample_name(first)} in a sequence, but '
                f'not in a video; {remedy}'
            )
    return [slice(start, start + size) for start in range(0, len(data_samples), size)]

"""Track queries: queries of found persons are carried to the next keyframe.

Shapes: B clips, keyframes of as many videos; Q queries of the decoder, n tracks of a
video, N the most of these in a batch, or 1; k persons of a keyframe, C channels.

The tracks of a video are an ``InstanceData``, ``tracks`` of its samples: ``spatial`` and
``temporal`` (n, C) query vectors and ``boxes_xyzr`` (n, 4), from when the person was
last seen, ``ids`` (n,), and ``missed`` (n,), keyframes since then.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmcv.ops import nms
from mmdet.models.layers import DetrTransformerEncoderLayer
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stmixer_mm.errors import UserError
from stmixer_mm.models.boxes import (
    position_wavelengths,
    sine_position_code,
    xyzr_to_xyxy,
)
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.heads.matching import score_persons
from stmixer_mm.models.parts import Batch, QueryPart
from stmixer_mm.registry import MODELS
from stmixer_mm.structures import DecoderOutput, Queries, StageOutput

NO_TRACK = -1  # id of what is no track, or a false one


@MODELS.register_module()
class QueryInteraction(QueryPart):
    """Carry queries that found persons to the next keyframe, behind the learned ones.

    Zeng et al., "MOTR: End-to-End Multiple-Object Tracking with Transformer", ECCV
    2022: a track query claims its person, so that learned queries find newcomers alone.
    Both vectors of the tracks attend among themselves, with the position code of their
    boxes in query and key, and pass a feed-forward network. In training, on sequences
    of keyframes, the truth decides whom a query tracks; some tracks are lost, and false
    ones join them. In prediction, samples have ``tracks``, from their video's keyframe
    before or :meth:`start_video`, or are seen without tracks.

    Args:
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
        **kwargs: See :class:`.QueryPart`.
    """

    output_type = StageOutput  # persons of keyframes, not tubelets

    def __init__(
        self,
        *,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        birth_score: float = 0.7,
        keep_score: float = 0.6,
        max_missed: int = 5,
        max_overlap: float = 0.7,
        drop_prob: float = 0.1,
        false_prob: float = 0.3,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        wavelengths = position_wavelengths(self.embed_dims)
        self.register_buffer('wavelengths', wavelengths, persistent=False)
        self.birth_score = birth_score
        self.keep_score = keep_score
        self.max_missed = max_missed
        self.max_overlap = max_overlap
        self.drop_prob = drop_prob
        self.false_prob = false_prob
        self.spatial, self.temporal = (
            DetrTransformerEncoderLayer(
                self_attn_cfg=dict(embed_dims=self.embed_dims, num_heads=num_heads),
                ffn_cfg=dict(
                    embed_dims=self.embed_dims,
                    feedforward_channels=feedforward_channels,
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

    def start_video(self) -> dict[str, object]:
        return dict(tracks=self.start())

    def turns(self, batch: Batch) -> Iterator[Batch]:
        """All first keyframes, then all second ones, with the tracks of those before."""
        keyframes = split_keyframes(batch.data_samples)
        tracks = [self.start() for _ in batch.data_samples[keyframes[0]]]
        for which in keyframes:
            turn = batch.clips(which)
            for sample, of_video in zip(turn.data_samples, tracks, strict=True):
                sample.tracks = of_video
            yield turn
            tracks = get_tracks(turn)

    def enter(self, batch: Batch) -> ExtraQueries | None:
        return self(get_tracks(batch)) if 'tracks' in batch.data_samples[0] else None

    def enter_training(self, batch: Batch) -> ExtraQueries:
        tracks = get_tracks(batch)
        return self(tracks)._replace(persons=self.match(tracks, batch.data_samples))

    def loss(
        self, batch: Batch, seen: DecoderOutput, persons: Tensor
    ) -> dict[str, Tensor]:
        """None; but the samples get the tracks for the next keyframes."""
        for clip, sample in enumerate(batch.data_samples):
            found, scores = self.read(seen, clip, sample.tracks)
            sample.tracks = self.update_by_truth(
                sample.tracks, found, scores, persons[clip, : len(found)], sample
            )
        return {}

    def finish(
        self, batch: Batch, seen: DecoderOutput, found: list[InstanceData]
    ) -> list[InstanceData]:
        """Predictions that have their box to themselves, with ``instances_id``."""
        if 'tracks' not in batch.data_samples[0]:
            return found
        kept = []
        for clip, (sample, one) in enumerate(
            zip(batch.data_samples, found, strict=True)
        ):
            tracks, ids = self.update_by_scores(
                sample.tracks, *self.read(seen, clip, sample.tracks)
            )
            padding = seen.boxes_xyzr.size(1) - len(ids)
            one.instances_id = F.pad(ids, (0, padding), value=NO_TRACK)[one.queries]
            kept.append(one[one.instances_id != NO_TRACK])
            given = torch.cat((tracks.ids, kept[-1].instances_id))
            next_id = max([sample.tracks.next_id, *(1 + given).tolist()])
            tracks.set_metainfo(dict(next_id=next_id))
            sample.tracks = tracks
        return kept

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
        code = sine_position_code(boxes_xyzr, self.wavelengths)
        queries = Queries(
            spatial=self.spatial(spatial, code, unseen),
            temporal=self.temporal(temporal, code, unseen),
        )
        blocked = padding[:, None].expand(-1, padding.size(1), -1)
        return ExtraQueries(queries, boxes_xyzr, blocked, hidden=padding)

    def match(
        self, tracks: Sequence[InstanceData], data_samples: Sequence[ActionDataSample]
    ) -> Tensor:
        """The person of each track in the next keyframe, by the truth.

        Returns:
            ``known`` of :meth:`.SetCriterion.loss_and_match`, (B, N).
        """
        size = max(1, *map(len, tracks))
        known = []
        for one, sample in zip(tracks, data_samples, strict=True):
            same = one.ids[:, None] == person_ids(sample, one.ids)
            persons = F.pad(same.int(), (1, 0)).argmax(dim=1)  # column 0: none
            known.append(F.pad(persons, (0, size - len(persons)), value=-1))
        return torch.stack(known)

    def read(
        self, seen: DecoderOutput, clip: int, tracks: InstanceData
    ) -> tuple[InstanceData, Tensor]:
        """The Q + n queries of a clip as tracks without ids, and their person scores.

        Args:
            seen: The decoder's own queries, then those of the tracks.
            clip: Number of the clip.
            tracks: Its n tracks in this keyframe.
        """
        count = self.num_queries + len(tracks)
        found = InstanceData(
            metainfo=tracks.metainfo,
            spatial=seen.queries.spatial[clip, :count].float(),
            temporal=seen.queries.temporal[clip, :count].float(),
            boxes_xyzr=seen.boxes_xyzr[clip, :count].detach(),
            ids=tracks.ids.new_full((count,), NO_TRACK),
            missed=tracks.missed.new_zeros(count),
        )
        logits = seen.stages[-1].person_logits[clip, :count]
        return found, score_persons(logits.detach().float())

    def update_by_truth(
        self,
        tracks: InstanceData,
        found: InstanceData,
        scores: Tensor,
        persons: Tensor,
        sample: ActionDataSample,
    ) -> InstanceData:
        """The tracks of a clip for the next keyframe, by the truth.

        Args:
            tracks: Those of this keyframe.
            found: From :meth:`read`, as ``scores``.
            scores: (Q + n,)
            persons: From :meth:`.SetCriterion.loss_and_match`, (Q + n,).
            sample: The ground truth.
        """
        ids = person_ids(sample, tracks.ids)
        # Of several queries of a person, that with the highest score.
        rows = persons.new_tensor(
            [
                int(scores.where(persons == number, -1).argmax())
                for number in persons[persons > 0].unique()
            ]
        )
        seen = found[rows]
        seen.ids = ids[persons[rows] - 1]
        lost = tracks[(tracks.ids != NO_TRACK) & ~torch.isin(tracks.ids, ids)]
        kept = InstanceData.cat([seen, self._missing(lost)])
        kept = kept[torch.rand_like(kept.boxes_xyzr[:, 0]) >= self.drop_prob]
        joined = kept[torch.rand_like(kept.boxes_xyzr[:, 0]) < self.false_prob]
        own = slice(self.num_queries)
        idle = found[own][persons[own] == 0]
        if len(joined) and len(idle):
            bboxes = (xyzr_to_xyxy(each.boxes_xyzr) for each in (joined, idle))
            false = idle[bbox_overlaps(*bboxes).argmax(dim=1).unique()]
            kept = InstanceData.cat([kept, false])
        return kept[own]

    def update_by_scores(
        self, tracks: InstanceData, found: InstanceData, scores: Tensor
    ) -> tuple[InstanceData, Tensor]:
        """The same, by the scores; see :meth:`update_by_truth`.

        Returns:
            The tracks, and the ids (Q + n,) of all queries. Those without a track have
            new ids, in the order of their scores; those that lost their box to another
            one have ``NO_TRACK``.
        """
        sizes = self.num_queries, len(tracks)
        new, known = scores.split(sizes)
        bboxes = xyzr_to_xyxy(found.boxes_xyzr)
        stay = bbox_overlaps(
            bboxes[self.num_queries :],
            xyzr_to_xyxy(tracks.boxes_xyzr),
            is_aligned=True,
        )
        is_sure = known >= self.keep_score
        # A shared box goes to the sure track that moved least, else to the surest.
        claims = torch.cat((new, torch.where(is_sure, 1 + stay, known)))
        # On the host, where every mmcv has the operator.
        _, winners = nms(bboxes.cpu(), claims.cpu(), iou_threshold=self.max_overlap)
        wins = torch.zeros_like(claims, dtype=torch.bool)
        wins[winners] = True
        places = new.argsort(descending=True).argsort()
        found.ids = torch.cat((tracks.next_id + places, tracks.ids))
        has_won, is_seen = wins.split(sizes)
        is_seen = is_seen & is_sure
        seen, lost = found[self.num_queries :][is_seen], tracks[~is_seen]
        born = found[: self.num_queries][has_won & (new >= self.birth_score)]
        kept = InstanceData.cat([seen, self._missing(lost), born])
        return kept[: self.num_queries], found.ids.where(wins, NO_TRACK)

    def _missing(self, lost: InstanceData) -> InstanceData:
        """Tracks that missed their person once more, less those that end by it."""
        lost.missed = lost.missed + 1
        return lost[lost.missed < self.max_missed]


def pad_tracks(values: Sequence[Tensor]) -> Tensor:
    """Rows (n, ·) of each video to (B, N, ·), zeros behind them."""
    padded = pad_sequence([*values], batch_first=True)
    return padded if padded.size(1) else F.pad(padded, (0, 0, 0, 1))


def get_tracks(batch: Batch) -> list[InstanceData]:
    return [sample.tracks for sample in batch.data_samples]


def person_ids(sample: ActionDataSample, like: Tensor) -> Tensor:
    """Ids of a sample's persons in its video, (k,)."""
    return torch.as_tensor(sample.entity_ids).to(like)


def split_keyframes(data_samples: Sequence[ActionDataSample]) -> list[slice]:
    """Slices: the samples of the first keyframe of each sequence, of the second, ….

    Raises:
        UserError: They are no sequences of keyframes, or lack identities.
    """
    num_keyframes = data_samples[-1].get('sequence_place', 0) + 1
    if num_keyframes < 2 or 'entity_ids' not in data_samples[0]:
        raise UserError(
            'query_interaction learns from sequences of keyframes, with identities; '
            'take KeyframeSequences, of a dataset whose pipeline ends with '
            "PackActionInputs(algorithm_keys=('entity_ids',))."
        )
    size = len(data_samples) // num_keyframes
    return [slice(start, start + size) for start in range(0, len(data_samples), size)]

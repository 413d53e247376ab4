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
from stmixer_mm.models.boxes import sine_position_code, xyzr_to_xyxy
from stmixer_mm.models.decoder.query_decoder import ExtraQueries
from stmixer_mm.models.finite import sample_name
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
        """All first keyframes, then all second ones, with the tracks of those before.

        Raises:
            UserError: The samples are no sequences of keyframes of a video.
        """
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
        updated = self.update_by_truth(
            get_tracks(batch), seen, persons, batch.data_samples
        )
        for sample, tracks in zip(batch.data_samples, updated, strict=True):
            sample.tracks = tracks
        return {}

    def finish(
        self, batch: Batch, seen: DecoderOutput, found: list[InstanceData]
    ) -> list[InstanceData]:
        """Predictions that have their box to themselves, with ``instances_id``."""
        if 'tracks' not in batch.data_samples[0]:
            return found
        updated, ids = self.update_by_scores(get_tracks(batch), seen)
        kept = []
        for sample, tracks, of_clip, one in zip(
            batch.data_samples, updated, ids, found, strict=True
        ):
            one.instances_id = of_clip[one.queries]
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
        code = sine_position_code(boxes_xyzr, self.embed_dims)
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

    def update_by_truth(
        self,
        tracks: Sequence[InstanceData],
        seen: DecoderOutput,
        persons: Tensor,
        data_samples: Sequence[ActionDataSample],
    ) -> list[InstanceData]:
        """The tracks for the next keyframe, by the truth.

        Args:
            tracks: Those of this keyframe.
            seen: Of the decoder's own queries, then of the tracks, Q + N.
            persons: Theirs, from :meth:`.SetCriterion.loss_and_match`.
            data_samples: The ground truth.
        """
        updated = []
        found, scores = self._found(tracks, seen), get_scores(seen)
        for one, now, sample, of_clip, score in zip(
            tracks, found, data_samples, persons, scores, strict=True
        ):
            ids = person_ids(sample, one.ids)
            matched, score = of_clip[: len(now)], score[: len(now)]
            # Of several queries of a person, that with the highest score.
            rows = [
                int(score.where(matched == number, -1).argmax())
                for number in range(1, len(ids) + 1)
                if (matched == number).any()
            ]
            rows = matched.new_tensor(rows)
            seen = now[rows]
            seen.ids = ids[matched[rows] - 1]
            lost = one[(one.ids != NO_TRACK) & ~torch.isin(one.ids, ids)]
            kept = InstanceData.cat([seen, self._missing(lost)])
            kept = kept[torch.rand_like(kept.boxes_xyzr[:, 0]) >= self.drop_prob]
            joined = kept[torch.rand_like(kept.boxes_xyzr[:, 0]) < self.false_prob]
            idle = now[: self.num_queries][matched[: self.num_queries] == 0]
            if len(joined) and len(idle):
                bboxes = (xyzr_to_xyxy(each.boxes_xyzr) for each in (joined, idle))
                false = idle[bbox_overlaps(*bboxes).argmax(dim=1).unique()]
                kept = InstanceData.cat([kept, false])
            updated.append(kept[: self.num_queries])
        return updated

    def update_by_scores(
        self, tracks: Sequence[InstanceData], seen: DecoderOutput
    ) -> tuple[list[InstanceData], list[Tensor]]:
        """The tracks for the next keyframe, by the scores; see :meth:`update_by_truth`.

        Returns:
            The tracks, and the ids (Q + N,) of all queries of each clip. Those without
            a track have new ids, in the order of their scores; those that lost their
            box to another one, and padding, have ``NO_TRACK``.
        """
        updated, ids = [], []
        found, scores = self._found(tracks, seen), get_scores(seen)
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
            updated.append(kept[: self.num_queries])
            of_all = now.ids.where(wins, NO_TRACK)
            ids.append(F.pad(of_all, (0, len(score) - len(of_all)), value=NO_TRACK))
        return updated, ids

    def _found(
        self, tracks: Sequence[InstanceData], seen: DecoderOutput
    ) -> list[InstanceData]:
        """The Q + n queries of each clip as tracks, ids unknown."""
        found = []
        for clip, one in enumerate(tracks):
            count = self.num_queries + len(one)
            boxes = seen.boxes_xyzr[clip, :count].detach()
            found.append(
                InstanceData(
                    metainfo=one.metainfo,
                    spatial=seen.queries.spatial[clip, :count].float(),
                    temporal=seen.queries.temporal[clip, :count].float(),
                    boxes_xyzr=boxes,
                    ids=one.ids.new_full((count,), NO_TRACK),
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


def get_tracks(batch: Batch) -> list[InstanceData]:
    return [sample.tracks for sample in batch.data_samples]


def get_scores(seen: DecoderOutput) -> Tensor:
    """Person scores of the last stage, (B, Q + N)."""
    return score_persons(seen.stages[-1].person_logits.detach().float())


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

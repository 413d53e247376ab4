"""Linking tubelets to tubes, clip by clip, as pure functions of arrays."""

import itertools
from typing import NamedTuple

import numpy as np

from stmixer_mm.evaluation.functional.linking import (
    Linking,
    Tubelets,
    build_tubes,
    clip_iou,
    has_box,
    suppress_tubelets,
)
from stmixer_mm.evaluation.functional.matching import (
    aligned_iou,
    choose_in_turn,
    first_of_runs,
    group_pairs,
    take,
)
from stmixer_mm.evaluation.functional.tubes import Tubes, suppress_tubes


def link_tubelets(tubelets: Tubelets, linking: Linking) -> Tubes:
    """Tubes of all sequences: suppress, link, fill gaps, select.

    A tube's score is the mean score of its tubelets; those without a box are dropped.
    """
    tubelets = take(tubelets, has_box(tubelets.bboxes).any(axis=1))
    tubelets = suppress_tubelets(tubelets, linking)
    linker, tube_of = TubeletLinker(linking), [np.zeros(0, dtype=int)]
    starts = np.flatnonzero(first_of_runs(*tubelets.frames.T))
    for start, stop in itertools.pairwise([*starts, len(tubelets.scores)]):
        clip = take(tubelets, slice(start, stop))
        numbers = linker.extend(
            clip.frames[0], clip.bboxes, clip.scores, clip.sequences
        )
        tube_of.append(numbers)
    tubes = build_tubes(tubelets, np.concatenate(tube_of), linking)
    if linking.tube_nms_iou is not None:
        tubes = suppress_tubes(tubes, linking.tube_nms_iou, pixel=linking.tube_pixel)
    return tubes


def at_every_frame(frames: np.ndarray, values: np.ndarray) -> tuple[range, np.ndarray]:
    """Values (n, K, c) in frames (K,) of a clip, linear in between; (n, F, c).

    A frame that is repeated has the mean of its entries.
    """
    unique, index, counts = np.unique(frames, return_inverse=True, return_counts=True)
    all_frames = range(int(unique[0]), int(unique[-1]) + 1)
    # The share of each value in each frame.
    shares = [np.interp(all_frames, unique, unit) for unit in np.eye(len(unique))]
    weights = (np.array(shares) / counts[:, None])[index]
    return all_frames, np.einsum('nkc,kf->nfc', values, weights)


def boxes_where_present(
    frames: np.ndarray, bboxes: np.ndarray, person_scores: np.ndarray, presence: float
) -> np.ndarray:
    """Boxes (n, K, 4) of a clip's tubelets, NaN where the person is not.

    A tubelet keeps the frame of its best person score, whatever that is; of a frame that
    a padded clip repeats, the first entry counts.

    Args:
        frames: (K,) numbers of the frames, ascending from 1.
        bboxes: (n, K, 4).
        person_scores: (n, K).
        presence: Person score from which a person is in a frame.
    """
    scores = np.where(_repeats(frames), -1, person_scores)
    best = scores.max(axis=1, keepdims=True)
    is_present = scores >= np.minimum(best, presence)
    return np.where(is_present[..., None], bboxes, np.nan)


def tubelets_by_action(
    bboxes: np.ndarray, scores: np.ndarray, acting: float
) -> tuple[np.ndarray, np.ndarray]:
    """A tubelet for each action of each tubelet, in the frames in which it is done.

    Args:
        bboxes: (n, K, 4), NaN where there is none.
        scores: (n, K, classes).
        acting: Score from which an action is done.

    Returns:
        Boxes (m, K, 4), and scores (m, classes), which are 0 but for the one action's:
        there the mean over its frames.
    """
    done = (scores >= acting) & has_box(bboxes)[..., None]
    tubelet, column = np.nonzero(done.any(axis=1))
    is_done = done[tubelet, :, column]  # (m, K)
    by_action = np.zeros((len(tubelet), scores.shape[2]), scores.dtype)
    means = np.mean(scores[tubelet, :, column], axis=1, where=is_done)
    by_action[np.arange(len(tubelet)), column] = means
    return np.where(is_done[..., None], bboxes[tubelet], np.nan), by_action


class _Tubes(NamedTuple):
    """m tubes, and the last tubelet of each."""

    ids: np.ndarray  # (m,) int
    sequences: np.ndarray  # (m,) int
    totals: np.ndarray  # (m,) float, sums of the scores of their tubelets
    counts: np.ndarray  # (m,) int, numbers of these
    frames: np.ndarray  # (m, K) int
    bboxes: np.ndarray  # (m, K, 4) float, NaN where there is none


class TubeletLinker:
    """Assigns tubelets to tubes, clip by clip; ids are final.

    The tubes of a sequence take turns by descending mean score. Each takes the
    highest-scoring free tubelet whose mean IoU with its last one, over the frames in
    which both have a box, is ``link_iou`` or more; where there is no such frame, the
    last box counts against the first. A tube ends when nothing that begins within
    ``end_after`` frames after its last box continues it. Tubelets that no tube takes
    start tubes. Source: ``BuildTubes`` of ACT.

    Args:
        linking: Constants; of these ``link_iou``, ``link_pixel`` and ``end_after``.
        by_overlap: A tube takes the tubelet with the greatest mean IoU instead, which
            keeps persons apart who cross.

    Attributes:
        end_after: May grow while clips are linked.
    """

    def __init__(self, linking: Linking, *, by_overlap: bool = False) -> None:
        self._linking, self.end_after = linking, linking.end_after
        self._by_overlap = by_overlap
        self._tubes: _Tubes | None = None
        self._num_tubes = 0

    def extend(
        self,
        frames: np.ndarray,
        bboxes: np.ndarray,
        scores: np.ndarray,
        sequences: np.ndarray | None = None,
    ) -> np.ndarray:
        """Numbers (n,) of the tubes of a clip's tubelets, from 0.

        Args:
            frames: (K,) numbers of the clip's frames, ascending; no clip before it may
                begin later. Of one that is repeated, the first entry counts.
            bboxes: (n, K, 4) in pixels, unless ``link_pixel`` is 0; NaN where there is
                none, as of ``boxes_where_present``.
            scores: (n,).
            sequences: (n,), of which each is linked on its own; by default one.
        """
        if sequences is None:
            sequences = np.zeros(len(scores), dtype=int)
        number = len(scores)
        bboxes = np.where(_repeats(frames)[:, None], np.nan, bboxes)
        totals, counts = np.array(scores, dtype=float), np.ones(number, dtype=int)
        clip = np.broadcast_to(frames, bboxes.shape[:2]), bboxes
        new_tubes = _Tubes(np.full(number, -1), sequences, totals, counts, *clip)
        tubes = take(new_tubes, slice(0)) if self._tubes is None else self._tubes
        ends, _ = _box_at(tubes, -1)
        tubes = take(tubes, frames[0] - ends <= self.end_after)
        tubes = take(tubes, np.argsort(tubes.sequences, kind='stable'))
        tubelet, tube, ious = self._find(frames, new_tubes, tubes)
        sequence, ids = sequences[tubelet], tubes.ids[tube]
        means = tubes.totals[tube] / tubes.counts[tube]
        rank = ious if self._by_overlap else new_tubes.totals[tubelet]
        order = np.lexsort((tubelet, -rank, ids, -means, sequence))
        tubelet, tube = tubelet[order], tube[order]
        chosen = choose_in_turn(sequence[order], tube, tubelet)
        tubelet, tube = tubelet[chosen], tube[chosen]
        new_tubes.ids[tubelet] = tubes.ids[tube]
        new_tubes.totals[tubelet] += tubes.totals[tube]
        new_tubes.counts[tubelet] += tubes.counts[tube]
        is_new = new_tubes.ids < 0
        new_tubes.ids[is_new] = self._num_tubes + np.arange(is_new.sum())
        self._num_tubes += is_new.sum()
        waiting = np.delete(np.arange(len(tubes.ids)), tube)
        parts = zip(take(tubes, waiting), new_tubes, strict=True)
        self._tubes = _Tubes(*map(np.concatenate, parts))
        return new_tubes.ids

    def _find(
        self, frames: np.ndarray, new_tubes: _Tubes, tubes: _Tubes
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """New tubelets (P,), tubes (P,) that they may continue, and IoUs of these."""
        linking = self._linking
        begins, first_bboxes = _box_at(new_tubes, 0)
        ends, last_bboxes = _box_at(tubes, -1)
        # The boxes (m, K, 4) of the tubes in the frames of the clip.
        is_common = has_box(tubes.bboxes)[:, None] & (
            frames[:, None] == tubes.frames[:, None]
        )
        tube, entry, tube_entry = np.nonzero(is_common)
        clip_bboxes = np.full(tubes.bboxes.shape, np.nan)
        clip_bboxes[tube, entry] = tubes.bboxes[tube, tube_entry]
        reaches = is_common.any(axis=(1, 2))
        empty = np.zeros(0, dtype=int)
        candidates = [(empty, empty, np.zeros(0))]
        for tubelet, tube in group_pairs(new_tubes.sequences, tubes.sequences):
            first, last = first_bboxes[tubelet], last_bboxes[tube]
            iou = aligned_iou(first, last, pixel=linking.link_pixel)
            iou[begins[tubelet] - ends[tube] > self.end_after] = -1
            common = np.flatnonzero(reaches[tube])
            first, second = new_tubes.bboxes[tubelet[common]], clip_bboxes[tube[common]]
            mean = clip_iou(first, second, pixel=linking.link_pixel)
            shared = ~np.isnan(mean)
            iou[common[shared]] = mean[shared]
            is_near = iou >= linking.link_iou
            candidates.append((tubelet[is_near], tube[is_near], iou[is_near]))
        return tuple(map(np.concatenate, zip(*candidates, strict=True)))


def _repeats(frames: np.ndarray) -> np.ndarray:
    """Mask (K,) of the entries of a clip that repeat the frame before."""
    return np.diff(frames, prepend=0) == 0


def _box_at(tubes: _Tubes, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (m,) and boxes (m, 4) at the end 0 or -1 of the last tubelets."""
    is_present, rows = has_box(tubes.bboxes), np.arange(len(tubes.bboxes))
    entry = is_present.argmax(axis=1)
    if end:
        entry = -1 - is_present[:, ::-1].argmax(axis=1)
    return tubes.frames[rows, entry], tubes.bboxes[rows, entry]

"""Keyframes of every frame from the tubelets of clips that overlap."""

from collections.abc import Iterator

from torch import nn

from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.read import Predictions, Reader, as_array, make_persons
from stmixer_mm.apis.tracking import Tracker
from stmixer_mm.datasets.frames import clip_indices
from stmixer_mm.datasets.transforms import SampleKeyframeClip
from stmixer_mm.errors import UserError
from stmixer_mm.evaluation.functional.tubelet_linking import Linking, TubeletLinker
from stmixer_mm.projects.tubelets.joining import ClipTubelets, join_tubelets
from stmixer_mm.registry import READERS
from stmixer_mm.structures import PRESENCE, Keyframe, TubeletStageOutput, top_actions


def read_tubelets(
    model: nn.Module,
    predictions: Predictions,
    loader: ClipLoader,
    *,
    score_thr: float,
    tracker: Tracker | None,
) -> Iterator[Keyframe]:
    """All frames of the clips, whose persons have the ids of tubes.

    Raises:
        UserError: the keyframe is after the clip.
    """
    if loader.ahead_s:
        raise UserError(
            f'The test pipeline has ahead_s={loader.ahead_s:g}, but tubelets are in '
            'the frames of their clip; leave ahead_s out.'
        )
    return _read_frames(model, predictions, loader.sampler, score_thr)


def _read_frames(
    model: nn.Module,
    predictions: Predictions,
    sampler: SampleKeyframeClip,
    score_thr: float,
) -> Iterator[Keyframe]:
    times: dict[int, float] = {}  # of frames that are not final
    linker = TubeletLinker(Linking(), by_overlap=True)
    span = (sampler.clip_len - 1) * sampler.frame_interval + 1

    def tubelets() -> Iterator[ClipTubelets]:
        previous_index = 0
        for clip, instances in predictions:
            # A person may be missed during one clip, and between clips.
            linker.end_after = max(span, clip.frame_index - previous_index)
            previous_index = clip.frame_index
            times.update(zip(clip.frames, clip.times.tolist(), strict=True))
            yield ClipTubelets(
                frames=clip_indices(
                    clip.frame_index,
                    clip_len=sampler.clip_len,
                    frame_interval=sampler.frame_interval,
                    total_frames=clip.frames.stop,
                    place=sampler.place,
                ),
                bboxes=as_array(instances.bboxes) * (clip.size[::-1] * 2),
                person_scores=as_array(instances.person_scores),
                action_scores=as_array(instances.scores),
                scores=as_array(instances.tubelet_scores),
            )

    # If the user's threshold is lower, it applies to all frames.
    presence = min(PRESENCE, getattr(model.head, 'score_thr', PRESENCE))
    for persons in join_tubelets(tubelets(), linker, presence=presence):
        actions = [
            top_actions(row, model.classes, score_thr) for row in persons.action_scores
        ]
        yield Keyframe(
            time_s=times.pop(persons.frame),
            frame_index=persons.frame,
            persons=make_persons(
                persons.bboxes, actions, persons.ids, persons.person_scores
            ),
        )


READERS[TubeletStageOutput] = Reader(read_tubelets, every_frame=True)

"""Ids of track queries along a video."""

import pytest
import torch
from tiny_stmixer import write_project, write_video

from stmixer_mm.apis import ActionDetInferencer
from stmixer_mm.apis.config import load_config


class NoTracker:
    def extend(self, *arguments):
        raise AssertionError


@pytest.mark.parametrize('fast', [False, True])
def test_track_queries_give_the_ids(tmp_path, fast):
    """Each source has its own; no tracker is asked."""
    video = write_video(tmp_path / 'new.mp4', frames=25, fps=10, size=(96, 64))
    config = load_config(write_project(tmp_path))
    config.custom_imports = dict(imports=['stmixer_mm.projects.track_queries'])
    config.model.query_interaction = dict(
        type='QueryInteraction', birth_score=0.0, keep_score=0.0, max_overlap=1.0
    )
    config.dump(tmp_path / 'tracks.py')
    torch.manual_seed(0)
    model = ActionDetInferencer(
        tmp_path / 'tracks.py',
        device='cpu',
        cfg_options={'model.head.score_thr': 0.0},
        fast=fast,
        show_progress=False,
    )
    keyframes, again = (
        [*model.stream(video, nms_thr=1, tracker=NoTracker(), batch_size=size)]
        for size in (1, 4)
    )
    first, second, third = (keyframe.ids for keyframe in keyframes)
    assert sorted(first) == [0, 1, 2, 3]
    # Those of the first keyframe go on, and newcomers have ids of their own.
    assert {*first} < {*second} and {*first} < {*third}
    assert len({*second} | {*third}) == len(second) + len(third) - len(first)
    assert [keyframe.ids for keyframe in again] == [first, second, third]

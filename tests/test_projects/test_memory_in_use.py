"""Laws of a memory in live streams, tiles, frames used again and tests with flips."""

import threading
from functools import partial

import numpy as np
import pytest
import test_memory
import torch
from detections import assert_same_keyframes
from mmengine.dataset import pseudo_collate
from run_tool import run_and_fail
from test_live import Notes, Source
from test_memory import DETECTION, action_scores, build

import stmixer_mm.projects.streaming  # noqa: F401
from stmixer_mm.apis.cut import ClipLoader
from stmixer_mm.apis.inference import detect_clips
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.projects.flip_tta.flip_tta import FlipTTAModel
from stmixer_mm.projects.live.detection import LiveDetection
from stmixer_mm.projects.tiles import Tiles
from stmixer_mm.registry import DATASETS

project = test_memory.project
PATIENCE_S = 20


@pytest.fixture
def past(project):
    """A detector that remembers half a second."""
    return build(project, **{'memory.window_s': 0.5, 'memory.past_only': True})


def test_live_gives_what_the_same_keyframes_of_a_file_give(project, past):
    reader = open_video(project / '1.mp4')
    loader, is_found = ClipLoader(past.model.cfg), threading.Semaphore(0)
    *_, num_later, _ = loader.spans

    def one_by_one():
        for number, time_s in enumerate(reader.times.tolist()):
            yield time_s, *reader.get_batch([number])
            assert number < num_later or is_found.acquire(timeout=PATIENCE_S)

    def detect(clips):
        for keyframe in detect_clips(past.model, loader, clips, score_thr=0, nms_thr=1):
            yield keyframe
            is_found.release()

    live, notes = LiveDetection(Source(one_by_one()), detect, loader.spans), Notes()
    live.listeners.append(notes)
    live.start()
    assert live.wait(PATIENCE_S)
    options = DETECTION | dict(interval_s=0.1)
    expected = past.detect(project / '1.mp4', **options).keyframes
    keyframes = [result.keyframe for result in notes.results]
    assert_same_keyframes(keyframes, expected[: len(reader) - num_later])


def test_a_page_needs_a_memory_of_the_past_alone(project, capsys):
    model = '--model', project / 'memory.py', '--weights', project / 'work/epoch_1.pth'
    line = run_and_fail(capsys, 'live', project / '1.mp4', *model, '--page', 0)
    assert 'past_only=True' in line


def test_frames_are_used_again_beside_a_memory(project, past):
    detect = partial(past.detect, project / '1.mp4', **DETECTION | dict(interval_s=0.1))
    detections, expected = (detect(reuse=reuse) for reuse in ('always', 'never'))
    assert_same_keyframes(detections.keyframes, expected.keyframes)


def test_persons_of_tiles_are_remembered(project, past):
    loader, tiles, memory = ClipLoader(past.model.cfg), Tiles('1x2'), past.model.memory
    options = DETECTION | dict(tracker=None)
    keyframes = past.detect(project / '1.mp4', predictor=tiles, **options).keyframes
    clips = loader.cut(open_video(project / '1.mp4'), interval_s=0.2)
    options = dict(batch_size=1, nms_thr=1.0, on_damage=None, reuse='never')
    predictions = [*tiles(past.model, loader, clips, **options)]
    embedded = [memory.embed(p.person_vectors, p.bboxes) for _, p in predictions]
    times = torch.tensor([clip.time_s for clip, p in predictions for _ in p.bboxes])
    everybody = torch.cat(embedded)[None]
    rows = zip(predictions, embedded, keyframes, strict=True)
    for (clip, instances), persons, keyframe in rows:
        added = memory(persons[None], everybody, (times - clip.time_s)[None])[0]
        logits = instances.action_logits + added
        scores = logits.sigmoid().sort(descending=True).values
        np.testing.assert_allclose(scores.detach(), action_scores(keyframe), atol=1e-5)
    assert added.abs().max() > 0


def test_no_video_is_remembered_in_the_next(project, past):
    expected = past.detect(project / '1.mp4', **DETECTION)
    videos = [str(project / name) for name in ('0.mp4', '1.mp4')]
    _, detections = past(videos, **DETECTION)['predictions']
    assert_same_keyframes(detections.keyframes, expected.keyframes)


def test_banks_are_not_mirrored(project, past):
    batch = pseudo_collate([DATASETS.build(past.model.cfg.test_dataloader.dataset)[0]])
    with pytest.raises(UserError, match='BankDataset'):
        FlipTTAModel(module=past.model).test_step(batch)

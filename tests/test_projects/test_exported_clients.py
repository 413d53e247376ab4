"""Clients that have nothing of this package: an exported file and its description."""

import json
import re
import runpy
import shutil
import subprocess

import numpy as np
import pytest
import torch
from run_tool import run_tool
from tiny_stmixer import ROOT, write_project, write_video
from torch import nn

from stmixer_mm.apis import ActionDetInferencer, init_detector
from stmixer_mm.datasets.videos import open_video

for package in 'onnx', 'onnxscript', 'onnxruntime':
    pytest.importorskip(package)

CLIENT = ROOT / 'demo' / 'detect.mjs'
THR = 'model.head.score_thr'


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A folder with an exported model and a video, and our detections in that."""
    folder = tmp_path_factory.mktemp('clients')
    config, checkpoint = write_project(folder), folder / 'tiny.pth'
    longer = config.read_text().replace('clip_len=2', 'clip_len=4')
    config.write_text(longer.replace('num_frames=2', 'num_frames=4'))
    torch.manual_seed(0)
    model = init_detector(config, None)
    for stage in model.decoder.stages:  # otherwise all boxes stay the whole frame
        nn.init.normal_(stage.box_branch[-1].weight, std=0.1)
        nn.init.normal_(stage.action_branch[-1].weight, std=0.5)
        nn.init.zeros_(stage.action_branch[-1].bias)
    torch.save(model.state_dict(), checkpoint)
    video = write_video(folder / 'video.mp4', frames=25, size=(64, 48))
    files = '--out', folder / 'model.onnx', '--video', video
    options = '--cfg-options', f'{THR}=0.3'
    run_tool('export', config, checkpoint, '--to', 'onnx', *files, *options)
    inferencer = ActionDetInferencer(config, checkpoint, cfg_options={THR: 0.3})
    everyone = inferencer.detect(video, tracker=None, nms_thr=1).rows()
    detections = inferencer.detect(video, tracker=None)
    assert 0 < len(detections.rows()) < len(everyone)  # some are suppressed
    return folder, detections


def assert_same(rows, detections):
    keys = 'frame', 'action', 'score', 'x1', 'y1', 'x2', 'y2'
    expected = sorted([row[key] for key in keys] for row in detections.rows())
    frames, actions, *numbers = zip(*expected, strict=True)
    found_frames, found_actions, *found_numbers = zip(*sorted(rows), strict=True)
    assert {*frames} == {0, 10, 20}  # clips reach over both ends
    assert (found_frames, found_actions) == (frames, actions)
    # Boxes have two decimals.
    np.testing.assert_allclose(found_numbers, numbers, atol=0.0101)


def test_the_client_in_python(exported, monkeypatch, capsys):
    folder, detections = exported
    monkeypatch.chdir(folder)
    runpy.run_path(CLIENT.with_name('detect_onnx.py'))
    printed = capsys.readouterr().out
    rows = [
        (int(frame), action, float(score), *map(float, box.split()))
        for frame, box, done in re.findall(r'(\d+) \[(.*)\]\n((?: .*\n)*)', printed)
        for action, score in re.findall(r'(\S+) (\S+)', done)
    ]
    assert_same(rows, detections)


@pytest.mark.skipif(shutil.which('node') is None, reason='needs node')
def test_the_client_in_javascript(exported):
    folder, detections = exported
    if not (CLIENT.parent / 'node_modules').is_dir():
        pytest.skip(f'needs npm install in {CLIENT.parent}')
    video = open_video(folder / 'video.mp4')
    height, width = video.size
    header = b'P6\n%d %d\n255\n' % (width, height)
    frames = video.get_batch(range(len(video))).asnumpy()
    program = subprocess.run(
        ['node', CLIENT, folder / 'model.onnx', str(video.fps)],
        input=b''.join(header + frame.tobytes() for frame in frames),
        capture_output=True,
    )
    assert program.returncode == 0, program.stderr
    content = json.loads(program.stdout) | dict(video=detections.source)
    assert {**content, 'keyframes': []} == {**detections.to_dict(), 'keyframes': []}
    assert_same(
        [
            [keyframe['frame'], done['action'], done['score'], *person['bbox']]
            for keyframe in content['keyframes']
            for person in keyframe['persons']
            for done in person['actions']
        ],
        detections,
    )

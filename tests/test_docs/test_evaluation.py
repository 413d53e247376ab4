"""docs/evaluation.md: its configs evaluate."""

import pickle
import re

import numpy as np
import pytest
from run_tool import ROOT, run_tool

TEXT = (ROOT / 'docs' / 'evaluation.md').read_text()
CONFIGS = dict(re.findall(r'`(\w+\.py)`:\n\n```python\n(.*?)^```$', TEXT, re.M | re.S))
TRUTH = 'v,1,0.1,0.1,0.5,0.5,1,0\n'
LABEL_MAP = 'item {\n  name: "run"\n  id: 1\n}\n'
TUBE = np.array([[frame, 5, 5, 25, 25] for frame in range(1, 21)])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = dict(
        labels=['run'],
        train_videos=[[]],
        test_videos=[['v']],
        nframes=dict(v=20),
        resolution=dict(v=(50, 50)),
        gttubes=dict(v={0: [TUBE]}),
    )
    (tmp_path / 'GT.pkl').write_bytes(pickle.dumps(truth))
    (tmp_path / 'truth.csv').write_text(TRUTH)
    (tmp_path / 'label_map.pbtxt').write_text(LABEL_MAP)
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_keyframes(folder, capsys):
    (folder / 'found.csv').write_text(TRUTH.replace(',1,0\n', ',1,0.9\n'))
    run_tool('evaluate', 'found.csv', 'keyframes.py')
    assert re.search(r'^mAP/run +1\.0000$', capsys.readouterr().out, re.M)


def test_tubes(folder, capsys):
    found = [[0, frame, 0, 0.9, *box] for frame, *box in TUBE.tolist()]
    (folder / 'frame_detections.pkl').write_bytes(pickle.dumps(np.array(found)))
    options = '--cfg-options', 'test_evaluator.0.iou_thrs=[0.5,0.75]'
    run_tool('evaluate', 'frame_detections.pkl', 'tubes.py', *options)
    printed = capsys.readouterr().out
    assert re.search(r'^frame_mAP/overall@0\.75 +1\.0000$', printed, re.M)
    assert re.search(r'^video_mAP/overall@0\.2 +1\.0000$', printed, re.M)

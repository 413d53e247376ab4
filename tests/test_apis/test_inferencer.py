import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from detections import assert_same_keyframes
from mmdet.structures.bbox import bbox_overlaps
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from run_tool import python_blocks
from tiny_stmixer import write_project, write_video

from stmixer_mm.apis import ActionDetInferencer
from stmixer_mm.apis.inference import init_detector
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.errors import UserError
from stmixer_mm.structures import VideoDetections


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('project')


def build(folder, kind):
    """An inferencer whose model finds a person in each query."""
    config, checkpoint = folder / f'{kind}.py', folder / f'{kind}.pth'
    text = write_project(folder).read_text()
    config.write_text(text.replace('stmixer_tiny', f'{kind}_tiny'))
    options = dict(cfg_options={'model.head.score_thr': 0.0}, show_progress=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        torch.manual_seed(0)
        torch.save(init_detector(config, None).state_dict(), checkpoint)
        return ActionDetInferencer(config, checkpoint, 'cpu', **options)


@pytest.fixture(scope='module')
def of_keyframes(folder):
    return build(folder, 'stmixer')


@pytest.fixture(scope='module')
def of_tubelets(folder):
    return build(folder, 'stmixer-t')


@pytest.fixture(scope='module')
def video(folder):
    return write_video(folder / 'new.mp4', frames=25, fps=10, size=(96, 64))


def frames_of(video):
    reader = open_video(video)
    return np.array(reader.get_batch(range(len(reader))))


@pytest.fixture
def foretelling(of_keyframes, monkeypatch):
    """The same, half a second ahead: clips of 2 frames, 0.2 s apart."""
    cfg = deepcopy(of_keyframes.model.cfg)
    cfg.test_dataloader.dataset.pipeline[1].ahead_s = 0.5
    monkeypatch.setattr(of_keyframes.model, 'cfg', cfg)
    return of_keyframes


def test_a_result_says_for_when_it_speaks(foretelling, video, tmp_path):
    keyframes = list(foretelling.stream(video, interval_s=0.4))
    for frame_index, keyframe in zip(range(8, 32, 4), keyframes, strict=True):
        assert keyframe.time_s == pytest.approx(frame_index / 10)
        assert (keyframe.frame_index, keyframe.ahead_s) == (frame_index, 0.5)
    # It has not seen what comes after its clip.
    cut = frames_of(video)[: 15 + 1]
    keyframes_of_cut = list(foretelling.stream(cut, fps=10, interval_s=0.4))
    assert_same_keyframes(keyframes_of_cut, keyframes[:4])
    foretelling.detect(video, vis_file=tmp_path / 'o.mp4', interval_s=0.4)
    assert len(open_video(tmp_path / 'o.mp4')) == 25


@pytest.mark.parametrize('kind', ['of_keyframes', 'of_tubelets', 'foretelling'])
@pytest.mark.parametrize(
    'options', [dict(interval_s=0.4, batch_size=3), dict(start=0.5, end=1.5, nms_thr=1)]
)
def test_a_stream_gives_what_its_file_gives(kind, options, video, request):
    inferencer = request.getfixturevalue(kind)
    frames = frames_of(video)
    expected = list(inferencer.stream(video, **options))
    keyframes = list(inferencer.stream(frames, fps=10, **options))
    assert_same_keyframes(keyframes, expected)


def test_bad_sources_among_others_have_an_error(of_keyframes, video, folder):
    (folder / 'bad.mp4').write_bytes(b'x')
    (folder / 'list.txt').write_text(f'gone.mp4\n{folder}/bad.mp4\n{video}\n')
    frames = frames_of(video)
    breaks = [*frames[:15], frames[0, :40]]
    sources = [folder / 'list.txt', breaks, frames.astype(float)]
    predictions = of_keyframes(sources, fps=10, batch_size=4)['predictions']
    assert [len(prediction.keyframes) for prediction in predictions] == [0, 0, 3, 2, 0]
    names = ['gone.mp4', 'bad.mp4', 'None', 'frame 15', 'frame 0']
    for prediction, name in zip(predictions, names, strict=True):
        assert name in str(prediction.error) and '\n' not in str(prediction.error)
    with pytest.raises(UserError, match=r'gone\.mp4'):
        of_keyframes('gone.mp4')


def test_files_are_written(of_keyframes, video, folder, tmp_path):
    sources = [video, frames_of(video), folder / 'gone.mp4']
    files = dict(out_dir=tmp_path / 'out', pred_out_file=tmp_path / 'all.json')
    result = of_keyframes(sources, fps=10, **files)
    drawn = [tmp_path / 'out' / 'vis' / f'{name}.mp4' for name in ('new', 'frames')]
    assert result['visualization'] == [*map(str, drawn), None]
    pictures = np.array([frames_of(path) for path in drawn], int)
    assert np.abs(np.subtract(*pictures)).mean() < 1
    written = json.loads((tmp_path / 'all.json').read_text())
    for record, name in zip(written, ('new', 'frames', 'gone'), strict=True):
        path = tmp_path / 'out' / 'preds' / f'{name}.json'
        assert json.loads(path.read_text()) == record


def test_persons_seen_twice_are_left_out(of_keyframes, video, monkeypatch):
    bboxes = torch.rand(30, 4, dtype=float) / 2
    bboxes[:, 2:] += bboxes[:, :2]
    scores = torch.rand(30)
    detections = dict(bboxes=bboxes, person_scores=scores, scores=torch.zeros(30, 3))

    def test_step(batch):
        for sample in batch['data_samples']:
            sample.pred_instances = InstanceData(**detections)
        return batch['data_samples']

    monkeypatch.setattr(of_keyframes.model, 'test_step', test_step)
    ious = bbox_overlaps(bboxes, bboxes)
    for threshold in (0.3, 1):
        survivors = []
        for index in scores.argsort(descending=True):
            if (ious[index, survivors] <= threshold).all():
                survivors.append(int(index))
        (keyframe,) = of_keyframes.stream(video, nms_thr=threshold, end=0.5)
        expected = scores[sorted(survivors)]
        np.testing.assert_allclose(keyframe.person_scores, expected, 1e-6)


def test_the_python_of_the_readme_runs(folder, video, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _ = python_blocks('README.md')
    names = dict(CONFIG=folder / 'stmixer.py', CHECKPOINT=folder / 'stmixer.pth')
    exec(code, dict(names, VIDEO=video))
    assert len(VideoDetections.load('out.json').keyframes) == 3


def test_no_output_replaces_an_input(of_keyframes, video, tmp_path):
    copy, link, folder = (tmp_path / name for name in ('a.mp4', 'b.json', 'vis'))
    copy.write_bytes(video.read_bytes())
    link.hardlink_to(copy)
    folder.mkdir()
    (folder / 'a.mp4').symlink_to(copy)
    contents = {path: path.read_bytes() for path in tmp_path.rglob('*.*')}
    files = copy, link, of_keyframes.model.cfg.filename
    for output in *(dict(pred_out_file=file) for file in files), dict(out_dir=tmp_path):
        with pytest.raises(UserError):
            of_keyframes(str(copy), **output)
    assert {path: path.read_bytes() for path in tmp_path.rglob('*.*')} == contents

import cv2
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from stmixer_mm.engine.visualization_hook import KeyframeVisualizationHook
from stmixer_mm.visualization.visualizer import STADVisualizer


def make_sample(timestamp):
    sample = ActionDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[4.0, 4, 20, 28]]), labels=torch.tensor([[0.0, 1]])
        ),
        pred_instances=InstanceData(
            bboxes=torch.tensor([[0.1, 0.1, 0.5, 0.9]]),
            scores=torch.tensor([[0.0, 0.8]]),
        ),
    )
    sample.set_metainfo(dict(img_key=f'a b.mp4,{timestamp:04d}', img_shape=(32, 48)))
    return sample


@pytest.fixture
def visualizer(monkeypatch):
    visualizer = STADVisualizer(name='keyframes')
    visualizer.dataset_meta = dict(classes=('stand',))
    monkeypatch.setattr(Visualizer, 'get_current_instance', lambda: visualizer)
    return visualizer


@pytest.mark.parametrize('shape', [(3, 4, 32, 48), (1, 3, 4, 32, 48)])
@pytest.mark.parametrize(('interval', 'drawn'), [(1, [1, 2, 3, 4]), (3, [1, 4])])
def test_one_picture_per_keyframe(tmp_path, visualizer, shape, interval, drawn):
    hook = KeyframeVisualizationHook(
        enable=True, interval=interval, out_dir=str(tmp_path)
    )
    disabled = KeyframeVisualizationHook(out_dir=str(tmp_path / 'disabled'), interval=1)
    for batch in range(2):
        samples = [make_sample(2 * batch + 1), make_sample(2 * batch + 2)]
        clips = [torch.zeros(shape, dtype=torch.uint8)] * 2
        for one in hook, disabled:
            one.after_test_iter(None, batch, dict(inputs=clips), samples)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f'a_b.mp4_{time:04d}_0.jpg' for time in drawn]
    height, width, _ = cv2.imread(str(tmp_path / names[0])).shape
    assert height > 360 and width > 2 * 540  # enlarged, or labels cover persons

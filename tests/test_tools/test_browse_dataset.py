import cv2
import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from run_tool import load_tool, run_tool
from tiny_stmixer import write_project

from stmixer_mm.visualization.draw import draw_detections, person_colors
from stmixer_mm.visualization.visualizer import describe_states

TOOL = load_tool('tools/browse_dataset.py')
WALKS = torch.tensor([[0.0, 0, 1]])


def packed(labels, dtype=torch.uint8):
    """A clip of 4 frames of 300x240, each of one grey, with a box in the keyframe."""
    greys = torch.tensor([10, 20, 30, 40])[None, :, None, None]
    bboxes = torch.tensor([[30.0, 60, 120, 200]])
    truth = InstanceData(bboxes=bboxes, labels=labels)
    sample = ActionDataSample(gt_instances=truth, metainfo=dict(img_key='a,0001'))
    return dict(inputs=greys.expand(3, 4, 240, 300).to(dtype), data_samples=sample)


def drawn(grey, colors=None, action='action 2', count=1):
    frame = np.full((360, 450, 3), grey, np.uint8)
    boxes, actions = [[45, 90, 180, 300]] * count, [[(action, None)]] * count
    return draw_detections(frame, boxes, actions, colors=colors)


def test_the_keyframe_with_its_boxes_and_labels():
    for sample in (packed(WALKS), packed(torch.tensor([[2]]))):
        picture = TOOL.draw_sample(sample, ['stand', 'walk'])
        assert np.array_equal(picture[-360:], drawn(30, action='walk'))
    normalised = TOOL.draw_sample(packed(WALKS, torch.float32), None)
    assert normalised[-1, -1, 0] == 255 * 20 // 30  # its own range: 10 to 40


def test_a_clip_of_tubelets_has_boxes_in_all_frames_and_words_for_the_others():
    sample = packed(WALKS)
    bboxes = torch.tensor([30.0, 60, 120, 200]).repeat(3, 4, 1)
    states = torch.tensor([[1, 1, 1, 1], [1, 0, 0, -1], [1, 1, -1, 0]])
    sample['data_samples'].gt_instances = truth = InstanceData(
        bboxes=bboxes, states=states, labels=WALKS.repeat(3, 1)
    )
    sample['data_samples'].set_metainfo(dict(clip_frames=np.array([1, 1, 3, 5])))
    (first, second, third) = person_colors(range(3))
    assert describe_states(truth, 1) == [('absent', *second)]
    assert describe_states(truth, 3) == [('unknown', *second), ('absent', *third)]
    picture = TOOL.draw_sample(sample, None, with_clip=True)
    assert picture.shape[1] == 4 * 450 + 3 * 8
    colors = [first, second, third], [first, third], [first], [first]
    for entry in range(4):
        expected = drawn(10 * entry + 10, colors[entry], count=len(colors[entry]))
        assert np.array_equal(picture[-360:, entry * 458 :][:, :450], expected)


def test_sheets_and_folders_by_seed(tmp_path):
    config, folder = write_project(tmp_path), tmp_path / 'new'
    flip, last = "dict(type='Flip', flip_ratio=0.5), ", "dict(type='FormatShape'"
    config.write_text(config.read_text().replace(last, flip + last))
    sheets, path = [], folder / 'sheet.png'
    for seed in (0, 0, 1, 2):
        run_tool('browse_dataset', config, '--seed', seed, '--sheet', path)
        sheets.append(path.read_bytes())
    assert sheets[0] == sheets[1] and len(set(sheets)) > 1
    run_tool('browse_dataset', config, '--number', 2, '--out', folder)
    files = sorted(folder.glob('*.jpg'))
    assert [file.name for file in files] == ['0000.jpg', '0001.jpg']
    assert cv2.imread(str(files[0])) is not None

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.structures import InstanceData
from run_tool import load_tool, run_tool
from tiny_stmixer import write_project

from stmixer_mm.errors import UserError
from stmixer_mm.visualization.draw import draw_detections, person_colors
from stmixer_mm.visualization.visualizer import describe_states

TOOL = load_tool('tools/browse_dataset.py')


run = partial(run_tool, 'browse_dataset')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp('project'))


def packed(labels, dtype=torch.uint8):
    """A clip of 4 frames of 300x240, each of one grey, with a box in the keyframe."""
    greys = torch.tensor([10, 20, 30, 40])[None, :, None, None]
    return dict(
        inputs=greys.expand(3, 4, 240, 300).to(dtype),
        data_samples=ActionDataSample(
            gt_instances=InstanceData(
                bboxes=torch.tensor([[30.0, 60, 120, 200]]), labels=labels
            ),
            metainfo=dict(img_key='a,0001'),
        ),
    )


WALKS = torch.tensor([[0.0, 0, 1]])


def test_the_keyframe_with_its_boxes_and_labels():
    picture = TOOL.draw_sample(packed(WALKS), ['stand', 'walk'])
    frame = np.full((360, 450, 3), 30, np.uint8)
    box = [[45, 90, 180, 300]]
    assert np.array_equal(
        picture[-360:], draw_detections(frame, box, [[('walk', None)]])
    )
    numbers = TOOL.draw_sample(packed(torch.tensor([[2]])), ['stand', 'walk'])
    assert np.array_equal(numbers, picture)
    normalised = TOOL.draw_sample(packed(WALKS, torch.float32), ['stand', 'walk'])
    assert normalised[-1, -1, 0] == 255 * 20 // 30  # its own range: 10 to 40


def test_the_clip_in_order():
    picture = TOOL.draw_sample(packed(WALKS), None, with_clip=True)
    assert picture[-1, ::450, 0].tolist() == [10, 20, 30, 40]
    assert picture.shape[1] == 4 * 450


def test_a_clip_of_tubelets_has_boxes_in_all_frames_and_words_for_the_others():
    sample = packed(WALKS)
    bboxes = torch.tensor([30.0, 60, 120, 200]).repeat(3, 4, 1)
    states = torch.tensor([[1, 1, 1, 1], [1, 0, 0, -1], [1, 1, -1, 0]])
    sample['data_samples'].gt_instances = InstanceData(
        bboxes=bboxes, states=states, labels=WALKS.repeat(3, 1)
    )
    sample['data_samples'].set_metainfo(dict(clip_frames=np.array([1, 1, 3, 5])))
    (first, second, third) = person_colors(range(3))
    assert describe_states(sample['data_samples'].gt_instances, 1) == [
        ('absent', *second)
    ]
    assert describe_states(sample['data_samples'].gt_instances, 3) == [
        ('unknown', *second),
        ('absent', *third),
    ]
    picture = TOOL.draw_sample(sample, None, with_clip=True)
    assert picture.shape[1] == 4 * 450 + 3 * 8
    tiles = [picture[-360:, left : left + 450] for left in range(0, 4 * 458, 458)]
    for tile, grey, colors in zip(
        tiles,
        (10, 20, 30, 40),
        ([first, second, third], [first, third], [first], [first]),
        strict=True,
    ):
        frame = np.full((360, 450, 3), grey, np.uint8)
        boxes, actions = [[45, 90, 180, 300]], [[('action 2', None)]]
        expected = draw_detections(
            frame, boxes * len(colors), actions * len(colors), colors=colors
        )
        assert np.array_equal(tile, expected)
    alone = TOOL.draw_sample(sample, None)
    assert np.array_equal(alone[-360:], tiles[2])


def test_clips_however_packed_and_no_others():
    clip = packed(WALKS)['inputs']
    frames = TOOL.clip_frames(clip)
    assert np.array_equal(TOOL.clip_frames(clip[None]), frames)
    assert np.array_equal(TOOL.clip_frames(dict(imgs=clip)), frames)
    for wrong in (clip.transpose(0, 1), clip[:, 0], dict()):
        with pytest.raises(UserError, match=r'instead of clips \(3, T, h, w\); end'):
            TOOL.clip_frames(wrong)


def test_a_sheet_holds_every_picture_once():
    pictures = [np.full((40 + 10 * (i % 3), 700, 3), i + 1, np.uint8) for i in range(5)]
    sheet = TOOL.contact_sheet(pictures)
    for number, picture in enumerate(pictures, start=1):
        assert (sheet[..., 0] == number).sum() == picture.shape[0] * 700
    assert sheet.shape[1] <= TOOL.SHEET_WIDTH


def test_sheet_and_folder(config, tmp_path, capsys):
    run(config, '--number', 2, '--sheet', tmp_path / 'a' / 'sheet.png')
    sheet = cv2.imread(str(tmp_path / 'a' / 'sheet.png'))
    run(config, '--number', 2, '--out', tmp_path / 'out', '--split', 'val')
    files = sorted((tmp_path / 'out').iterdir())
    assert [file.name for file in files] == ['0000.jpg', '0001.jpg']
    width = sum(cv2.imread(str(file)).shape[1] for file in files)
    assert sheet.shape[1] == width + 3 * TOOL.GAP
    assert f'2 keyframes: {tmp_path / "out"}' in capsys.readouterr().out


def test_a_wrapped_dataset_is_found_and_seeds_are_repeatable(config, tmp_path):
    text = config.read_text()
    flip = "dict(type='Flip', flip_ratio=0.5), dict(type='FormatShape'"
    text = text.replace("dict(type='FormatShape'", flip)
    text = text.replace('num_workers=0, dataset=dataset', 'num_workers=0, dataset=many')
    many = "many = dict(type='RepeatDataset', times=2, dataset=dataset)\n"
    text = text.replace('train_dataloader', many + 'train_dataloader', 1)
    wrapped = tmp_path / 'wrapped.py'
    wrapped.write_text(text)
    sheets = []
    for seed in (0, 0, 1, 2):
        run(wrapped, '--seed', seed, '--sheet', tmp_path / 'sheet.png')
        sheets.append((tmp_path / 'sheet.png').read_bytes())
    assert sheets[0] == sheets[1]
    assert len(set(sheets)) > 1

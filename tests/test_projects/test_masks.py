"""Masks of persons, from files to what a model learns from."""

import json

import numpy as np
import pytest
from mmaction.datasets.transforms import CenterCrop, Flip, RandomResizedCrop, Resize
from mmcv.transforms import Compose
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from stmixer_mm.datasets.annotations.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.datasets.annotations.masks import (
    KeyframeMasks,
    collect_masks,
    write_masks,
)
from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.transforms import FilterBoxes
from stmixer_mm.errors import UserError
from stmixer_mm.projects.annotate.convert import convert_annotations
from stmixer_mm.projects.annotate.segmentation import read_segmentation
from stmixer_mm.projects.masks.data import MARKS, KeyframeMaskDataset, PackMasks
from stmixer_mm.projects.masks.mask_files import read_masks
from stmixer_mm.structures import decode, encode

SIZE = (48, 64)
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]
RLE = read_segmentation([SQUARE], SIZE)


def blob(seed=0, size=SIZE):
    """A mask of a few boxes."""
    rng, mask = np.random.RandomState(seed), np.zeros(size, bool)
    for _ in range(3):
        y, x = rng.randint(size)
        mask[y // 2 : y // 2 + 20, x // 2 : x // 2 + 25] = True
    return mask


def test_polygons_and_runs_say_the_same():
    expected = np.zeros(SIZE, int)
    expected[10:20, 10:20] = 1
    # COCO's runs go down the columns.
    runs = [10 * 48 + 10, *[10, 38] * 9, 10, 44 * 48 - 20 + 0]
    runs[-1] = 48 * 64 - sum(runs[:-1])
    compressed = coco_masks.frPyObjects(dict(size=list(SIZE), counts=runs), *SIZE)
    for segmentation in (
        [SQUARE],
        [[10, 10, 15, 10, 15, 20, 10, 20], [15, 10, 20, 10, 20, 20, 15, 20]],
        dict(size=list(SIZE), counts=runs),
        dict(size=list(SIZE), counts=compressed['counts'].decode()),
    ):
        assert np.array_equal(decode(read_segmentation(segmentation, SIZE)), expected)
    for nothing in (None, [], {}, [[]], [[5, 5, 5, 5, 5, 5], []]):
        assert read_segmentation(nothing, SIZE) is None
    leaving = read_segmentation([[-20, -20, 20, -20, 20, 20, -20, 20]], SIZE)
    assert decode(leaving).sum() == 400


def write(path, **changes):
    content = dict(
        images=[dict(id=1, file_name='a.mp4,1', width=64, height=48)],
        annotations=[
            dict(id=1, image_id=1, category_id=1, track_id=0, segmentation=RLE)
        ],
    )
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_what_is_written_is_read_and_is_coco(tmp_path):
    path, mask = tmp_path / 'm.json', encode(blob())
    persons = [
        AnnotatedPerson([0.25, 0.25, 0.5, 0.5], [1], 3, mask),
        AnnotatedPerson([0.5, 0.5, 1, 1], [2], 4),
    ]
    keyframes = {
        ('a.mp4', 1): persons,
        ('a.mp4', 2.5): [],
        ('b.mp4', 1): persons[1:],  # nothing to learn from
    }
    collected = collect_masks(keyframes, dict.fromkeys(('a.mp4', 'b.mp4'), SIZE))
    write_masks(path, collected)
    found = read_masks(path)
    assert found == collected
    assert list(found) == ['a.mp4,0001', 'a.mp4,0002.5']
    assert found['a.mp4,0001'].masks == {3: mask}
    (unclear,) = found['a.mp4,0001'].unclear
    assert decode(unclear)[24:, 32:].all() and decode(unclear).sum() == 24 * 32
    coco = COCO(str(path))
    one, crowd = coco.loadAnns(coco.getAnnIds())
    assert np.array_equal(coco.annToMask(one), blob())
    assert (one['area'], one['iscrowd'], crowd['iscrowd']) == (blob().sum(), 0, 1)


def frames_that_show(masks, size):
    """A sample whose frames are its masks, one a channel."""
    frame = np.zeros((*size, 3), np.uint8)
    for channel, mask in enumerate(masks):
        frame[..., channel] = 255 * mask
    return dict(
        imgs=[frame.copy(), frame.copy()],
        img_key='v,0001',
        original_shape=size,
        img_shape=size,
        modality='RGB',
        gt_bboxes=np.zeros((len(masks), 4)),
        gt_labels=np.zeros((len(masks), 2)),
        gt_masks=np.array([encode(mask) for mask in masks], object),
        keypoint=MARKS.copy(),
    )


def pack(*transforms, **sample):
    sample = Compose([*transforms])(sample)
    packed = PackMasks()({**sample, 'imgs': np.array(sample['imgs'])})
    return packed['data_samples'], sample['imgs'][0] > 127


@pytest.mark.parametrize(
    'transforms',
    [
        [Flip(1.0), Resize((80, 40), keep_ratio=False)],
        [RandomResizedCrop((0.4, 0.8)), Flip(1.0), Resize((-1, 96))],
        [Resize((-1, 120)), CenterCrop(100), Flip(1.0), RandomResizedCrop((0.5, 0.8))],
        [],
    ],
)
def test_masks_move_as_the_frames_do(transforms):
    """The host's transforms, in any order."""
    for seed in range(3):
        np.random.seed(seed)
        masks = [blob(seed), blob(seed + 9), np.zeros(SIZE, bool)]
        sample, shown = pack(*transforms, **frames_that_show(masks, SIZE))
        found = sample.gt_instances.masks.numpy()
        assert found.dtype == bool and found.shape == (3, *shown.shape[:2])
        differ = found != np.moveaxis(shown, -1, 0)
        # OpenCV rounds where it resizes and where it warps.
        assert differ.mean() < 0.01
        assert sample.ori_shape == SIZE


def test_masks_of_smaller_frames_of_the_same_shape_fit():
    large = blob(size=(96, 128))
    small = large[::2, ::2]
    sample = frames_that_show([large], (96, 128))
    sample['gt_masks'] = np.array([encode(small)], object)
    packed, shown = pack(Flip(1.0), **sample)
    assert (packed.gt_instances.masks[0].numpy() != shown[..., 0]).mean() < 0.01
    sample['gt_masks'] = np.array([encode(large[:48])], object)
    with pytest.raises(UserError, match='128x48'):
        PackMasks()({**sample, 'imgs': np.array(sample['imgs'])})


def test_an_unknown_mask_has_no_pixel_and_boxes_go_with_theirs():
    sample = frames_that_show([], SIZE)
    sample['gt_bboxes'] = np.array([[0, 0, 9, 9], [5, 5, 5, 9], [1, 1, 8, 8]], float)
    sample['gt_labels'] = np.eye(3)
    sample['gt_masks'] = np.array([None, encode(blob()), encode(blob(1))], object)
    packed, _ = pack(FilterBoxes(), **sample)
    masks = packed.gt_instances.masks.numpy()
    assert not masks[0].any() and np.array_equal(masks[1], blob(1))


@pytest.fixture
def project(tmp_path, write_video):
    """Two persons at a second of a video, one of them with a mask."""
    write_video('a.mp4')
    (tmp_path / 'map.pbtxt').write_text('item { name: "sit" id: 1 }')
    person = AnnotatedPerson([0.1, 0.1, 0.5, 0.5], [1], 0)
    persons = [person, AnnotatedPerson([0.5, 0.1, 0.9, 0.5], [1], 1)]
    write_annotations(tmp_path / 'a.csv', {('a.mp4', 1): persons})
    settings = dict(
        ann_file='a.csv',
        label_file='map.pbtxt',
        data_root=str(tmp_path),
        pipeline=[
            dict(type='OpenVideo'),
            dict(type='SampleKeyframeClip', clip_len=2, frame_interval=2),
            dict(type='DecodeFrames'),
            dict(type='mmaction.FormatShape', input_format='NCTHW', collapse=True),
            dict(type='PackMasks'),
        ],
    )
    return settings


def test_a_dataset_with_masks(project, tmp_path):
    def build(**changes):
        write(tmp_path / 'm.json', **changes)
        return KeyframeMaskDataset(**project, mask_file='m.json')

    sample = build()[0]['data_samples']
    first, second = sample.gt_instances.masks.numpy()
    assert first.sum() == first[10:20, 10:20].sum() == 100 and not second.any()
    without = KeyframeDataset(**project)[0]['data_samples']
    assert 'masks' not in without.gt_instances and without.ori_shape == SIZE
    with pytest.raises(UserError, match=r'm.json .*a.csv'):
        build(annotations=[])
    square = encode(np.ones((48, 48)))
    image = dict(id=1, file_name='a.mp4,1', width=48, height=48)
    stretched = dict(
        images=[image], annotations=[dict(image_id=1, track_id=0, segmentation=square)]
    )
    with pytest.raises(UserError, match='48x48'):
        build(**stretched)[0]


@pytest.mark.parametrize(
    'changes',
    [
        dict(images=5),
        dict(images=[dict(id=1, file_name='a,nan', width=1, height=1)]),
        dict(images=2 * [dict(id=1, file_name='a,1', width=1, height=1)]),
        dict(annotations=[dict(image_id=7)]),
        dict(annotations=2 * [dict(image_id=1, track_id=0, segmentation=RLE)]),
        dict(annotations=[dict(image_id=1, track_id=0, segmentation=[SQUARE])]),
        dict(
            annotations=[
                dict(image_id=1, track_id=0, segmentation=RLE | dict(counts='ooo'))
            ]
        ),
    ],
    ids=str,
)
def test_a_bad_file_ends_in_one_sentence(tmp_path, changes):
    with pytest.raises(UserError, match=r'^[^\n]*m\.json[^\n]*; [^\n]*\.$'):
        read_masks(write(tmp_path / 'm.json', **changes))


META = """<meta><task><size>20</size><labels><label><name>person</name><attributes>
<attribute><name>wave</name><input_type>checkbox</input_type></attribute></attributes>
</label></labels><original_size><width>64</width><height>48</height></original_size>
</task><source>a.mp4</source></meta>"""
WAVES = '<attribute name="wave">true</attribute>'
POLYGON = 'points="10,10;20,10;20,20;10,20"'
MASK = 'rle="1, 2, 1, 4" left="10" top="10" width="4" height="2"'


def cvat(*shapes):
    tracks = (
        f'<track id="0" label="person"><{shape} frame="10">{WAVES}</{shape.split()[0]}></track>'
        for shape in shapes
    )
    return f'<annotations>{META}{"".join(tracks)}</annotations>'


def coco(segmentation):
    annotation = dict(id=1, image_id=1, category_id=1, bbox=[10, 10, 10, 10])
    return json.dumps(
        dict(
            videos=[dict(id=1, name='a.mp4', width=64, height=48)],
            images=[dict(id=1, video_id=1, frame_id=10)],
            categories=[dict(id=1, name='wave')],
            annotations=[dict(annotation, segmentation=segmentation)],
        )
    )


@pytest.fixture
def convert(project, tmp_path):
    """Masks of an annotation tool's file, by keyframe, and the lines of the csv."""

    def convert(text):
        path = tmp_path / f'ann.{"xml" if text[0] == "<" else "json"}'
        path.write_text(text)
        files = dict(videos=str(tmp_path), label_map=str(tmp_path / 'new.pbtxt'))
        convert_annotations([str(path)], out=tmp_path / 'out.csv', **files)
        lines = (tmp_path / 'out.csv').read_text().splitlines()
        return read_masks(tmp_path / 'out_masks.json'), lines

    return convert


def test_masks_of_annotation_tools_are_kept(convert):
    box = 'box xtl="5" ytl="5" xbr="9" ybr="9"'
    masks, lines = convert(cvat(f'polygon {POLYGON}', f'mask {MASK}', box))
    found = masks['a.mp4,0001']
    assert len(found.unclear) == 1
    polygon, mask = (decode(found.masks[number]) for number in (0, 1))
    assert polygon.sum() == polygon[10:20, 10:20].sum() == 100
    # CVAT's runs go along the rows.
    assert mask[10:12, 10:14].tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]
    assert mask.sum() == 6
    rows = [line.split(',') for line in lines]
    assert [float(value) * 64 for value in rows[1][2:6:2]] == [10, 14]

    (found,) = convert(coco([SQUARE]))[0].values()
    assert found == KeyframeMasks(SIZE, {0: RLE}, [])


@pytest.mark.parametrize(
    'text',
    [
        cvat('polygon points="1,2;3,4"'),
        cvat('polygon points="0,0;900,0;0,9"'),
        cvat(f'mask {MASK}'.replace('left="10"', 'left="61"')),
        cvat(f'mask {MASK}'.replace('1, 2', '1, 3')),
        coco('abc'),
        coco([[1, 2, 3, 4]]),
        coco(dict(size=[10, 10], counts='abc')),
        coco(dict(size=[48, 64], counts=[-5, 3077])),
        coco(dict(size=[48, 64], counts='ooo')),
    ],
)
def test_masks_that_do_not_fit_end_in_one_sentence(convert, text):
    with pytest.raises(UserError, match=r'^[^\n]*ann[^\n]*; [^\n]*\.$'):
        convert(text)

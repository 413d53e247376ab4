"""Masks of persons, from files to what a model learns from."""

import json
from contextlib import suppress

import numpy as np
import pytest
from mmaction.datasets.transforms import CenterCrop, Flip, RandomResizedCrop, Resize
from mmcv.transforms import Compose
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from stmixer_mm.datasets.keyframe_dataset import KeyframeDataset
from stmixer_mm.datasets.transforms import FilterBoxes
from stmixer_mm.errors import UserError
from stmixer_mm.pictures import decode, encode
from stmixer_mm.projects.annotate.convert import convert_annotations, read_segmentation
from stmixer_mm.projects.common.ava_writer import (
    AnnotatedPerson,
    write_annotations,
)
from stmixer_mm.projects.common.masks import (
    KeyframeMasks,
    collect_masks,
    write_masks,
)
from stmixer_mm.projects.masks.data import MARKS, KeyframeMaskDataset, PackMasks
from stmixer_mm.projects.masks.mask_files import read_masks

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
    runs = [10 * 48 + 10, *[10, 38] * 9, 10, 44 * 48 + 28]
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


def test_runs_are_read_as_pycocotools_reads_them_or_refused():
    random = np.random.RandomState(0)
    for _ in range(300):
        mask = random.rand(*random.randint(1, 40, 2)) < random.rand()
        runs = encode(mask)
        np.testing.assert_array_equal(decode(runs), mask)
        text = bytearray(runs['counts'].encode())
        text[random.randint(len(text))] += random.randint(-9, 9)
        with suppress(ValueError):
            runs['counts'] = bytes(text)
            np.testing.assert_array_equal(decode(runs), coco_masks.decode(runs))


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
    loaded = read_masks(path)
    assert loaded == collected
    assert list(loaded) == ['a.mp4,0001', 'a.mp4,0002.5']
    assert loaded['a.mp4,0001'].masks == {3: mask}
    (unclear,) = loaded['a.mp4,0001'].unclear
    assert decode(unclear)[24:, 32:].all() and decode(unclear).sum() == 24 * 32
    coco = COCO(str(path))
    annotation, crowd = coco.loadAnns(coco.getAnnIds())
    assert np.array_equal(coco.annToMask(annotation), blob())
    assert (annotation['iscrowd'], crowd['iscrowd']) == (0, 1)
    assert annotation['area'] == blob().sum()


def frames_that_show(masks):
    """A sample whose frames are its masks, one a channel."""
    frame = np.stack([255 * mask.astype(np.uint8) for mask in masks], axis=-1)
    return dict(
        imgs=[frame, frame.copy()],
        img_key='v,0001',
        original_shape=frame.shape[:2],
        img_shape=frame.shape[:2],
        modality='RGB',
        gt_bboxes=np.array([[0, 0, 9, 9], [5, 5, 5, 9], [1, 1, 8, 8]], float),
        gt_labels=np.eye(3),
        gt_masks=np.array([encode(mask) for mask in masks], object),
        keypoint=MARKS.copy(),
    )


def pack(sample, *transforms):
    """Masks (k, h, w) of a sample, and what its frames show then."""
    sample = Compose([*transforms])(sample)
    packed = PackMasks()({**sample, 'imgs': np.array(sample['imgs'])})
    shown = np.moveaxis(sample['imgs'][0] > 127, -1, 0)
    return packed['data_samples'].gt_instances.masks.numpy(), shown


@pytest.mark.parametrize(
    'transforms',
    [
        [Resize((-1, 120)), CenterCrop(100), Flip(1.0), RandomResizedCrop((0.5, 0.8))],
        [Flip(1.0), Resize((80, 40), keep_ratio=False)],
    ],
)
def test_masks_move_as_the_frames_do(transforms):
    """The host's transforms, in any order."""
    np.random.seed(0)
    masks = [blob(), blob(9), np.zeros(SIZE, bool)]
    packed, shown = pack(frames_that_show(masks), *transforms)
    assert packed.dtype == bool and packed.shape == shown.shape
    # OpenCV rounds where it resizes and where it warps.
    assert (packed != shown).mean() < 0.01


def test_masks_may_be_unknown_or_of_smaller_frames_and_go_with_their_boxes():
    large = blob(size=(96, 128))
    small = large[::2, ::2]
    sample = frames_that_show([large] * 3)
    sample['gt_masks'] = np.array([None, encode(large), encode(small)], object)
    masks, shown = pack(sample, FilterBoxes())  # the second box is empty
    assert len(masks) == 2 and not masks[0].any()
    assert (masks[1] != shown[0]).mean() < 0.01
    sample['gt_masks'] = np.array([encode(large[:48])] * 3, object)
    with pytest.raises(UserError, match='128x48'):
        pack(sample)


@pytest.fixture
def dataset(tmp_path, write_video):
    """Settings of a dataset of two persons at a second of a video."""
    write_video('a.mp4')
    (tmp_path / 'map.pbtxt').write_text('item { name: "sit" id: 1 }')
    person = AnnotatedPerson([0.1, 0.1, 0.5, 0.5], [1], 0)
    persons = [person, AnnotatedPerson([0.5, 0.1, 0.9, 0.5], [1], 1)]
    write_annotations(tmp_path / 'a.csv', {('a.mp4', 1): persons})
    return dict(
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


IMAGE = dict(id=1, file_name='a.mp4,1', width=64, height=48)
ONE = dict(image_id=1, track_id=0, segmentation=RLE)


def write(path, images=(IMAGE,), annotations=(ONE,)):
    path.write_text(json.dumps(dict(images=images, annotations=annotations)))
    return path


def test_a_dataset_with_masks(dataset, tmp_path):
    write(tmp_path / 'm.json')
    sample = KeyframeMaskDataset(**dataset, mask_file='m.json')[0]['data_samples']
    first, second = sample.gt_instances.masks.numpy()
    assert first.sum() == first[10:20, 10:20].sum() == 100 and not second.any()
    without = KeyframeDataset(**dataset)[0]['data_samples']
    assert 'masks' not in without.gt_instances and without.ori_shape == SIZE
    write(tmp_path / 'm.json', annotations=[])
    with pytest.raises(UserError, match=r'm.json .*a.csv'):
        KeyframeMaskDataset(**dataset, mask_file='m.json')


@pytest.mark.parametrize(
    'changes',
    [
        dict(images=5),
        dict(images=[IMAGE | dict(file_name='a,nan')]),
        dict(images=[IMAGE, IMAGE]),
        dict(images=[IMAGE | dict(width=40000, height=40000)]),
        dict(annotations=[dict(image_id=7)]),
        dict(annotations=[ONE, ONE]),
        dict(annotations=[ONE | dict(segmentation=[SQUARE])]),
        dict(annotations=[ONE | dict(segmentation=RLE | dict(counts='ooo'))]),
    ],
    ids=str,
)
def test_a_bad_file_ends_in_one_sentence(tmp_path, changes):
    with pytest.raises(UserError, match=r'^[^\n]*m\.json[^\n]*; [^\n]*\.$'):
        read_masks(write(tmp_path / 'm.json', **changes))


def cvat(*shapes):
    """CVAT's XML of persons who wave, each a shape at frame 10."""
    wave = '<attribute name="wave">true</attribute>'
    tracks = (
        f'<track id="0" label="person"><{shape} frame="10">{wave}</{shape.split()[0]}></track>'
        for shape in shapes
    )
    return f"""<annotations><meta><task><size>20</size><labels><label><name>person</name>
        <attributes><attribute><name>wave</name><input_type>checkbox</input_type></attribute>
        </attributes></label></labels>
        <original_size><width>64</width><height>48</height></original_size>
        </task><source>a.mp4</source></meta>{''.join(tracks)}</annotations>"""


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


def convert(folder, text):
    """Masks of an annotation tool's file, by keyframe, and the rows of the csv."""
    path = folder / f'ann.{"xml" if text[0] == "<" else "json"}'
    path.write_text(text)
    files = dict(videos=str(folder), label_map=str(folder / 'new.pbtxt'))
    convert_annotations([str(path)], out=folder / 'out.csv', **files)
    rows = (folder / 'out.csv').read_text().splitlines()
    return read_masks(folder / 'out_masks.json'), [row.split(',') for row in rows]


MASK = 'mask rle="1, 2, 1, 4" left="10" top="10" width="4" height="2"'


def test_masks_of_annotation_tools_are_kept(dataset, tmp_path):
    polygon = 'polygon points="10,10;20,10;20,20;10,20"'
    box = 'box xtl="5" ytl="5" xbr="9" ybr="9"'
    masks, rows = convert(tmp_path, cvat(polygon, MASK, box))
    keyframe_masks = masks['a.mp4,0001']
    assert len(keyframe_masks.unclear) == 1
    polygon, mask = (decode(keyframe_masks.masks[number]) for number in (0, 1))
    assert polygon.sum() == polygon[10:20, 10:20].sum() == 100
    # CVAT's runs go along the rows.
    assert mask[10:12, 10:14].tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]
    assert mask.sum() == 6
    assert [float(value) * 64 for value in rows[1][2:6:2]] == [10, 14]

    (keyframe_masks,) = convert(tmp_path, coco([SQUARE]))[0].values()
    assert keyframe_masks == KeyframeMasks(SIZE, {0: RLE}, [])


@pytest.mark.parametrize(
    'text',
    [
        cvat(MASK.replace('left="10"', 'left="61"')),
        cvat(MASK.replace('1, 2', '1, 3')),
        cvat(MASK).replace('>64<', '>40000<').replace('>48<', '>40000<'),
        coco('abc'),
        coco([[0, 0, 900, 0, 0, 9]]),
        coco(dict(size=[10, 10], counts='abc')),
        coco(dict(size=[48, 64], counts=[-5, 3077])),
    ],
)
def test_masks_that_do_not_fit_end_in_one_sentence(dataset, tmp_path, text):
    with pytest.raises(UserError, match=r'^[^\n]*ann[^\n]*; [^\n]*\.$'):
        convert(tmp_path, text)

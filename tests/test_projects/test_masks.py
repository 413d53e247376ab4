"""Masks of persons, from files to what a model learns from."""

import json
from contextlib import suppress

import numpy as np
import pytest
from bad_input import read_data
from mmaction.datasets.transforms import CenterCrop, Flip, RandomResizedCrop, Resize
from mmcv.transforms import Compose
from mmengine.config import Config
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from tiny_stmixer import write_project

from stmixer_mm.datasets.transforms import FilterBoxes
from stmixer_mm.errors import UserError
from stmixer_mm.pictures import decode, encode
from stmixer_mm.projects.annotate.convert import convert_annotations, read_segmentation
from stmixer_mm.projects.common.ava_writer import AnnotatedPerson
from stmixer_mm.projects.common.masks import KeyframeMasks, collect_masks, write_masks
from stmixer_mm.projects.masks.data import MARKS, PackMasks
from stmixer_mm.projects.masks.mask_files import read_masks
from stmixer_mm.registry import DATASETS

SIZE = (64, 96)
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
    runs = [10 * 64 + 10, *[10, 54] * 9, 10, 76 * 64 + 44]
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
    keyframes = {('a', 1): persons, ('a', 2.5): []}
    keyframes['b', 1] = persons[1:]  # nothing to learn from
    write_masks(path, collect_masks(keyframes, dict(a=SIZE, b=SIZE)))
    covered = np.zeros(SIZE, bool)
    covered[32:, 48:] = True
    assert read_masks(path) == {
        'a,0001': KeyframeMasks(SIZE, {3: mask}, [encode(covered)]),
        'a,0002.5': KeyframeMasks(SIZE, {}, []),
    }
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


IMAGE = dict(id=1, file_name='a.mp4,1', width=96, height=64)
ONE = dict(image_id=1, track_id=0, segmentation=RLE)


def write(path, images=(IMAGE,), annotations=(ONE,)):
    path.write_text(json.dumps(dict(images=images, annotations=annotations)))
    return path


def test_a_dataset_with_masks(tmp_path):
    dataset = Config.fromfile(write_project(tmp_path)).train_dataloader.dataset
    del dataset.pipeline[3]  # Resize
    dataset.pipeline[-1] = dict(type='PackMasks')
    without = DATASETS.build(dataset)[1]['data_samples']
    assert 'masks' not in without.gt_instances and without.ori_shape == (48, 96)
    dataset.update(type='KeyframeMaskDataset', mask_file='m.json')
    image = IMAGE | dict(file_name='1.mp4,1', height=48)
    segmentation = read_segmentation([SQUARE], (48, 96))
    write(tmp_path / 'm.json', [image], [ONE | dict(segmentation=segmentation)])
    sample = DATASETS.build(dataset)[1]['data_samples']
    first, second = sample.gt_instances.masks.numpy()
    assert first.sum() == first[10:20, 10:20].sum() == 100 and not second.any()
    write(tmp_path / 'm.json', annotations=[])
    with pytest.raises(UserError, match=r'm.json .*train.csv'):
        DATASETS.build(dataset)


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
    """CVAT's XML of persons who walk, each a shape at frame 10."""
    walk = '<attribute name="walk">true</attribute>'
    tracks = (
        f'<track label="person"><{shape} frame="10">{walk}</{shape.split()[0]}></track>'
        for shape in shapes
    )
    meta, *_ = read_data('cvat.xml').partition('<track')
    return f'{meta}{"".join(tracks)}</annotations>'


def coco(segmentation):
    person = dict(id=1, image_id=1, category_id=1, bbox=[10, 10, 10, 10])
    return json.dumps(
        dict(
            videos=[dict(id=1, name='new.mp4', width=96, height=64)],
            images=[dict(id=1, video_id=1, frame_id=10)],
            categories=[dict(id=1, name='walk')],
            annotations=[person | dict(segmentation=segmentation)],
        )
    )


@pytest.fixture
def convert(tmp_path, write_video):
    """Masks of an annotation tool's file, by keyframe, and the rows of the csv."""
    write_video('new.mp4', size=(96, 64))

    def convert(text):
        path = tmp_path / ('ann.xml' if text[0] == '<' else 'ann.json')
        out = tmp_path / 'out.csv'
        path.write_text(text)
        convert_annotations([str(path)], videos=str(tmp_path), out=out)
        rows = [line.split(',') for line in out.read_text().splitlines()]
        return read_masks(tmp_path / 'out_masks.json'), rows

    return convert


MASK = 'mask rle="1, 2, 1, 4" left="10" top="10" width="4" height="2"'


def test_masks_of_annotation_tools_are_kept(convert):
    polygon = 'polygon points="10,10;20,10;20,20;10,20"'
    box = 'box xtl="5" ytl="5" xbr="9" ybr="9"'
    masks, rows = convert(cvat(polygon, MASK, box))
    keyframe_masks = masks['new.mp4,0001']
    assert len(keyframe_masks.unclear) == 1
    polygon, mask = (decode(keyframe_masks.masks[number]) for number in (0, 1))
    assert polygon.sum() == polygon[10:20, 10:20].sum() == 100
    # CVAT's runs go along the rows.
    assert mask[10:12, 10:14].tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]
    assert mask.sum() == 6
    assert rows[1][2:6:2] == [f'{x / 96:.6f}' for x in (10, 14)]

    masks, _ = convert(coco([SQUARE]))
    assert masks == {'new.mp4,0001': KeyframeMasks(SIZE, {0: RLE}, [])}


@pytest.mark.parametrize(
    'text',
    [
        cvat(MASK.replace('left="10"', 'left="93"')),
        cvat(MASK.replace('1, 2', '1, 3')),
        cvat(MASK).replace('>96<', '>40000<').replace('>64<', '>40000<'),
        coco('abc'),
        coco([[0, 0, 900, 0, 0, 9]]),
        coco(dict(size=[10, 10], counts='abc')),
        coco(dict(size=[64, 96], counts=[-5, 6149])),
    ],
)
def test_masks_that_do_not_fit_end_in_one_sentence(convert, text):
    with pytest.raises(UserError, match=r'^[^\n]*ann[^\n]*; [^\n]*\.$'):
        convert(text)

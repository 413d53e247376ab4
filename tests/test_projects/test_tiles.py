"""Laws of tiles: where they are, what their predictions become, random ones."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from detections import assert_same_keyframes
from mmaction.datasets.transforms import Resize
from mmdet.structures.bbox import bbox_overlaps
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from tiny_stmixer import write_project, write_video

import stmixer_mm.projects.streaming  # noqa: F401
from stmixer_mm.apis import ActionDetInferencer
from stmixer_mm.datasets.videos import open_video
from stmixer_mm.projects.masks.data import MARKS
from stmixer_mm.projects.tiles import RandomTile, Tiles
from stmixer_mm.projects.tiles.layout import VISIBLE, lay_out, lay_out_for
from stmixer_mm.projects.tiles.merging import MARGIN, merge
from stmixer_mm.structures import ABSENT, PRESENT, UNKNOWN


@pytest.mark.parametrize('seed', range(8))
def test_tiles_cover_the_frame_and_overlap(seed):
    rng = np.random.RandomState(seed)
    frame, grid, person = rng.randint(64, 3000, 2), rng.randint(1, 9, 2), 70
    for alike in (False, True):
        layout = lay_out(tuple(frame.tolist()), grid.tolist(), person, alike=alike)
        frame_box, *boxes = layout.boxes().tolist()
        assert frame_box == [0, 0, frame[1], frame[0]] and len(boxes) == grid.prod()
        rows, columns = (sorted({(b[i], b[i + 2]) for b in boxes}) for i in (1, 0))
        for places, length in zip((rows, columns), frame, strict=True):
            assert places[0][0] == 0 and places[-1][1] == length
            side = places[0][1]
            for (_, end), (start, _) in pairwise(places):
                assert end - start >= min(person, side / 2) - 1


@pytest.mark.parametrize('size', [(1080, 1920), (768, 1366), (1080, 608), (2160, 3840)])
def test_tiles_for_files_of_one_size_become_as_large_as_the_frame(size):
    for grid in (2, 3), (3, 2), (4, 4), (5, 7):
        layout = lay_out(size, grid, 80, alike=True)
        sizes = []
        for height, width in size, layout.tile:
            picture = np.zeros((height, width, 3), np.uint8)
            results = dict(imgs=[picture], img_shape=picture.shape[:2])
            sizes.append(Resize(scale=(-1, 256)).transform(results)['img_shape'])
        assert sizes[0] == sizes[1] and layout.tile < size


def test_auto_shows_the_smallest_person_large_enough():
    for lines, smallest in (256, 120), (256, 300), (320, 80), (128, 40):
        layout = lay_out_for((2160, 3840), smallest, VISIBLE * 2160 / lines)
        assert smallest * lines / layout.tile[0] >= 0.97 * VISIBLE
        fewer = [n - 1 for n in layout.grid]
        if min(fewer):
            larger = lay_out((2160, 3840), fewer, VISIBLE * 2160 / lines, alike=True)
            assert larger.tile[0] >= layout.tile[0]


def random_persons(rng, layout, frames):
    """Boxes (n, K, 4) that move, of which no two are nearly the same."""
    height, width = layout.frame
    persons = np.empty((0, frames, 4), np.float32)
    for _ in range(40):
        size = np.exp(rng.uniform(np.log(10), np.log(min(layout.frame) / 2), 2))
        corner = rng.uniform(0, np.array([width, height]) - size)
        shifts = rng.uniform(-3, 3, 2) * np.arange(frames)[:, None]
        box = np.hstack([corner + shifts, corner + size + shifts]).astype(np.float32)
        box = box.clip(0, (width, height) * 2)
        ious = bbox_overlaps(*map(torch.from_numpy, (box, persons.reshape(-1, 4))))
        if not (ious > 0.45).any():
            persons = np.concatenate([persons, box[None]])
    return persons


def see_exactly(rng, layout, persons):
    """Predictions of a detector that finds all that can be seen in each view.

    In the whole frame it is wrong about those that some tile is sure to show whole.
    """
    views, frames = layout.boxes(), persons.shape[1]
    sides = np.array(layout.tile[::-1])
    starts = [np.unique(views[1:, i]) for i in (0, 1)]
    steps = [np.diff(start).max(initial=0) for start in starts]
    room = np.where([len(s) > 1 for s in starts], sides * (1 - 2 * MARGIN) - steps, 1e9)
    extent = persons[..., 2:].max(axis=1) - persons[..., :2].min(axis=1)
    predictions = []
    for number, view in enumerate(views):
        inside = np.clip(persons, np.tile(view[:2], 2), np.tile(view[2:], 2))
        sees = (inside[..., 2:] - inside[..., :2]).min(axis=(1, 2)) > 1
        if number == 0:  # of small persons it sees a quarter
            is_small = (extent < room - 1).all(axis=1)
            inside[is_small, :, 2:] = inside[is_small].reshape(-1, frames, 2, 2).mean(2)
        which = np.flatnonzero(sees)
        bboxes = (inside - np.tile(view[:2], 2)) / np.tile(view[2:] - view[:2], 2)
        bboxes = torch.from_numpy(bboxes[which].astype(np.float32))
        scores = torch.from_numpy(rng.uniform(0.6, 1, len(which)))
        names = torch.from_numpy(which)
        fields = dict(bboxes=bboxes[:, 0], person_scores=scores)
        if frames > 1:
            fields = dict(bboxes=bboxes, tubelet_scores=scores)
        predictions.append(InstanceData(names=names, **fields))
    return predictions, views


@pytest.mark.parametrize('frames', [1, 4])
@pytest.mark.parametrize('seed', range(6))
def test_a_perfect_detector_gives_the_truth(seed, frames):
    """No person twice, none lost, each where it is."""
    rng = np.random.RandomState(seed)
    frame, grid = rng.randint(200, 1500, 2).tolist(), rng.randint(1, 6, 2).tolist()
    layout = lay_out(tuple(frame), tuple(grid), rng.uniform(20, 120))
    persons = random_persons(rng, layout, frames)
    predictions, views = see_exactly(rng, layout, persons)
    merged = merge([instances.clone() for instances in predictions], views)
    assert sorted(merged.names.tolist()) == list(range(len(persons)))
    scale = torch.from_numpy(np.tile(views[0, 2:], 2))
    bboxes = merged.bboxes.reshape(-1, frames, 4) * scale
    np.testing.assert_allclose(bboxes, persons[merged.names], atol=2e-3)
    order = [0, *1 + rng.permutation(len(views) - 1)]
    other = merge([predictions[i] for i in order], views[order])
    assert torch.equal(merged.names, other.names)
    assert torch.equal(merged.bboxes, other.bboxes)


def test_cut_persons_whom_no_view_has_whole_are_kept():
    box = torch.tensor([[0.5, 0.2, 1, 0.8]])
    half = InstanceData(bboxes=box, person_scores=torch.ones(1))
    views = lay_out((100, 200), (1, 2), 20).boxes()
    assert len(merge([half[:0], half, half[:0]], views)) == 1


def outline(picture):
    """The box around what is in a picture."""
    y, x = np.nonzero(picture)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_masks_are_placed_in_the_frame():
    views, predictions = lay_out((40, 60), (1, 2), 10).boxes(), []
    for number, (x1, y1, x2, y2) in enumerate(views.tolist()):
        mask = torch.zeros(1, y2 - y1, x2 - x1, dtype=torch.bool)
        mask[:, 3:9, 5:8] = True
        box = torch.tensor([[5, 3, 8, 9]]) / torch.tensor([x2 - x1, y2 - y1] * 2)
        scores = torch.tensor([number / 3])
        predictions.append(InstanceData(bboxes=box, person_scores=scores, masks=mask))
    merged = merge(predictions, views)
    for box, mask in zip(merged.bboxes, merged.masks > 0.5, strict=True):
        corners = outline(mask.numpy())
        np.testing.assert_allclose(box * torch.tensor([60, 40] * 2), corners, atol=1e-3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('project')


@pytest.fixture(scope='module', params=['stmixer', 'stmixer-t'])
def inferencer(folder, request):
    """An inferencer whose model finds a person in each query."""
    config = folder / f'{request.param}.py'
    text = write_project(folder).read_text()
    config.write_text(text.replace('stmixer_tiny', f'{request.param}_tiny'))
    with DefaultScope.overwrite_default_scope('mmaction'):
        torch.manual_seed(0)
        options = {'model.head.score_thr': 0.0}
        detector = ActionDetInferencer(
            config, device='cpu', cfg_options=options, show_progress=False
        )
    for parameter in detector.model.decoder.parameters():  # boxes of all sizes
        if parameter.dim() > 1:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return detector


@pytest.fixture(scope='module')
def video(folder):
    return write_video(folder / 'new.mp4', frames=25, fps=10, size=(192, 128))


def test_one_tile_is_no_tile_and_a_stream_gives_what_its_file_gives(inferencer, video):
    frames = np.array(open_video(video).get_batch(range(25)))
    plain = inferencer.detect(video, strict=True).to_dict()['keyframes']
    cases = ('1x1', None, 0), ('auto', 128, 0), ('2x3', None, 1), ('auto', 90, 1)
    for grid, smallest, has_tiles in cases:
        options = dict(predictor=Tiles(grid, min_person=smallest), strict=True)
        detections = inferencer.detect(video, **options)
        keyframes = detections.to_dict()['keyframes']
        stream = ((i / 10, frame) for i, frame in enumerate(frames))
        assert inferencer.detect(stream, **options).to_dict()['keyframes'] == keyframes
        assert (keyframes == plain) == (not has_tiles)
        batched = inferencer.detect(video, batch_size=3, **options).keyframes
        for keyframe, other in zip(batched, detections.keyframes, strict=True):
            np.testing.assert_allclose(keyframe.bboxes, other.bboxes, atol=0.1)


def test_tiles_of_a_stream_equal_those_of_clips(inferencer, folder):
    video = write_video(folder / 'noise.mp4', frames=17, fps=10, size=(192, 128))
    cases = ('2x3', 0.1, 1), ('2x2', 0.2, 2), ('1x3', 0.3, 3)
    for grid, interval_s, batch_size in cases:
        options = dict(interval_s=interval_s, batch_size=batch_size, strict=True)
        options |= dict(predictor=Tiles(grid), pred_score_thr=0.0)
        keyframes, expected = (
            inferencer.detect(video, reuse=reuse, **options).keyframes
            for reuse in ('always', 'never')
        )
        assert len(keyframes) > 3
        assert_same_keyframes(keyframes, expected)


@pytest.mark.parametrize('num_frames', [1, 3])
def test_random_tiles_keep_boxes_on_their_persons(num_frames):
    """Each person is a rectangle of a colour of its own."""
    np.random.seed(0)
    rng, num_compared = np.random.RandomState(1), 0
    for _ in range(100):
        height, width = rng.randint(60, 90, 2)
        corner = rng.randint(0, 50, (4, num_frames, 2))
        bboxes = np.concatenate([corner, corner + rng.randint(5, 40, corner.shape)], -1)
        bboxes = bboxes.clip(0, [width, height] * 2).astype(np.float32)
        states = np.full((4, num_frames), PRESENT)
        if num_frames > 1:
            states = rng.choice([PRESENT, ABSENT, UNKNOWN], states.shape)
            bboxes[states != PRESENT] = 0
        pictures = np.zeros((4, num_frames, height, width), bool)
        for place in np.ndindex(states.shape):
            x1, y1, x2, y2 = bboxes[place].astype(int)
            pictures[place][y1:y2, x1:x2] = True
        results = dict(
            imgs=[*pictures.reshape(-1, height, width)], img_shape=(height, width),
            gt_bboxes=bboxes.copy(), gt_labels=np.eye(4), entity_ids=np.arange(4),
            keypoint=MARKS.copy(), gt_states=states.copy(),
        )  # fmt: skip
        if num_frames == 1:  # keyframes have neither states nor an axis of frames
            results['gt_bboxes'] = results['gt_bboxes'][:, 0]
            del results['gt_states']
        out = RandomTile(share=(0.3, 1)).transform(results)
        cropped = np.reshape(out['imgs'], (4, num_frames, *out['img_shape']))
        shares = cropped.sum((2, 3)) / pictures.sum((2, 3)).clip(1)
        expected = (shares >= 0.5) & (states == PRESENT)
        assert out['entity_ids'].tolist() == np.flatnonzero(expected.any(1)).tolist()
        assert (out['gt_labels'].argmax(1) == out['entity_ids']).all()
        cropped_bboxes = np.reshape(out['gt_bboxes'], (-1, num_frames, 4))
        for person, boxes in zip(out['entity_ids'], cropped_bboxes, strict=True):
            for frame in np.flatnonzero(expected[person]):
                corners = outline(cropped[person, frame])
                np.testing.assert_array_equal(boxes[frame], corners)
                num_compared += 1
        if num_frames > 1:
            lost = np.where((states == PRESENT) & ~expected, ABSENT, states)
            np.testing.assert_array_equal(out['gt_states'], lost[out['entity_ids']])
        shift = (out['keypoint'] - MARKS)[0, 0, 0]
        assert np.allclose(shift, -out['crop_bbox'][:2])
    assert num_compared > 100

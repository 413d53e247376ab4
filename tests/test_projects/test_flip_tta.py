"""Laws of merging the predictions of a clip and of its mirror image."""

import pytest
import torch
from every_config import CONFIGS
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from tiny import batch, build_detector, data_sample
from tiny_tubelets import tube_detector

import stmixer_mm.projects.flip_tta  # noqa: F401
from stmixer_mm.projects.flip_tta.flip_tta import merge_mirrored, mirror

KEYFRAME, TUBELET = (), (3,)


def persons(places, frames=KEYFRAME):
    """Persons at these x, each with scores of its own."""
    x1 = torch.tensor(places)
    corners = torch.stack([x1, x1 * 0 + 0.2, x1 + 0.1, x1 * 0 + 0.7], dim=-1)
    shape = (len(places), *frames)
    bboxes = corners.reshape(len(places), *[1] * len(frames), 4).expand(*shape, 4)
    scores = x1[:, None] * torch.tensor([0, 1, 0.5])
    person_scores = x1.reshape(-1, *[1] * len(frames)).expand(shape)
    return InstanceData(bboxes=bboxes, scores=scores, person_scores=person_scores)


@pytest.mark.parametrize('frames', [KEYFRAME, TUBELET])
def test_persons_of_both_views_count_as_one(frames):
    straight, other = persons([0.1, 0.5], frames), persons([0.8, 0.52, 0.3], frames)
    mirrored = other.clone()
    mirrored.bboxes = mirror(other.bboxes)
    merged = merge_mirrored(straight, mirrored, iou_thr=0.5)
    halves = torch.tensor([0.05, 0.51, 0.4, 0.15])  # of those that one view has alone
    expected = persons([0.1, 0.51, 0.8, 0.3], frames)
    torch.testing.assert_close(merged.bboxes, expected.bboxes)
    torch.testing.assert_close(merged.scores[:, 1], halves)
    torch.testing.assert_close(merged.person_scores.reshape(4, -1)[:, 0], halves)
    nothing = persons([], frames)
    assert len(merge_mirrored(nothing, nothing, iou_thr=0.5)) == 0
    alone = merge_mirrored(straight, nothing, iou_thr=0.5)
    torch.testing.assert_close(alone.scores, straight.scores / 2)


@torch.no_grad()
@pytest.mark.parametrize('config', [None, tube_detector()])
def test_a_clip_and_its_mirror_image_give_mirror_images(config):
    """Also where a batch pads them, and with labels that a mirror swaps."""
    tta = Config.fromfile(CONFIGS / 'experiments/stmixer_tiny-flip-tta_toy.py').flip_tta
    detector = build_detector(config).eval()
    detector.head.score_thr = 0  # all queries count
    model = MODELS.build(dict(tta, module=detector))
    clip_len = 2 if config is None else 4
    shapes = (48, 40), (64, 56)
    samples = [data_sample(img_shape=shape, clip_len=clip_len) for shape in shapes]
    data, mirrored_data = batch(*samples), batch(*samples)
    mirrored_data['inputs'] = [clip.flip(-1) for clip in data['inputs']]
    views = [
        [sample.pred_instances for sample in model.test_step(view_data)]
        for view_data in (data, mirrored_data)
    ]
    for instances, mirrored in zip(*views, strict=True):
        mirrored.bboxes = mirror(mirrored.bboxes)
        mirrored.scores = mirrored.scores[:, [0, 1, 3, 2]]
        assert len(instances) == len(mirrored) > 0
        ours, expected = (
            view[view.bboxes.flatten(1).sum(dim=1).argsort()]
            for view in (instances, mirrored)
        )
        for name in ('bboxes', 'scores', 'person_scores'):
            torch.testing.assert_close(ours[name], expected[name])

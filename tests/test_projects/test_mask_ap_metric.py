"""AP of masks, against figures that follow from COCO's definition."""

import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from stmixer_mm.datasets.annotations.masks import KeyframeMasks, write_masks
from stmixer_mm.errors import UserError
from stmixer_mm.projects.masks.mask_ap_metric import MaskAPMetric
from stmixer_mm.structures import encode

SIZE = (40, 60)


def strip(left, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[:, left:right] = True
    return mask


TRUTH = strip(0, 20), strip(30, 50)


@pytest.fixture
def file(tmp_path):
    """Two persons, nobody, and one beside somebody whose mask is unknown."""
    first, second = map(encode, TRUTH)
    keyframes = {
        'v,0001': KeyframeMasks(SIZE, {0: first, 1: second}, []),
        'v,0002': KeyframeMasks(SIZE, {}, []),
        'v,0003': KeyframeMasks(SIZE, {0: first}, [encode(strip(30, 60))]),
    }
    write_masks(tmp_path / 'm.json', keyframes)
    return tmp_path / 'm.json'


def predict(second, *masks, scores=None, video='v'):
    sample = ActionDataSample(metainfo=dict(video_id=video, timestamp=second))
    number, size = len(masks), masks[0].shape if masks else SIZE
    sample.pred_instances = InstanceData(
        bboxes=torch.rand(number, 4),
        scores=torch.zeros(number, 3),
        person_scores=torch.tensor(scores or [0.9] * number),
        masks=torch.tensor(np.array(masks)).reshape(-1, *size),
    )
    return sample


def evaluate(file, *samples):
    evaluator = Evaluator(MaskAPMetric(file.name, data_root=str(file.parent)))
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def test_true_masks_are_perfect_whatever_their_size(file):
    samples = predict(1, *TRUTH), predict(2), predict(3, TRUTH[0])
    assert set(evaluate(file, *samples).values()) == {1.0}
    large = predict(1, *(strip(2 * x, 2 * x + 40, (80, 120)) for x in (0, 30)))
    # A keyframe that is repeated counts once, others do not count.
    others = samples[2], predict(9, TRUTH[0]), predict(1, TRUTH[0], video='w')
    assert set(evaluate(file, large, *samples[1:], *others).values()) == {1.0}


def test_overlap_decides_at_each_threshold(file):
    """An IoU of 15 / 25 = 0.6 counts at 0.5 and 0.55, and not above 0.6."""
    shifted = strip(5, 25), strip(35, 55)
    values = evaluate(file, predict(1, *shifted), predict(3, strip(5, 25)))
    assert values['mask/segm_mAP_50'] == 1 and values['mask/segm_mAP_75'] == 0
    assert values['mask/segm_mAP'] == pytest.approx(0.25, abs=0.06)


def test_missed_and_false_masks_cost_and_those_of_unknown_persons_do_not(file):
    full = predict(1, *TRUTH), predict(3, TRUTH[0])
    # One of three is missed: precision is 1 up to a recall of 2 / 3.
    missed = evaluate(file, predict(1, TRUTH[0]), full[1])
    assert missed['mask/segm_mAP_50'] == pytest.approx(67 / 101, abs=1e-3)
    # A keyframe that is not tested is missed, too; nothing found is 0.
    assert evaluate(file, full[1])['mask/segm_mAP_50'] < 0.5
    assert evaluate(file, predict(1), predict(2))['mask/segm_mAP'] == 0
    # One false mask of the highest score: 3 of 4.
    false = predict(2, TRUTH[0], scores=[0.95])
    assert evaluate(file, *full, false)['mask/segm_mAP_50'] == 0.75
    unclear = predict(3, TRUTH[0], strip(35, 55), scores=[0.9, 0.99])
    assert evaluate(file, full[0], unclear)['mask/segm_mAP_50'] == 1


def test_masks_of_other_videos_are_told(file):
    with pytest.raises(UserError, match=r'm\.json'):
        evaluate(file, predict(1, video='w'))

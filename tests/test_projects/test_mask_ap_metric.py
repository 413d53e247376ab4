"""AP of masks, against figures that follow from COCO's definition."""

import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from stmixer_mm.errors import UserError
from stmixer_mm.pictures import encode
from stmixer_mm.projects.common.masks import KeyframeMasks, write_masks
from stmixer_mm.projects.masks.mask_ap_metric import MaskAPMetric

SIZE = (40, 60)


def strip(x1, x2, size=SIZE):
    mask = np.zeros(size, bool)
    mask[:, x1:x2] = True
    return mask


TRUTH = strip(0, 20), strip(30, 50)


@pytest.fixture
def evaluate(tmp_path):
    """AP where two persons, nobody, or one beside a person of unknown mask are."""
    first, second, unclear = map(encode, (*TRUTH, strip(30, 60)))
    keyframes = {
        'v,0001': KeyframeMasks(SIZE, {0: first, 1: second}, []),
        'v,0002': KeyframeMasks(SIZE, {}, []),
        'v,0003': KeyframeMasks(SIZE, {0: first}, [unclear]),
    }
    write_masks(tmp_path / 'm.json', keyframes)

    def evaluate(*samples):
        evaluator = Evaluator(MaskAPMetric('m.json', data_root=str(tmp_path)))
        for sample in samples:
            evaluator.process([sample])
        values = evaluator.evaluate(len(samples))
        return [values[f'mask/segm_mAP{suffix}'] for suffix in ('', '_50', '_75')]

    return evaluate


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


def test_true_masks_are_perfect_whatever_their_size(evaluate):
    large = predict(1, *(strip(2 * x, 2 * x + 40, (80, 120)) for x in (0, 30)))
    last = predict(3, TRUTH[0])
    # A keyframe that is repeated counts once, others do not count.
    samples = last, predict(9, TRUTH[0]), predict(1, TRUTH[0], video='w')
    assert evaluate(large, predict(2), last, *samples) == [1, 1, 1]
    with pytest.raises(UserError, match=r'm\.json'):
        evaluate(samples[-1])


def test_overlap_decides_at_each_threshold(evaluate):
    """An IoU of 15 / 25 = 0.6 counts at 0.5 and 0.55, and not above 0.6."""
    shifted = strip(5, 25), strip(35, 55)
    mean, at_50, at_75 = evaluate(predict(1, *shifted), predict(3, shifted[0]))
    assert (at_50, at_75) == (1, 0) and mean == pytest.approx(0.25, abs=0.06)


def test_missed_and_false_masks_cost_and_those_of_unknown_persons_do_not(evaluate):
    first, last = predict(1, *TRUTH), predict(3, TRUTH[0])
    # Two of three are in no tested keyframe: precision is 1 up to a recall of 1 / 3.
    assert evaluate(last)[1] == pytest.approx(34 / 101, abs=1e-12)
    assert evaluate(predict(1), predict(2))[0] == 0
    # One false mask of the highest score: 3 of 4.
    assert evaluate(first, last, predict(2, TRUTH[0], scores=[0.95]))[1] == 0.75
    unclear = predict(3, TRUTH[0], strip(35, 55), scores=[0.9, 0.99])
    assert evaluate(first, unclear)[1] == 1

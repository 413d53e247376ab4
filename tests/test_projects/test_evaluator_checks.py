import pytest
import tiny_stmixer
import tiny_tubes
from mmengine.config import Config

from stmixer_mm.projects.data_checks.evaluators import check_evaluators

BOX = '0.1,0.1,0.5,0.9'


@pytest.fixture(scope='module')
def projects(tmp_path_factory):
    root = tmp_path_factory.mktemp('projects')
    return dict(
        keyframes=tiny_stmixer.write_project(root),
        tubes=tiny_tubes.write_project(root / 'tubes', 'ucf101-24'),
    )


@pytest.fixture
def keyframes(projects):
    return Config.fromfile(projects['keyframes'])


@pytest.fixture
def tubes(projects):
    return Config.fromfile(projects['tubes'])


def findings(cfg, splits=('val',)):
    """(is_error, kind) of all findings."""
    return [
        (finding.is_error, finding.kind)
        for report in check_evaluators(cfg, splits)
        for finding in report.findings
    ]


def test_evaluators_of_the_data_have_no_findings(keyframes, tubes):
    assert check_evaluators(keyframes) == check_evaluators(tubes) == []


def test_keyframes_that_one_of_both_lacks(keyframes, write_text):
    evaluator = keyframes.val_evaluator
    lines = [f'{n}.mp4,1,{BOX},1,0' for n in range(6)]
    evaluator.ann_file = write_text('more.csv', *lines)
    assert findings(keyframes) == [(False, 'missed')]
    evaluator.ann_file = write_text('less.csv', *lines[:1])
    assert findings(keyframes) == [(False, 'unknown')]
    evaluator.own_videos = True
    assert findings(keyframes) == []


def test_an_evaluator_of_another_dataset_is_an_error_once(keyframes, write_text):
    other = write_text('other.csv', f'z.mp4,1,{BOX},1,0')
    keyframes.val_evaluator.ann_file = keyframes.test_evaluator.ann_file = other
    assert findings(keyframes, ('val', 'test')) == [(True, 'missed'), (True, 'unknown')]


@pytest.mark.parametrize('wrap', [dict, lambda one: dict(metrics=[one])])
def test_other_classes_are_an_error(keyframes, wrap):
    """Metrics may stand in an evaluator."""
    keyframes.val_evaluator = wrap(dict(keyframes.val_evaluator, num_classes=4))
    assert findings(keyframes) == [(True, 'classes')]


def test_other_splits_strides_and_labels_of_tubes(tubes, tmp_path):
    tubes.val_dataloader.dataset.frame_stride = 2
    assert findings(tubes) == 2 * [(False, 'missed')]
    tubes.val_dataloader.dataset.frame_stride = 1
    renamed = tiny_tubes.write_truth(tmp_path / 'renamed.pkl', labels=['Sit', 'Run'])
    tubes.val_evaluator[0].ann_file = renamed
    assert findings(tubes) == [(True, 'classes')]
    tubes.val_evaluator = dict(tubes.val_evaluator[1], split=2)
    assert (True, 'missed') in findings(tubes)


def test_a_metric_that_cannot_be_built_is_an_error_and_others_are_passed_over(
    keyframes, tmp_path, write_text
):
    keyframes.val_evaluator = [
        dict(type='FrameMapMetric'),
        dict(keyframes.val_evaluator, ann_file=write_text('bad.csv', 'x')),
        dict(type='DumpResults', out_file_path='found.pkl'),
    ]
    keyframes.test_dataloader.dataset.ann_file = str(tmp_path / 'missing.csv')
    assert findings(keyframes, ('val', 'test')) == 2 * [(True, 'evaluator')]

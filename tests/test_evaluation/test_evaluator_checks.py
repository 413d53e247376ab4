import pytest
import tiny_stmixer
import tiny_tubes
from mmengine.config import Config

from stmixer_mm.checks.evaluators import check_evaluators
from stmixer_mm.checks.reports import format_report

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
    """(is_error, kind, message) of all findings."""
    return [
        (finding.is_error, finding.kind, finding.message)
        for report in check_evaluators(cfg, splits)
        for finding in report.findings
    ]


@pytest.mark.parametrize('kind', ['keyframes', 'tubes'])
def test_evaluators_of_the_data_have_no_findings(kind, request):
    assert check_evaluators(request.getfixturevalue(kind)) == []


def test_keyframes_that_the_dataset_lacks_are_missed(keyframes, write_text):
    more = write_text('more.csv', *(f'{n}.mp4,1,{BOX},1,0' for n in range(6)))
    keyframes.val_evaluator.ann_file = more
    ((is_error, kind, message),) = findings(keyframes)
    assert (is_error, kind) == (False, 'missed')
    assert message.startswith('2 of its 6 keyframes are not in the dataset')
    assert 'such as 4.mp4,0001;' in message


def test_other_videos_count_as_wrong_unless_they_are_left_out(keyframes, write_text):
    keyframes.val_evaluator.ann_file = write_text('less.csv', f'0.mp4,1,{BOX},1,0')
    ((is_error, kind, message),) = findings(keyframes)
    assert (is_error, kind) == (False, 'unknown')
    assert message.startswith('3 keyframes of the dataset are of videos that it lacks')
    keyframes.val_evaluator.own_videos = True
    assert findings(keyframes) == []


def test_an_evaluator_of_another_dataset_is_an_error_once(keyframes, write_text):
    other = write_text('other.csv', f'z.mp4,1,{BOX},1,0')
    keyframes.val_evaluator.ann_file = keyframes.test_evaluator.ann_file = other
    missed, unknown = findings(keyframes, ('val', 'test'))
    assert missed[:2] == (True, 'missed')
    assert missed[2].startswith('1 of its 1 keyframes')
    assert unknown[:2] == (True, 'unknown')


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(num_classes=4), '(4 and 3 with the dummy class 0)'),
        (dict(custom_classes=[2, 1]), '(3 and 3 with the dummy class 0), or in an'),
    ],
)
@pytest.mark.parametrize(
    'wrap', [dict, lambda one: dict(metrics=[one]), lambda one: dict(metrics=one)]
)
def test_other_classes_are_an_error(keyframes, changes, words, wrap):
    """Metrics may stand in an evaluator."""
    keyframes.val_evaluator = wrap(dict(keyframes.val_evaluator, **changes))
    ((is_error, kind, message),) = findings(keyframes)
    assert (is_error, kind) == (True, 'classes')
    assert words in message


@pytest.mark.parametrize(
    'metric, words',
    [
        (dict(type='FrameMapMetric'), 'FrameMapMetric is not in the'),
        (dict(type='mmaction.AVAMetric', ann_file='a.csv'), 'AVAMetric'),
    ],
)
def test_a_metric_that_cannot_be_built_is_an_error(keyframes, metric, words):
    keyframes.val_evaluator = metric
    ((is_error, kind, message),) = findings(keyframes)
    assert (is_error, kind) == (True, 'evaluator')
    assert words in message


def test_a_faulty_file_is_named_with_its_line(keyframes, write_text):
    keyframes.val_evaluator.ann_file = write_text('bad.csv', f'0.mp4,1,{BOX},1,0', 'x')
    (report,) = check_evaluators(keyframes, ['val'])
    assert report.num_errors == 1
    text = format_report(report)
    assert text.startswith('== val_evaluator: ')
    assert 'bad.csv, line 2: ' in text


def test_another_split_of_tubes_is_an_error(tubes):
    for metric in tubes.val_evaluator:
        metric.split = 2
    found = findings(tubes)
    assert [one[:2] for one in found if one[1] == 'missed'] == 2 * [(True, 'missed')]


def test_frames_that_are_strided_over_are_missed(tubes):
    tubes.val_dataloader.dataset.frame_stride = 2
    found = findings(tubes)
    assert [one[:2] for one in found] == 2 * [(False, 'missed')]
    # 18 frames of one video and 16 of the other have a box.
    assert '17 of its 34 keyframes' in found[0][2]


def test_other_labels_of_tubes_are_an_error(tubes, tmp_path):
    renamed = tiny_tubes.write_truth(tmp_path / 'renamed.pkl', labels=['Sit', 'Run'])
    tubes.val_evaluator[0].ann_file = renamed
    ((is_error, kind, message),) = findings(tubes)
    assert (is_error, kind) == (True, 'classes')
    assert 'TubeFrameMAPMetric has other classes than' in message


def test_what_is_not_ours_or_not_there_is_passed_over(keyframes, tmp_path):
    keyframes.val_evaluator = [dict(type='DumpResults', out_file_path='found.pkl')]
    keyframes.test_dataloader.dataset.ann_file = str(tmp_path / 'missing.csv')
    keyframes.train_evaluator = None
    assert findings(keyframes, ('train', 'val', 'test')) == []
    videos = tmp_path / 'videos.txt'
    videos.write_text('a.mp4 0\n')
    keyframes.test_dataloader.dataset = dict(
        type='mmaction.VideoDataset', ann_file=str(videos), pipeline=[]
    )
    assert findings(keyframes, ('test',)) == []

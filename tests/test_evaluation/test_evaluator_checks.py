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


def findings(cfg, **options):
    """(is_error, kind, message) of all findings."""
    return [
        (finding.is_error, finding.kind, finding.message)
        for report in check_evaluators(cfg, **options)
        for finding in report.findings
    ]


def only_finding(cfg):
    found = findings(cfg, splits=['val'])
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize('kind', ['keyframes', 'tubes'])
def test_evaluators_of_the_data_have_no_findings(kind, request):
    assert check_evaluators(request.getfixturevalue(kind)) == []


def test_keyframes_that_the_dataset_lacks_are_missed(keyframes, write_text):
    more = write_text('more.csv', *(f'{n}.mp4,1,{BOX},1,0' for n in range(6)))
    keyframes.val_evaluator.ann_file = more
    is_error, kind, message = only_finding(keyframes)
    assert (is_error, kind) == (False, 'missed')
    assert message.startswith('2 of its 6 keyframes are not in the dataset')
    assert 'such as 4.mp4,0001,' in message


def test_other_videos_count_as_wrong_unless_they_are_left_out(keyframes, write_text):
    keyframes.val_evaluator.ann_file = write_text('less.csv', f'0.mp4,1,{BOX},1,0')
    is_error, kind, message = only_finding(keyframes)
    assert (is_error, kind) == (False, 'unknown')
    assert message.startswith('3 keyframes of the dataset are of videos that it lacks')
    keyframes.val_evaluator.own_videos = True
    assert findings(keyframes, splits=['val']) == []


def test_an_evaluator_of_another_dataset_is_an_error(keyframes, write_text):
    keyframes.val_evaluator.ann_file = write_text('other.csv', f'z.mp4,1,{BOX},1,0')
    is_error, kind, message = only_finding(keyframes)
    assert (is_error, kind) == (True, 'missed')
    assert message.startswith('1 of its 1 keyframes')


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(num_classes=4), '(4 and 3 with the dummy class 0)'),
        (dict(custom_classes=[2, 1]), '(3 and 3 with the dummy class 0), or in an'),
    ],
)
def test_other_classes_are_an_error(keyframes, changes, words):
    keyframes.val_evaluator.update(changes)
    is_error, kind, message = only_finding(keyframes)
    assert (is_error, kind) == (True, 'classes')
    assert words in message


def test_metrics_may_stand_in_an_evaluator(keyframes):
    metric = dict(keyframes.val_evaluator, num_classes=4)
    for evaluator in (dict(metrics=[metric]), dict(type='Evaluator', metrics=metric)):
        keyframes.val_evaluator = evaluator
        assert only_finding(keyframes)[1] == 'classes'


def test_an_unknown_metric_is_an_error(keyframes):
    keyframes.val_evaluator = dict(type='FrameMapMetric')
    is_error, kind, message = only_finding(keyframes)
    assert (is_error, kind) == (True, 'evaluator')
    assert 'FrameMapMetric is not in the' in message


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
    found = findings(tubes, splits=['val'])
    assert [(is_error, kind) for is_error, kind, _ in found] == 2 * [(True, 'missed')]


def test_frames_that_are_strided_over_are_missed(tubes):
    tubes.val_dataloader.dataset.frame_stride = 2
    found = findings(tubes, splits=['val'])
    assert [(is_error, kind) for is_error, kind, _ in found] == 2 * [(False, 'missed')]
    # 18 frames of one video and 16 of the other have a box.
    assert '17 of its 34 keyframes' in found[0][2]


def test_other_labels_of_tubes_are_an_error(tubes, tmp_path):
    renamed = tiny_tubes.write_truth(tmp_path / 'renamed.pkl', labels=['Sit', 'Run'])
    tubes.val_evaluator[0].ann_file = renamed
    is_error, kind, message = only_finding(tubes)
    assert (is_error, kind) == (True, 'classes')
    assert 'TubeFrameMAPMetric has other classes than' in message


def test_the_same_pair_is_compared_once(keyframes, write_text):
    other = write_text('other.csv', f'z.mp4,1,{BOX},1,0')
    keyframes.val_evaluator.ann_file = keyframes.test_evaluator.ann_file = other
    assert len(findings(keyframes)) == 1


def test_what_is_not_ours_or_not_there_is_passed_over(keyframes, tmp_path):
    keyframes.val_evaluator = [
        dict(type='DumpResults', out_file_path='found.pkl'),
        dict(type='mmaction.AVAMetric', ann_file='none.csv', label_file='none.txt'),
    ]
    keyframes.test_dataloader.dataset.ann_file = str(tmp_path / 'missing.csv')
    keyframes.train_evaluator = None
    assert findings(keyframes) == []
    videos = tmp_path / 'videos.txt'
    videos.write_text('a.mp4 0\n')
    keyframes.test_dataloader.dataset = dict(
        type='mmaction.VideoDataset', ann_file=str(videos), pipeline=[]
    )
    assert findings(keyframes) == []

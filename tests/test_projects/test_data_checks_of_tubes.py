"""The check of tubes: counts, and what is wrong with their videos."""

import pytest
import tiny_tubes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny_tubes import tube

from stmixer_mm.projects.data_checks.datasets import check_config
from stmixer_mm.projects.data_checks.reports import format_report

RUN_1, RUN_2, SIT = tiny_tubes.truth()['nframes']


def gttubes(**changes):
    return dict(gttubes={**tiny_tubes.truth()['gttubes'], **changes})


@pytest.fixture
def check(tmp_path):
    """Findings of a project, by kind, after something was done to it."""

    def check(layout, change=None, content=None, **options):
        config = Config.fromfile(tiny_tubes.write_project(tmp_path, layout))
        if content:
            tiny_tubes.write_truth(tmp_path / 'GT.pkl', **content)
        if change:
            change(tmp_path)
        with DefaultScope.overwrite_default_scope('mmaction'):
            reports = check_config(config, ['train', 'test'], **options)
        for report in reports:
            assert format_report(report)
        return reports

    return check


def findings(report):
    return {finding.kind: str(finding) for finding in report.findings}


def test_the_check_counts(check):
    train, test = check('ucf101-24')
    # Tenth frames of 20 and 16.
    assert (train.num_videos, train.num_keyframes, train.num_boxes) == (2, 4, 4)
    assert (test.num_keyframes, test.num_empty_keyframes) == (40, 6)
    assert test.class_counts == {'Run': 32, 'Sit': 16}
    # The same video is trained on and tested: that is an error of the split.
    assert list(findings(test)) == ['overlap']
    assert findings(train) == {}


def test_the_check_of_videos(check):
    def damage(root):
        (root / 'trainval' / f'{RUN_1}.mp4').unlink()

    nframes = {**tiny_tubes.truth()['nframes'], SIT: 22}
    content = dict(
        gttubes(**{SIT: {1: [tube(5, 22, (16, 8, 48, 32))]}}), nframes=nframes
    )
    train, test = check('multisports', damage, content)
    assert RUN_1 in findings(train)['missing']
    assert 'has 20 frames' in findings(test)['length']
    assert '(2 such keyframes).' in findings(test)['clip']


@pytest.mark.parametrize('layout', ['ucf101-24', 'multisports'])
def test_the_check_warns_of_pictures_of_another_shape(check, layout):
    resolution = tiny_tubes.truth()['resolution']
    # Height and width in the wrong order; a larger picture of the same shape.
    content = dict(resolution={**resolution, RUN_1: (64, 48), SIT: (96, 128)})
    train, test = check(layout, None, content)
    assert 'shape' in findings(train)
    assert 'shape' not in findings(test)

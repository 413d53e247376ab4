import pickle
import re
import xml.etree.ElementTree as ET

import pytest
from run_tool import run_tool
from tube_data import ava_lines, csv_lines, evaluate_results, noisy, predict_truth

from stmixer_mm.evaluation.functional.protocols import Protocol
from stmixer_mm.evaluation.results.offline import read_results
from stmixer_mm.projects.diagnosis.sensitivity import sensitivity
from stmixer_mm.registry import METRICS

NAME = '<script>$x$</script> & "run"'
TUBES = """test_evaluator = [
    dict(type='TubeFrameMAPMetric', ann_file='GT.pkl', protocol='yowo'),
    dict(type='VideoMAPMetric', ann_file='GT.pkl', iou_thrs=[0.2, 0.5]),
]
"""
KEYFRAMES = (
    "test_evaluator = dict(type='FrameMAPMetric', ann_file='GT.csv', num_classes=4)"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth, samples = noisy(0)
    truth['labels'][0] = NAME
    (tmp_path / 'GT.pkl').write_bytes(pickle.dumps(truth))
    (tmp_path / 'GT.csv').write_text('\n'.join(ava_lines(truth)))
    lines = csv_lines(samples)
    (tmp_path / 'found.csv').write_text('\n'.join(lines))
    (tmp_path / '<b>.csv').write_text('\n'.join(lines[::3]))
    return tmp_path


@pytest.mark.parametrize(
    'config, names', [(TUBES, ['act', 'yowo']), (KEYFRAMES, ['ava'])]
)
def test_a_page_has_all_numbers_and_runs_nothing(folder, capsys, config, names):
    (folder / 'config.py').write_text(config)
    options = '--protocol', *names, '--against', '<b>.csv', '--draws', 20
    run_tool('evaluate', 'found.csv', 'config.py', *options, '--report', 'o.html')
    numbers = re.findall(r'-?\d\.\d+', capsys.readouterr().out)
    page = (folder / 'o.html').read_text()
    assert numbers and all(number in page for number in numbers)
    assert not re.search(r'<script|<b>|<link|src=|@import|url\((?!#)', page)
    assert not re.search('href="[^#]', page)
    if config == TUBES:
        assert page.count('&lt;script&gt;$x$') > 5
    figures = re.findall('<svg.*?</svg>', page, re.DOTALL)
    assert len(figures) == (4 if config == TUBES else 2)
    for figure in figures:
        ET.fromstring(figure)


def test_no_choice_leaves_truth_out_alone(folder):
    """A perfect result stays perfect in fewer frames."""
    truth, _ = noisy(0)
    (folder / 'all.csv').write_text('\n'.join(csv_lines(predict_truth(truth))))
    results = read_results('all.csv')
    for protocol in ('act', 'openmixer'):
        config = dict(type='TubeFrameMAPMetric', ann_file='GT.pkl', protocol=protocol)
        changes = sensitivity(config, results)
        values = {
            (one.field, one.other): one.value
            for one in changes
            if one.field in ('frames', 'every', 'skip_silent_frames')
        }
        refused = {'act': ('every', '5'), 'openmixer': ('frames', 'all')}[protocol]
        assert values.pop(refused) is None
        assert len(values) > 2 and set(values.values()) == {1}


def test_a_choice_is_changed_alone(folder):
    config = dict(type='TubeFrameMAPMetric', ann_file='GT.pkl', frames='annotated')
    results = read_results('found.csv')
    changes = sensitivity(config, results)
    assert {one.field for one in changes} == {*Protocol._fields}
    for field, other in dict(ap='yolo', frames='all', classes='best', pixel=0).items():
        (change,) = (c for c in changes if c[0] == field and c.other == f'{other}')
        rules = METRICS.build(config).protocol._replace(**{field: other})
        metric = METRICS.build(dict(config, frames=None, protocol=rules))
        values = evaluate_results([metric], results)
        assert change.value == values['frame_mAP/overall@0.5']

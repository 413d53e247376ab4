"""A page with all about an evaluation: one HTML file, which needs no other."""

import hashlib
import html
import io
import os
import platform
import string
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from mmengine.config import Config

from stmixer_mm.errors import printable
from stmixer_mm.evaluation.functional.average_precision import by_score, precision
from stmixer_mm.evaluation.functional.tables import Row, cells
from stmixer_mm.evaluation.metrics.detection_metric import DetectionMetric
from stmixer_mm.evaluation.metrics.tube_metric import TubeMetric
from stmixer_mm.evaluation.results.offline import feed, metric_class, metric_configs
from stmixer_mm.evaluation.results.rows import Results
from stmixer_mm.files import open_atomically, sha256_of
from stmixer_mm.projects.diagnosis.comparison import (
    Comparison,
    class_values,
    protocol_rows,
    span,
    value_rows,
)
from stmixer_mm.projects.diagnosis.error_types import error_rows, shares_of
from stmixer_mm.projects.diagnosis.judging import class_results, first_threshold
from stmixer_mm.projects.diagnosis.scoring import (
    Interval,
    MatchedResults,
    match_results,
)
from stmixer_mm.projects.diagnosis.sensitivity import sensitivity
from stmixer_mm.registry import METRICS

_PACKAGES = 'stmixer_mm', 'mmengine', 'torch', 'numpy', 'scipy', 'matplotlib'
_NO_METADATA = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
_POINTS, _NAMED_CURVES = 300, 24
_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: 2px 10px; text-align: right; border-bottom: 1px solid #ddd }
td { white-space: nowrap } td:last-child { white-space: normal }
th { border-bottom-color: #333 }
th:first-child, td:first-child, .text { text-align: left }
pre { font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: 1em }
figure { margin: 1em 0 } svg { max-width: 100%; height: auto }
@media print { body { margin: 0; max-width: none; font-size: 10pt } table { display: table; font-size: 7pt }
  th, td { padding: 1px 4px } figure, tr { break-inside: avoid } h2 { break-after: avoid } }
</style>
<h1>$title</h1>
$body
</html>
""")


def write_page(
    path: str,
    cfg: Config,
    sides: Sequence[Sequence[Results]],
    splits: Sequence[int],
    scored: Sequence[Comparison],
    by_protocol: Sequence[Comparison],
) -> None:
    """Write the page.

    Args:
        path: HTML file.
        cfg: The config with the metrics.
        sides: Results by split, and those beside them.
        splits: Their numbers, if any.
        scored: Scores by the metrics of the config.
        by_protocol: Scores by protocols.
    """
    alone = [one._replace(others=()) for one in by_protocol]
    parts = [_heading('By protocol'), _table(protocol_rows(alone, splits), left=2)]
    if by_protocol[0].others:
        beside = protocol_rows(by_protocol, splits)
        parts += [_heading('Beside other results'), _table(beside, left=3)]
        parts.append(_table(value_rows(scored, splits)))
    ours = [one for one in scored if isinstance(one.score.metric, DetectionMetric)]
    configs = _metric_configs(cfg, sides[0][0], splits)
    for one, config in zip(ours, configs, strict=True):
        parts += _about_metric(one, config, sides[0][0], splits)
    files = [one.file for side in sides for one in side] + [cfg.filename]
    for config in configs:
        folder = config.get('data_root') or ''
        for key, value in config.items():
            if key.endswith('_file') and value:
                some = [value] if isinstance(value, str) else value
                files += [os.path.join(folder, file) for file in some]
    sums = [[file, _sha256(file)] for file in dict.fromkeys(files)]
    versions = [[name, version(name)] for name in _PACKAGES]
    versions += [['Python', platform.python_version()]]
    parts += [_heading('Inputs'), _table([['file', 'sha256'], *sums], left=2)]
    parts += [_heading('Versions'), _table([['', 'version'], *versions])]
    text = Config(dict(test_evaluator=configs)).pretty_text
    text = '\n'.join(map(printable, text.splitlines()))
    parts += [_heading('Metrics'), f'<pre>{html.escape(text)}</pre>']
    names = ', '.join(printable(one.file) for one in sides[0])
    title = html.escape(f'Evaluation of {names}')
    with open_atomically(path, encoding='utf-8') as file:
        file.write(_PAGE.substitute(title=title, body='\n'.join(parts)))


def _metric_configs(
    cfg: Config, results: Results, splits: Sequence[int]
) -> list[dict[str, Any]]:
    """Configs of the metrics of detections that take the results."""
    configs = []
    for config in metric_configs(cfg, 'test'):
        kind = metric_class(config)
        if issubclass(kind, DetectionMetric) and issubclass(kind, results.metric_type):
            configs.append({**config, **({'split': splits[0]} if splits else {})})
    return configs


def _about_metric(
    one: Comparison, config: dict, results: Results, splits: Sequence[int]
) -> list[str]:
    """Classes, curves, errors and choices; of splits all but the first of the first."""
    metric, score = METRICS.build(config), one.score
    metric.logs_classes = False
    feed(metric, results)
    found = match_results(metric)
    thr, name = first_threshold(metric), type(metric).__name__
    parts = [_heading(f'{name}, protocol {metric.protocol_name}, IoU {thr:g}')]
    parts.append(_table(value_rows([one._replace(others=())], splits)))
    if splits:
        parts.append(f'<p>What follows is of split {splits[0]}.</p>')
    counts = class_results(metric, found.matched)
    values = class_values(score)
    rows = [
        [each.name, each.gts, each.detected, each.right, *values[each.name]]
        for each in counts
        if each.name in values
    ]
    heading = ['class', 'ground truth', 'found', 'right', 'AP', '95 %']
    parts.append(_table([heading, *([*row[:-1], span(row[-1])] for row in rows)]))
    parts += [_bars(values), _curves(found, thr), _errors(found)]
    parts.append(_changes(config, results))
    return parts


def _errors(found: MatchedResults) -> str:
    if not isinstance(found.metric, TubeMetric):
        return ''
    rows = error_rows(shares_of(found.metric, found.detections))
    note = 'Error types: the area under the share of each over recall.'
    return f'<h3>Errors</h3><p>{note}</p>{_table(rows)}'


def _changes(config: dict, results: Results) -> str:
    changes = sensitivity(config, results)
    felt = [one for one in changes if one.difference != 0]
    felt.sort(key=lambda one: -abs(one.difference or 0))
    rows = [['choice', 'is', 'otherwise', 'mAP', 'difference']]
    rows += [
        [*one[:3], *('-' if cell is None else cell for cell in one[3:])] for one in felt
    ]
    without = [f'{one.field} {one.other}' for one in changes if one.difference == 0]
    text = 'No change by ' + '; '.join(without) + '.' if without else ''
    return (
        '<h3>Choices of the protocol, one at a time</h3>'
        f'{_table(rows, left=3)}<p>{html.escape(text)}</p>'
    )


def _bars(values: Mapping[str, tuple[float, Interval | None]]) -> str:
    """AP of classes, best first, with intervals."""
    ranked = sorted(values.items(), key=lambda item: item[1][0])
    figure = Figure(figsize=(9, 0.8 + 0.26 * len(ranked)), layout='constrained')
    axes = figure.add_subplot(xlim=(0, 1), xlabel='AP and 95 % interval')
    places = range(len(ranked))
    axes.barh(places, [value for _, (value, _) in ranked], color='#9db8d2')
    for place, (_, (_, interval)) in enumerate(ranked):
        if interval:
            axes.hlines(place, *interval, color='#222222', linewidth=1.5)
    labels = axes.set_yticks(places, [printable(name) for name, _ in ranked])
    for label in labels:
        label.label1.set_parse_math(False)
    axes.set_ylim(-0.6, len(ranked) - 0.4)
    return _figure(figure)


def _curves(found: MatchedResults, thr: float) -> str:
    """Precision over recall, a line for each class."""
    metric = found.metric
    figure = Figure(figsize=(9, 5), layout='constrained')
    limits = dict(xlim=(0, 1), ylim=(0, 1.02))
    axes = figure.add_subplot(xlabel='recall', ylabel='precision', **limits)
    for column, name in metric.class_names.items():
        one = found.matched[column]
        if one.num_gts and len(one.scores):
            right = metric.right(one, thr)[by_score(one.scores)]
            some = np.unique(np.linspace(0, len(right) - 1, _POINTS).astype(int))
            recall = np.cumsum(right) / one.num_gts
            axes.plot(recall[some], precision(right)[some], label=printable(name))
    lines = axes.get_lines()
    if 0 < len(lines) <= _NAMED_CURVES:
        legend = figure.legend(loc='outside right upper', frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return _figure(figure)


def _figure(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'stmixer_mm'}):
        figure.savefig(text, format='svg', metadata=_NO_METADATA)
    _, start, svg = text.getvalue().partition('<svg')
    return f'<figure>{start}{svg}</figure>'


def _heading(text: str) -> str:
    return f'<h2>{html.escape(printable(text))}</h2>'


def _table(rows: Sequence[Row], *, left: int = 1) -> str:
    """Rows below a heading, the first ``left`` columns to the left."""
    lines = []
    for tag, row in zip(['th'] + ['td'] * (len(rows) - 1), rows, strict=True):
        kinds = [' class="text"'] * left + [''] * (len(row) - left)
        texts = map(html.escape, cells(row, 4))
        columns = zip(kinds, texts, strict=True)
        filled = ''.join(f'<{tag}{kind}>{text}</{tag}>' for kind, text in columns)
        lines.append(f'<tr>{filled}</tr>')
    return '<table>\n' + '\n'.join(lines) + '\n</table>'


def _sha256(path: str) -> str:
    """Of a file; of a folder that of the list that ``sha256sum`` prints of its files."""
    if not os.path.isdir(path):
        return sha256_of(path)
    files = sorted(one for one in Path(path).iterdir() if one.is_file())
    lines = [f'{_sha256(str(one))}  {one.name}\n' for one in files]
    return hashlib.sha256(''.join(lines).encode()).hexdigest()

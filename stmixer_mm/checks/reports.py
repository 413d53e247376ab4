"""What is found wrong in data, as text and as JSON."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from stmixer_mm.datasets.annotations.ava_csv import Fault


class Finding(NamedTuple):
    """A fault (``is_error``) or something that only looks wrong."""

    is_error: bool
    kind: str
    fault: Fault

    def __str__(self) -> str:
        return f'{"error" if self.is_error else "warning"}: {self.fault}'


@dataclass
class Report:
    """What is wrong with a part of a config that reads annotations."""

    name: str
    ann_file: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def num_errors(self) -> int:
        return sum(finding.is_error for finding in self.findings)

    def error(self, kind: str, file: str, line: int | None, message: str) -> None:
        self.findings.append(Finding(True, kind, Fault(file, line, message)))

    def warn(self, kind: str, file: str, line: int | None, message: str) -> None:
        self.findings.append(Finding(False, kind, Fault(file, line, message)))

    def summary(self) -> list[str]:
        """Lines on what there is."""
        return []


@dataclass
class SplitReport(Report):
    """What one dataset holds, excluded keyframes left out, and what is wrong."""

    num_videos: int = 0
    num_keyframes: int = 0  # person-free ones included
    num_empty_keyframes: int = 0
    num_excluded_keyframes: int = 0
    num_boxes: int = 0
    class_counts: dict[str, int] = field(default_factory=dict)  # by class name
    videos: dict[str, str] = field(default_factory=dict)  # id -> path
    first_lines: dict[str, int | None] = field(default_factory=dict)  # of each video

    def summary(self) -> list[str]:
        width = max(map(len, self.class_counts), default=0)
        return [
            f'{self.num_videos} videos, {self.num_keyframes} keyframes '
            f'({self.num_empty_keyframes} person-free), {self.num_boxes} boxes, '
            f'{self.num_excluded_keyframes} keyframes excluded',
            *(f'  {name:<{width}} {n:>8}' for name, n in self.class_counts.items()),
        ]


def format_report(report: Report, *, max_warnings: int = 20) -> str:
    """All errors, the first warnings of each kind, and a summary, as text."""
    lines = [f'== {report.name}: {report.ann_file}']
    lines += [str(finding) for finding in report.findings if finding.is_error]
    warnings: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if not finding.is_error:
            warnings.setdefault(finding.kind, []).append(finding)
    for kind, findings in warnings.items():
        lines += [str(finding) for finding in findings[:max_warnings]]
        if len(findings) > max_warnings:
            lines.append(f'... {len(findings) - max_warnings} more warnings: {kind}')
    lines += report.summary()
    num_warnings = len(report.findings) - report.num_errors
    lines.append(f'{report.num_errors} errors, {num_warnings} warnings')
    return '\n'.join(lines)


def report_to_dict(report: Report) -> dict:
    """The whole report in plain types, for JSON."""
    findings = [
        {
            'severity': 'error' if finding.is_error else 'warning',
            'kind': finding.kind,
            **finding.fault._asdict(),
        }
        for finding in report.findings
    ]
    return {**asdict(report), 'findings': findings, 'num_errors': report.num_errors}


def split_place(text: str, otherwise: str) -> tuple[str, int | None, str]:
    """File, line and the rest of a message such as 'a.csv, line 3: it is empty.'"""
    place = re.match(r'(.+?)(?:, line (\d+))?: ', text)
    rest = place and text[place.end() :]
    if place is None or not (Path(place[1]).exists() or rest.startswith('the file ')):
        return otherwise, None, text
    return place[1], place[2] and int(place[2]), rest

"""Errors and warnings about data, as text and as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

from stmixer_mm.datasets.annotations.ava_csv import Fault

Place = tuple[str, int | None]  # file, and line if it is about one
MAX_WARNINGS = 20  # in the text; the JSON has all


class Finding(NamedTuple):
    """An error, or a warning of what only looks wrong."""

    severity: Literal['error', 'warning']
    kind: str
    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f'{self.severity}: {Fault(self.file, self.line, self.message)}'


@dataclass
class Report:
    """Findings about a dataset, and its counts."""

    name: str
    ann_file: str
    findings: list[Finding] = field(default_factory=list)
    num_videos: int = 0
    num_keyframes: int = 0  # person-free ones included, excluded ones left out
    num_empty_keyframes: int = 0
    num_boxes: int = 0
    class_counts: dict[str, int] = field(default_factory=dict)  # by class name
    videos: dict[str, str] = field(default_factory=dict)  # id -> path
    places: dict[str, Place] = field(default_factory=dict)  # of videos and img_keys

    def to_dict(self) -> dict:
        """All of it in plain types, for JSON."""
        findings = [finding._asdict() for finding in self.findings]
        content = {**asdict(self), 'findings': findings, 'num_errors': self.num_errors}
        del content['places']
        return content

    @property
    def num_errors(self) -> int:
        return sum(finding.severity == 'error' for finding in self.findings)

    def place(self, *names: str) -> Place:
        """First mention of the first of these names that has one."""
        places = (self.places[name] for name in names if name in self.places)
        return next(places, (self.ann_file, None))

    def error(self, kind: str, place: Place, message: str) -> None:
        self.findings.append(Finding('error', kind, *place, message))

    def warn(self, kind: str, place: Place, message: str) -> None:
        self.findings.append(Finding('warning', kind, *place, message))


def format_report(report: Report) -> str:
    """All errors, the first warnings, and a summary, as text."""
    errors = [
        str(finding) for finding in report.findings if finding.severity == 'error'
    ]
    warnings = [
        str(finding) for finding in report.findings if finding.severity == 'warning'
    ]
    lines = [f'== {report.name}: {report.ann_file}', *errors, *warnings[:MAX_WARNINGS]]
    if report.num_keyframes:
        lines.append(
            f'videos: {report.num_videos}, keyframes: {report.num_keyframes} '
            f'(person-free: {report.num_empty_keyframes}), boxes: {report.num_boxes}'
        )
        lines += [f'  {name:<40} {n:>8}' for name, n in report.class_counts.items()]
    return '\n'.join([*lines, f'errors: {len(errors)}, warnings: {len(warnings)}'])

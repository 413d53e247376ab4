"""Tables as text."""

from collections.abc import Sequence

from stmixer_mm.errors import printable

Row = Sequence[str | int | float]


def cells(row: Row, digits: int) -> list[str]:
    """Numbers as text; those that are not whole with so many digits."""
    return [
        f'{cell:.{digits}f}' if isinstance(cell, float) else printable(f'{cell}')
        for cell in row
    ]


def format_table(rows: Sequence[Row], *, left: int = 1, digits: int = 4) -> str:
    """Aligned columns, the first ``left`` ones to the left; the first row is the heading."""
    table = [cells(row, digits) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        aligned = (
            *map(str.ljust, row[:left], widths),
            *map(str.rjust, row[left:], widths[left:]),
        )
        lines.append('  '.join(aligned).rstrip())
    lines.insert(1, '-' * max(map(len, lines)))
    return '\n'.join(lines)

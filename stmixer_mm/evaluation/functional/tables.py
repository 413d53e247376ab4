"""Tables as text."""

from collections.abc import Sequence

Row = Sequence[str | int | float]


def cells(row: Row, digits: int) -> list[str]:
    """Numbers as text; those that are not whole with so many digits."""
    return [
        f'{cell:.{digits}f}' if isinstance(cell, float) else f'{cell}' for cell in row
    ]


def format_table(head: Sequence[str], rows: Sequence[Row], *, digits: int = 4) -> str:
    """Lines of columns, the first one aligned left."""
    table = [list(head), *(cells(row, digits) for row in rows)]
    widths = [max(map(len, column)) + 2 for column in zip(*table, strict=True)]
    return '\n'.join(
        f'{first:<{widths[0]}}' + ''.join(map(str.rjust, rest, widths[1:]))
        for first, *rest in table
    )

"""Settings of a config on the command line."""

import argparse
from collections.abc import Sequence

from mmengine.config import DictAction as _DictAction


class DictAction(_DictAction):
    """mmengine's KEY=VALUE, but text keeps its spaces, and in quotes its commas."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Add the settings to the namespace."""
        for text in values:
            if '=' not in text:
                parser.error(f'{text!r} is no setting: write KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)

    @staticmethod
    def _parse_iterable(val: str) -> object:
        val = val.strip()
        parts = _split(val)
        is_quoted = parts == [val] and len(val) > 1 and val[0] == val[-1] in '\'"'
        if is_quoted:
            val = val[1:-1]
            parts = _split(val)
        kind = {'()': tuple, '[]': list}.get(val[:1] + val[-1:])
        if kind and len(parts) == 1:
            return kind(map(DictAction._parse_iterable, _split(val[1:-1])))
        if is_quoted or parts in ([], [val]):
            return DictAction._parse_int_float_bool(val)
        return [DictAction._parse_iterable(part) for part in parts]


def _split(text: str) -> list[str]:
    """The parts between commas that are not within brackets or a quoted part."""
    parts, depth, quote = [''], 0, None
    for char in text:
        if quote is None and char in '\'"' and not parts[-1].strip():
            quote = char
        elif char == quote:
            quote = None
        elif quote is None:
            depth += (char in '([') - (char in ')]')
            if char == ',' and depth <= 0:
                parts.append('')
                continue
        parts[-1] += char
    return parts if parts[-1].strip() else parts[:-1]

"""Label maps in the text form of protocol buffers, as AVA publishes them.

``item { name: "walk" id: 1 }``, over one or more lines; the block may have any name
(AVA's is ``label``), its number may be ``label_id``, and other fields do not count.
"""

import re
from collections.abc import Mapping

from stmixer_mm.errors import UserError

FORM = 'item { name: "walk" id: 1 }'

_TOKEN = re.compile(
    r'(?P<skip>[\s,;]+|#[^\n]*)'
    r'|(?P<mark>[{}:])'
    r'|(?P<quoted>"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\')'
    r'|(?P<word>[\w.+-]+)'
)


class LabelMapError(UserError):
    """What is wrong in a line of a label map."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse_label_map(text: str) -> dict[int, str]:
    """Id -> name, in the order of the text; empty if it has no item.

    Raises:
        LabelMapError: an item is broken, or its name or id is that of another.
    """
    tokens = _tokens(text)
    names: dict[int, str] = {}
    lines: dict[int | str, int] = {}
    while tokens:
        line, fields = _item(tokens)
        name, number = fields.get('name'), fields.get('id', fields.get('label_id'))
        if not name or number is None:
            lacking = 'id' if name else 'name'
            raise LabelMapError(line, f'the item has no {lacking}; write {FORM}.')
        if not re.fullmatch(r'[+-]?[0-9]{1,18}', number):
            raise LabelMapError(
                line, f'the id {number!r} is not a whole number; write {FORM}.'
            )
        for what, value in (('id', int(number)), ('name', name)):
            if value in lines:
                raise LabelMapError(
                    line,
                    f'the {what} {value!r} is that of the item in line '
                    f'{lines[value]} too; give each item its own.',
                )
            lines[value] = line
        names[int(number)] = name
    return names


def format_label_map(ids: Mapping[str, int]) -> str:
    """What :func:`parse_label_map` reads as these names and ids.

    Names have no line ends and no spaces around them.
    """
    items = []
    for name, number in ids.items():
        escaped = re.sub(r'[\\"]', r'\\\g<0>', name)
        items.append(f'item {{\n  name: "{escaped}"\n  id: {number}\n}}\n')
    return ''.join(items)


def _tokens(text: str) -> list[tuple[int, str, str]]:
    """Line, kind and text of each, the first one last."""
    found, start = [], 0
    while start < len(text):
        line = text.count('\n', 0, start) + 1
        match = _TOKEN.match(text, start)
        if match is None:
            rest = text[start:].split('\n')[0][:40]
            raise LabelMapError(
                line, f'{rest!r} is no part of a label map; write {FORM}.'
            )
        if match.lastgroup != 'skip':
            found.append((line, match.lastgroup, match.group()))
        start = match.end()
    return found[::-1]


def _item(tokens: list[tuple[int, str, str]]) -> tuple[int, dict[str, str]]:
    """Line and fields of the next item, which is taken from the tokens."""
    line, _, _ = tokens[-1]

    def take(*kinds: str, mark: str = '') -> str:
        if not tokens:
            raise LabelMapError(
                line, f'the item is cut short; write {FORM} or fetch the file again.'
            )
        at, kind, text = tokens.pop()
        if kind not in kinds and text != mark:
            raise LabelMapError(at, f'{text!r} is out of place; write {FORM}.')
        return text

    take('word')
    if tokens and tokens[-1][2] == ':':
        tokens.pop()
    take(mark='{')
    fields = {}
    while (key := take('word', mark='}')) != '}':
        take(mark=':')
        value = take('word', 'quoted')
        if value[0] in '"\'':
            value = _unescaped(value[1:-1])
        fields[key] = value.strip()
    return line, fields


def _unescaped(text: str) -> str:
    """Text without the escapes of protocol buffers, which write é as \\303\\251."""

    def plain(match: re.Match) -> bytes:
        code = match[1]
        if code[:1].isdigit():
            return bytes([int(code, 8) % 256])
        return {b'n': b'\n', b't': b'\t', b'r': b'\r'}.get(code, code)

    data = re.sub(rb'\\([0-7]{1,3}|.)', plain, text.encode())
    return data.decode(errors='replace')

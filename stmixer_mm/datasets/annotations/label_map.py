"""Label maps in the text form of protocol buffers, as AVA publishes them.

``item { name: "walk" id: 1 }``, over one or more lines; the block may have any name
(AVA's is ``label``), its number may be ``label_id``, and other fields do not count.
"""

import re
from collections.abc import Mapping

from stmixer_mm.errors import UserError

FORM = 'item { name: "walk" id: 1 }'

_SKIP = r'(?:[\s,;]|#[^\n]*(?:\n|\Z))*'
_VALUE = r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|[\w.+-]+'
_BEGIN = re.compile(rf'[\w.+-]+(?:{_SKIP}:)?{_SKIP}\{{{_SKIP}')
_FIELD = re.compile(rf'([\w.+-]+){_SKIP}:{_SKIP}({_VALUE}){_SKIP}')
_END = re.compile(rf'\}}{_SKIP}')
_ESCAPES = {b'n': b'\n', b't': b'\t', b'r': b'\r'}


def parse_label_map(text: str, *, source: str) -> dict[int, str]:
    """Id -> name, in the order of the text; empty if it has no item.

    Args:
        text: What is in the file.
        source: Its name in messages.

    Raises:
        UserError: an item is broken, or its name or id is that of another.
    """
    names: dict[int, str] = {}
    lines: dict[int | str, int] = {}
    end = re.match(_SKIP, text).end()
    while end < len(text):
        start, fields, match = end, {}, _BEGIN.match(text, end)
        while match:
            end = match.end()
            if match.re is _FIELD:
                fields[match[1]] = _value(match[2])
            match = _FIELD.match(text, end)
        rest = text[end:].partition('\n')[0][:40]
        match = _END.match(text, end) if end > start else None
        line = text.count('\n', 0, start if match or not rest else end) + 1
        name, number = fields.get('name'), fields.get('id', fields.get('label_id'))
        if match is None:
            fault = f'{rest!r} is out of place' if rest else 'the item is cut short'
        elif not name or number is None:
            fault = f'the item has no {"id" if name else "name"}'
        elif not re.fullmatch(r'[+-]?[0-9]{1,18}', number):
            fault = f'the id {number!r} is not a whole number'
        else:
            end, fault = match.end(), ''
        if fault:
            raise UserError(f'{source}, line {line}: {fault}; write {FORM}.')
        for what, value in (('id', int(number)), ('name', name)):
            if value in lines:
                raise UserError(
                    f'{source}, line {line}: the {what} {value!r} is that of the item '
                    f'in line {lines[value]} too; give each item its own.'
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


def _value(text: str) -> str:
    """A value less its quotes and escapes, which for é are \\303\\251."""

    def plain(match: re.Match) -> bytes:
        code = match[1]
        if code[:1].isdigit():
            return bytes([int(code, 8) % 256])
        return _ESCAPES.get(code, code)

    if text[0] in '"\'':
        data = re.sub(rb'\\([0-7]{1,3}|.)', plain, text[1:-1].encode())
        text = data.decode(errors='replace')
    return text.strip()

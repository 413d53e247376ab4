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
_FIELD = rf'([\w.+-]+){_SKIP}:{_SKIP}({_VALUE}){_SKIP}'
_ITEM = re.compile(
    rf'[\w.+-]+(?:{_SKIP}:)?{_SKIP}\{{{_SKIP}'
    rf'(?P<fields>(?:{_FIELD})*)\}}{_SKIP}'
)
_ESCAPES = {b'n': b'\n', b't': b'\t', b'r': b'\r'}


def parse_label_map(text: str, *, source: str) -> dict[int, str]:
    """Id -> name, in the order of the text; empty if it has no item.

    Args:
        text: The content of the file.
        source: Its name in messages.

    Raises:
        UserError: an item is broken, or its name or id is that of another.
    """
    names: dict[int, str] = {}
    end = re.match(_SKIP, text).end()
    while end < len(text):
        place = f'{source}, line {text.count(chr(10), 0, end) + 1}'
        match = _ITEM.match(text, end)
        if match is None:
            shown = text[end : end + 40].partition('\n')[0]
            raise UserError(f'{place}: {shown!r} is not an item; write {FORM}.')
        end = match.end()
        fields = {
            key: _unquote(value) for key, value in re.findall(_FIELD, match['fields'])
        }
        name, number = fields.get('name'), fields.get('id', fields.get('label_id', ''))
        if not name or not re.fullmatch(r'[+-]?[0-9]{1,18}', number):
            raise UserError(f'{place}: the item lacks a name or an id; write {FORM}.')
        if name in names.values() or int(number) in names:
            raise UserError(
                f'{place}: the name {name!r} or the id {number} is that of another '
                'item too; give each item its own.'
            )
        names[int(number)] = name
    return names


def format_label_map(ids: Mapping[str, int]) -> str:
    """The text that :func:`parse_label_map` reads as these names and ids.

    Names have no line ends and no spaces around them.
    """
    items = []
    for name, number in ids.items():
        escaped = re.sub(r'[\\"]', r'\\\g<0>', name)
        items.append(f'item {{\n  name: "{escaped}"\n  id: {number}\n}}\n')
    return ''.join(items)


def _unquote(text: str) -> str:
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

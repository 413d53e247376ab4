"""Label maps in the text form of protocol buffers, as AVA publishes them.

``item { name: "walk" id: 1 }``, over one or more lines; the block may have any name
(AVA's is ``label``), its number may be ``label_id``, and other fields do not count.
"""

import re
import shlex
from collections.abc import Mapping

from stmixer_mm.errors import UserError

FORM = 'item { name: "walk" id: 1 }'


def parse_label_map(text: str, *, source: str) -> dict[int, str]:
    """Id -> name, in the order of the text; empty if it has no item.

    Args:
        text: The content of the file.
        source: Its name in messages.

    Raises:
        UserError: an item is broken, or its name or id is that of another.
    """
    names: dict[int, str] = {}
    words = shlex.shlex(text, posix=True)
    words.whitespace += ',:;'
    words.wordchars += '.+-'
    try:
        for _ in words:  # the name of a block
            name, number = _parse_block(words)
            if name in names.values() or number in names:
                raise ValueError(f'{name!r} or {number} is there twice')
            names[number] = name
    except ValueError as error:
        raise UserError(
            f'{source}, line {words.lineno}: an item is broken ({error}); write {FORM}, '
            'each with a name and an id of its own.'
        ) from error
    return names


def _parse_block(words: shlex.shlex) -> tuple[str, int]:
    """Name and id of the block that the next words are; ``ValueError`` for another."""
    if words.get_token() != '{':
        raise ValueError('it does not begin with {')
    fields = {}
    while (key := words.get_token()) != '}':
        if key is None:
            raise ValueError('it does not end with }')
        fields[key] = words.get_token()
    name = (fields.get('name') or '').strip()
    if not name:
        raise ValueError('it has no name')
    return name, int(fields.get('id') or fields.get('label_id') or '')


def format_label_map(ids: Mapping[str, int]) -> str:
    """The text that :func:`parse_label_map` reads as these names and ids.

    Names have no line ends and no spaces around them.
    """
    items = []
    for name, number in ids.items():
        escaped = re.sub(r'[\\"]', r'\\\g<0>', name)
        items.append(f'item {{\n  name: "{escaped}"\n  id: {number}\n}}\n')
    return ''.join(items)

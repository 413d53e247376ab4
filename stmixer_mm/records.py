"""Dataclasses as JSON, as JSON Schema and as columns of Parquet.

The types of a record's fields are all that these need to know: numbers, strings, lists,
tuples, other records and typed dicts. A field that may be None is left out when it is.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_PLAIN = {int: 'integer', float: 'number', str: 'string'}


def entry(
    doc: str = '',
    *,
    key: str | None = None,
    digits: int | None = None,
    hidden: bool = False,
    schema: dict | None = None,
    **options: Any,
) -> Any:
    """A field of a record.

    Args:
        doc: Its description in the JSON Schema.
        key: Its name in JSON; by default that of the field.
        digits: Decimals that JSON keeps of its numbers.
        hidden: Whether JSON does without it.
        schema: Further keywords of JSON Schema.
        options: ``default`` or ``default_factory``.
    """
    metadata = dict(doc=doc, key=key, digits=digits, hidden=hidden, schema=schema or {})
    return dataclasses.field(metadata=metadata, **options)


class _Field(NamedTuple):
    name: str
    key: str
    hint: Any  # without None
    is_optional: bool
    metadata: dict


def _fields(record: type) -> Iterator[_Field]:
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        if field.metadata.get('hidden'):
            continue
        hint, args = hints[field.name], typing.get_args(hints[field.name])
        is_optional = isinstance(hint, types.UnionType) and type(None) in args
        yield _Field(
            name=field.name,
            key=field.metadata.get('key') or field.name,
            hint=args[0] if is_optional else hint,
            is_optional=is_optional,
            metadata=dict(field.metadata),
        )


def to_plain(value: Any, digits: int | None = None) -> Any:
    """A record, or what stands in one, as JSON has it."""
    if dataclasses.is_dataclass(value):
        return {
            field.key: to_plain(found, field.metadata.get('digits'))
            for field in _fields(type(value))
            if (found := getattr(value, field.name)) is not None
        }
    if isinstance(value, tuple) and digits is not None:
        return np.round(value, digits).tolist()
    if isinstance(value, list | tuple):
        return [to_plain(one, digits) for one in value]
    if isinstance(value, float) and digits is not None:
        return round(float(value), digits)
    return value


def from_plain(hint: Any, content: Any) -> Any:
    """The inverse of :func:`to_plain` for a record's class, or another type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return hint(
            **{
                field.name: from_plain(field.hint, content[field.key])
                for field in _fields(hint)
                if field.key in content or not field.is_optional
            }
        )
    if origin is list:
        return [from_plain(args[0], one) for one in content]
    if origin is tuple:
        return tuple(map(args[0], content))
    return dict(content) if typing.is_typeddict(hint) else hint(content)


def json_schema(record: type, title: str, description: str = '') -> dict:
    """JSON Schema of a record."""
    definitions: dict[str, dict] = {}
    whole = _schema_of_record(record, definitions)
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        'title': title,
        'description': description,
        **whole,
        '$defs': definitions,
    }


def _schema_of_record(record: type, definitions: dict[str, dict]) -> dict:
    properties, required = {}, []
    for field in _fields(record):
        found = _schema(field.hint, definitions) | field.metadata.get('schema', {})
        if field.metadata.get('doc'):
            found['description'] = field.metadata['doc']
        properties[field.key] = found
        if not field.is_optional:
            required.append(field.key)
    return dict(type='object', required=required, properties=properties)


def _schema(hint: Any, definitions: dict[str, dict]) -> dict:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = _schema_of_record(hint, definitions)
        return {'$ref': f'#/$defs/{hint.__name__}'}
    if origin is list:
        return dict(type='array', items=_schema(args[0], definitions))
    if origin is tuple:
        items = _schema(args[0], definitions)
        return dict(type='array', items=items, minItems=len(args), maxItems=len(args))
    if typing.is_typeddict(hint):
        inner = typing.get_type_hints(hint)
        properties = {key: _schema(one, definitions) for key, one in inner.items()}
        return dict(type='object', required=[*inner], properties=properties)
    return dict(type=_PLAIN[hint])


def arrow_type(hint: Any) -> Any:
    """The pyarrow type of a record's class, or of another type."""
    import pyarrow as pa

    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return pa.struct([(one.key, arrow_type(one.hint)) for one in _fields(hint)])
    if typing.is_typeddict(hint):
        inner = typing.get_type_hints(hint)
        return pa.struct([(key, arrow_type(one)) for key, one in inner.items()])
    if origin in (list, tuple):
        return pa.list_(arrow_type(args[0]))
    return {int: pa.int64(), float: pa.float64(), str: pa.string()}[hint]

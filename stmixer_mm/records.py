"""Dataclasses as JSON, as JSON Schema and as columns of Parquet.

The types of a record's fields are all that these need to know: numbers, strings, lists,
tuples, other records and typed dicts. A field that may be None is left out when it is.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
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
        hidden: JSON does without it.
        schema: Further keywords of JSON Schema.
        options: ``default`` or ``default_factory``.
    """
    schema = (schema or {}) | (dict(description=doc) if doc else {})
    metadata = dict(key=key, digits=digits, hidden=hidden, schema=schema)
    return dataclasses.field(metadata=metadata, **options)


class _Field(NamedTuple):
    name: str
    key: str
    hint: Any  # without None
    is_optional: bool = False
    digits: int | None = None
    schema: Mapping = types.MappingProxyType({})


def _fields(record: type) -> Iterator[_Field]:
    """Fields of a record's class that are in JSON, or of a typed dict."""
    hints = typing.get_type_hints(record)
    if typing.is_typeddict(record):
        yield from (_Field(name, name, hint) for name, hint in hints.items())
        return
    for field in dataclasses.fields(record):
        options = dict(field.metadata)
        if options.pop('hidden'):
            continue
        hint, args = hints[field.name], typing.get_args(hints[field.name])
        is_optional = isinstance(hint, types.UnionType) and type(None) in args
        key, hint = options.pop('key') or field.name, args[0] if is_optional else hint
        yield _Field(field.name, key, hint, is_optional, **options)


def to_plain(value: Any, digits: int | None = None) -> Any:
    """A record, or what stands in one, as JSON has it."""
    if dataclasses.is_dataclass(value):
        return {
            field.key: to_plain(content, field.digits)
            for field in _fields(type(value))
            if (content := getattr(value, field.name)) is not None
        }
    if isinstance(value, tuple) and digits is not None:
        return np.round(value, digits).tolist()
    if isinstance(value, list | tuple):
        return [to_plain(element, digits) for element in value]
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
        return [from_plain(args[0], element) for element in content]
    if origin is tuple:
        return tuple(kind(element) for kind, element in zip(args, content, strict=True))
    return dict(content) if typing.is_typeddict(hint) else hint(content)


def json_schema(record: type, title: str, description: str = '') -> dict:
    """JSON Schema of a record."""
    definitions: dict[str, dict] = {}
    schema = _schema_of_record(record, definitions)
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        'title': title,
        'description': description,
        **schema,
        '$defs': definitions,
    }


def _schema_of_record(record: type, definitions: dict[str, dict]) -> dict:
    fields = [*_fields(record)]
    return dict(
        type='object',
        required=[field.key for field in fields if not field.is_optional],
        properties={
            field.key: _schema(field.hint, definitions) | field.schema
            for field in fields
        },
    )


def _schema(hint: Any, definitions: dict[str, dict]) -> dict:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = _schema_of_record(hint, definitions)
        return {'$ref': f'#/$defs/{hint.__name__}'}
    if typing.is_typeddict(hint):
        return _schema_of_record(hint, definitions)
    if origin is list:
        return dict(type='array', items=_schema(args[0], definitions))
    if origin is tuple:
        items = _schema(args[0], definitions)
        return dict(type='array', items=items, minItems=len(args), maxItems=len(args))
    return dict(type=_PLAIN[hint])


def arrow_type(hint: Any) -> Any:
    """The pyarrow type of a record's class, or of another type."""
    import pyarrow as pa

    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        fields = [(field.key, arrow_type(field.hint)) for field in _fields(hint)]
        return pa.struct(fields)
    if typing.get_origin(hint) in (list, tuple):
        return pa.list_(arrow_type(typing.get_args(hint)[0]))
    return {int: pa.int64(), float: pa.float64(), str: pa.string()}[hint]

"""Shapes: the type of a field of a frame, in the words of CDDL (RFC 8610), for the reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

_PLAIN: Final[dict[type[inspect.Type], str]] = {
    inspect.IntType: "uint",
    inspect.FloatType: "float",
    inspect.BoolType: "bool",
    inspect.NoneType: "null",
    inspect.AnyType: "any",
    inspect.StrType: "text",
    inspect.BytesType: "bytes",
}


def fields_of(frame: type[msgspec.Struct]) -> Iterator[str]:
    """Each field of a frame with its type; `?` before one that may be left out, and what it is then."""
    told = inspect.type_info(frame)
    if not isinstance(told, inspect.StructType):
        raise TypeError(frame)
    for field in told.fields:
        shape = _shape(field.type)
        yield f"{field.name}: {shape}" if field.required else f"? {field.name}: {shape} = {json.dumps(field.default)}"


def _shape(told: inspect.Type) -> str:
    if isinstance(told, inspect.UnionType):
        return " / ".join(map(_shape, told.types))
    if isinstance(told, inspect.LiteralType):
        return " / ".join(json.dumps(value) for value in told.values)
    if isinstance(told, inspect.TupleType):
        return f"[{', '.join(map(_shape, told.item_types))}]"
    if isinstance(told, inspect.VarTupleType):
        most = "*" if told.max_length is None else f"*{told.max_length}"
        return f"[{most} {_shape(told.item_type)}]"
    if isinstance(told, inspect.DictType):
        return f"{{* {_shape(told.key_type)} => {_shape(told.value_type)}}}"
    return f"{_PLAIN[type(told)]}{_bounds(told)}"


def _bounds(told: Any) -> str:
    """How long a text or byte string may be."""
    least, most = getattr(told, "min_length", None), getattr(told, "max_length", None)
    if most is None:
        return ""
    return f" .size {most}" if least == most else f" .size (0..{most})"

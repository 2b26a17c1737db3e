"""Records: the typed structs that stand for the `data` of events, each beside its row in `dsmt/event/kinds`.

Times are realm milliseconds named `_ms`, spans are seconds named `_s`, sizes are bytes named `_bytes`; the types in
`dsmt/event/kinds/numbers.py` are their ranges. A field that is not known is null. Fields may be added; a reader
ignores those it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.kinds.row import Record


def to_data(record: msgspec.Struct) -> dict[str, Any]:
    """A record as the `data` of an event: text, numbers, bytes, lists and maps only.

    It is equal to what a reader of the event decodes, so that contents can be compared (rule A13).
    """
    built: dict[str, Any] = _lists(msgspec.to_builtins(record, builtin_types=(bytes,)))
    return built


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(one) for one in value]
    return value


def later(data: Mapping[str, Any], names: Iterable[str], by_ms: int) -> dict[str, Any]:
    """Data with the named times later by `by_ms`: `since_ms`, or `last_exit.at_ms`; what is not known stays so."""
    found = dict(data)
    for name in names:
        first, _, below = name.partition(".")
        held = found.get(first)
        if below and isinstance(held, dict):
            found[first] = later(held, (below,), by_ms)
        elif isinstance(held, int):
            found[first] = held + by_ms
    return found


def from_data(kind: type[Record], data: dict[str, Any]) -> Record:
    """The `data` of an event as its record. Raises `UnusableEventError` when it is not one."""
    try:
        return msgspec.convert(data, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise UnusableEventError("event.schema", f"data is not a {kind.__name__}: {error}") from error


def readable(kind: type[Record], data: dict[str, Any]) -> Record | None:
    """The `data` of an event as its record, or None when it is not one: it may be of another version."""
    try:
        return from_data(kind, data)
    except UnusableEventError:
        return None

"""Health checks: their records, and how a service file writes them.

Rule 1: a kind of check is a record in `How`. Its tag is the key in the file, its fields are the keys below that; one that
    has a `command` is written as just that.
Rule 2: who needs the `port` that a check asks, or the `command` that it runs, asks for these, and not for the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, get_args

from msgspec import Meta
from msgspec.structs import replace

from dsmt.spec.fields import Argv, Header, PortName, Positive, Record, Seconds, Text

Said = Mapping[str, Any]
"""What a file says of something, or its record, as plain values."""


class HttpCheck(Record, frozen=True, tag="http", tag_field="kind"):
    """A request; passes when the status is in one of the inclusive ranges `status` and `contains` is in the body."""

    port: PortName
    path: Text
    scheme: Literal["http", "https"]
    method: Literal["GET", "HEAD", "POST", "PUT", "OPTIONS"]
    status: tuple[tuple[Annotated[int, Meta(ge=100, le=599)], Annotated[int, Meta(ge=100, le=599)]], ...]
    headers: dict[Header, Text]
    contains: Text | None


class TcpCheck(Record, frozen=True, tag="tcp", tag_field="kind"):
    """Passes when a connection opens."""

    port: PortName


class ExecCheck(Record, frozen=True, tag="exec", tag_field="kind"):
    """Passes when the command exits with 0; arguments are templates."""

    command: Argv


class NotifyCheck(Record, frozen=True, tag="notify", tag_field="kind"):
    """sd_notify; `watchdog_s` is the longest silence of `WATCHDOG=1`."""

    watchdog_s: Seconds | None


How = HttpCheck | TcpCheck | ExecCheck | NotifyCheck
KINDS: Final[Mapping[str, type[Record]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(How)}


class Check(Record, frozen=True):
    """One check in one role. `deadline_s` is set for start-up only, where `failures` does not count."""

    how: How
    interval_s: Seconds
    timeout_s: Seconds
    passes: Positive
    failures: Positive
    deadline_s: Seconds | None


class HealthSpec(Record, frozen=True):
    """The three roles; null is no check in that role."""

    startup: Check | None
    readiness: Check | None
    liveness: Check | None

    def checks(self) -> tuple[Check, ...]:
        """Those that there are."""
        return tuple(check for check in (self.startup, self.readiness, self.liveness) if check is not None)


ROLES: Final = HealthSpec.__struct_fields__
_TIMING: Final = tuple(field for field in Check.__struct_fields__ if field != "how")


def has_port(kind: str) -> bool:
    """Whether a kind of check asks a port."""
    return "port" in KINDS[kind].__struct_fields__


def port_of(how: How) -> str | None:
    """The name of the port that a check asks."""
    port: str | None = getattr(how, "port", None)
    return port


def filled(check: Check, fill: Callable[[str], str]) -> Check:
    """The check with the placeholders of its command filled in."""
    command: tuple[str, ...] | None = getattr(check.how, "command", None)
    if command is None:
        return check
    return replace(check, how=replace(check.how, command=tuple(fill(word) for word in command)))


def completed(said: Said | None, port: str | None) -> dict[str, Any] | None:
    """The record of what a file says, with its defaults; `port` is the name of the component's first one."""
    if said is None:
        return None
    chosen = dict(said)
    if "every" in said:
        every = said["every"]
        chosen = {"startup": every, "readiness": every, "liveness": None if every["exec"] is not None else every}
    elif said["startup"] is None:
        same = said["readiness"] or said["liveness"]
        kept = ("interval_s", "failures", "deadline_s")
        chosen["startup"] = {**same, **dict.fromkeys(kept)} if same is not None else None
    return {role: _completed(role, check, port) for role, check in chosen.items()}


def _completed(role: str, said: Said | None, port: str | None) -> dict[str, Any] | None:
    kind = next((kind for kind in KINDS if said is not None and said[kind] is not None), None)
    if said is None or kind is None:
        return None
    how = {"kind": kind, **({"command": said[kind]} if _is_command(kind) else said[kind])}
    if has_port(kind) and how["port"] is None:
        how["port"] = port
    usual = _usual(role)
    timing = {key: usual.get(key) if said[key] is None else said[key] for key in _TIMING}
    return {"how": how, **timing, "deadline_s": timing["deadline_s"] if role == "startup" else None}


def _is_command(kind: str) -> bool:
    return "command" in KINDS[kind].__struct_fields__


def _usual(role: str) -> dict[str, float]:
    """The defaults that depend on the role."""
    start = role == "startup"
    return {"interval_s": 1.0 if start else 5.0, "failures": 6 if role == "liveness" else 3, "deadline_s": 60.0}


def said_of(health: Said | None) -> dict[str, Any] | None:
    """What a file would say to have this record, everything said."""
    return None if health is None else {role: _said_of(health[role]) for role in ROLES}


def _said_of(check: Said | None) -> dict[str, Any] | None:
    if check is None:
        return None
    how = dict(check["how"])
    kind = how.pop("kind")
    none = dict.fromkeys(KINDS)
    return {**none, kind: how["command"] if _is_command(kind) else how, **{key: check[key] for key in _TIMING}}


def shortest(said: Said | None, port: str | None) -> dict[str, Any] | None:
    """The shortest form that says the same; null is what is not said."""
    if said is None:
        return None
    short = {role: check and _without_usual(role, check) for role, check in said.items()}
    candidates = [{**short, "startup": None}, short]
    if (readiness := short["readiness"]) is not None:
        candidates.insert(0, {"every": {**readiness, "deadline_s": (short["startup"] or readiness)["deadline_s"]}})
    whole = completed(said, port)
    return next(each for each in candidates if completed(each, port) == whole)


def _without_usual(role: str, said: Said) -> dict[str, Any]:
    usual = _usual(role)
    return {key: None if key in usual and value == usual[key] else value for key, value in said.items()}

"""Targets: `service[/component[/index]]`, and which slots they name. Nothing is guessed from a prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from dsmt.errors import DsmtError, FailedError, InputError, NotFoundError
from dsmt.event.topic import is_level
from dsmt.operations.words.names import meant
from dsmt.view import SlotKey, View

_LISTED: Final = ("broker", "controller")
_MEMBERS: Final = frozenset({"node", *_LISTED})
LISTS: Final = "dsmt services lists them"
_STATES: Final = {"slot": "", "control": "", "status": "/", "health": "/"}
"""How it is told what an instance is to be, and by each node how it is: what stands behind the index in such a topic."""
_HALF_AN_ID: Final = re.compile(r"\d{10,}-\d+")


def member_of(target: str) -> tuple[str, str]:
    """The kind and the name in `node/NODE`, `broker/BROKER` or `controller/CONTROLLER`; empty for any other target.

    A service may have one of these words as its name: it is that alone, and with an index behind its component.
    """
    kind, _, name = target.partition("/")
    return (kind, name) if kind in _MEMBERS and name and "/" not in name else ("", "")


@dataclass(frozen=True, slots=True)
class Target:
    """What an operator has named."""

    service: str
    component: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        parts = (self.service, self.component, self.index)
        return "/".join(str(part) for part in parts if part is not None)

    def takes(self, key: SlotKey) -> bool:
        """Whether it names a slot."""
        return (
            key.service == self.service
            and self.component in (None, key.component)
            and (self.index is None or self.index == key.index)
        )

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topics on which anything is said of it, and on which its spec stands."""
        whole = f"service/{self.service}/"
        if self.component is None:
            return (whole,)
        spec, part = f"{whole}spec", f"{whole}+/{self.component}/"
        return (spec, part) if self.index is None else (spec, f"{part}{self.index}", f"{part}{self.index}/")

    @property
    def states(self) -> tuple[str, ...]:
        """The topics on which it is told what it is to be and how it is: without what it has written, which may be much."""
        whole = f"service/{self.service}/"
        if self.component is None:
            return (f"{whole}spec", *(f"{whole}{kind}/" for kind in _STATES))
        parts = tuple(f"{whole}{kind}/{self.component}/" for kind in _STATES)
        if self.index is None:
            return (f"{whole}spec", *parts)
        return (f"{whole}spec", *(f"{part}{self.index}{end}" for part, end in zip(parts, _STATES.values(), strict=True)))

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target. Raises `InputError`."""
        parts = text.split("/")
        right = 1 <= len(parts) <= 3 and all(map(is_level, parts)) and (len(parts) < 3 or parts[2].isdigit())
        if not right:
            forms = "write SERVICE, SERVICE/COMPONENT or SERVICE/COMPONENT/INDEX"
            raise InputError("target.form", f"{text!r} is not a target", next=forms)
        return cls(parts[0], parts[1] if len(parts) > 1 else None, int(parts[2]) if len(parts) > 2 else None)


def slots_of(view: View, target: Target, *, gone: bool = False) -> list[SlotKey]:
    """The slots that a target names, sorted: those that its spec asks for, and those that there are.

    `gone` takes those too that have ended. Raises `NotFoundError` when the service, component or index is not there.
    """
    entry = view.services.get(target.service)
    known = None if entry is None else entry.parsed
    if entry is None or (known is None and not entry.slots):
        raise no_service(view, target.service, _kind_meant(view, target))
    ended = entry.spec is not None and entry.spec.record.removed
    components = {} if known is None or ended else known.components
    governing = {name: entry.component(name) or component for name, component in components.items()}
    keys = {
        SlotKey(target.service, name, index)
        for name, component in governing.items()
        for index in range(component.instances or 0)
    }
    for (component, index), slot in entry.slots.items():
        if gone or (slot.fact is not None and slot.fact.record.desired != "gone") or (slot.fact is None and slot.holders):
            keys.add(SlotKey(target.service, component, index))
    found = sorted(key for key in keys if target.takes(key))
    if not found and (target.index is not None or (target.component is not None and target.component not in components)):
        if not keys and entry.spec is None:
            raise no_service(view, target.service)
        raise NotFoundError("target.unknown", f"there is no {target}", next=f"dsmt ps {target.service} lists what there is")
    return found


def still_there(view: View, target: Target) -> None:
    """Raise `NotFoundError` for what has no slot because nothing is left of its service but what was said of it."""
    if view.services[target.service].spec is None:
        raise no_service(view, target.service)


def no_service(view: View, service: str, advice: str = "") -> DsmtError:
    """The error of a service that is not there, or of which what was applied last cannot be read."""
    topic = f"service/{service}/spec"
    why = view.quarantined.get(topic)
    entry = view.services.get(service)
    if entry is not None and entry.spec is not None and entry.spec.record.removed:
        ends = f"dsmt ps {service} shows what is left of it; dsmt apply begins it anew"
        return NotFoundError("service.removed", f"{service} is being removed", next=ends)
    if why is None:
        removed = was_removed(view, service)
        said = f"there is no service {service or repr(service)}{' any more: it was removed' * removed}"
        advice = advice or (f"dsmt history {service}" if removed else service_meant(view, service))
        return NotFoundError("service.unknown", said, next=advice)
    said = f"what was applied of {service} last cannot be read here: {why}"
    return FailedError("spec.unreadable", said, next="apply its file again, or use the dsmt that has applied it")


def service_meant(view: View, service: str) -> str:
    """What to do about a name that no service has; it may be a target that is more than one, or that of another thing."""
    named, _, rest = service.partition("/")
    if kind := _kind_meant(view, Target(named, rest.partition("/")[0] or None)):
        return kind
    names = [name for name, entry in view.services.items() if entry.spec is not None]
    return f"write the service alone: {named}" if named != service and named in names else f"{meant(service, names)}{LISTS}"


def is_service(view: View, name: str) -> bool:
    """Whether a name, which is none of what was asked for, is that of a service, or of a part of one."""
    entry = view.services.get(name.partition("/")[0])
    return entry is not None and entry.spec is not None


def was_removed(view: View, service: str) -> bool:
    """Whether a service of that name was there, and was removed for good."""
    return view.epoch(f"service/{service}/spec") > 1


def _kind_meant(view: View, target: Target) -> str:
    """Where another kind of thing was probably meant by a service that is not there: which, and what shows it."""
    first, second = target.service, target.component
    if second is None:
        return _named_alone(view, first)
    shown = {
        "node": f"dsmt node show {second}, or dsmt why {target}",
        "nodeset": f"dsmt nodeset show {second}",
        "operator": f"dsmt tail --source '{first}/{second}*' --since 1h shows what was done there",
        **{kind: f"dsmt {kind}s, or dsmt why {target}" for kind in _LISTED},
    }
    return shown.get(first, "")


def _named_alone(view: View, name: str) -> str:
    """The same of a name without its kind."""
    if name in view.nodes:
        return f"{name} is a node: dsmt node show {name}, dsmt why node/{name}"
    if name in view.nodesets:
        return f"{name} is a node set: dsmt nodeset show {name}"
    found = next((kind for kind in _LISTED if f"{kind}/{name}" in view.sessions.of), None)
    if found is not None:
        return f"{name} is a {found}: dsmt {found}s, dsmt why {found}/{name}"
    return f"an event's id has its source before it: dsmt why SOURCE#{name}" if _HALF_AN_ID.fullmatch(name) else ""

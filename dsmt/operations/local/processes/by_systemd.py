"""By systemd: what of a home systemd keeps on this machine, where it begins anew what others end."""

from __future__ import annotations

from dsmt.errors import RefusedError
from dsmt.event.phrases import some
from dsmt.operations.local.home.home import KINDS, Home
from dsmt.operations.local.processes.parts import Parts
from dsmt.system.systemd import is_kept, unit_of


def check_left(home: Home, then: str) -> None:
    """Raise `RefusedError` where systemd keeps any part of a home; `then` is what may be done when it does no more."""
    named = [f"dsmt-{role}@{name}" for role, kind in KINDS.items() for name in home.names(kind)]
    units = {f"{name}.service": name for name in named}
    parts = Parts(home)
    if any(unit_of(one.pid) in units for one in [*parts.restarters(), *parts.controllers(), *parts.brokers()]):
        kept = [name for unit, name in units.items() if is_kept(unit)]
        if kept:
            said = f"systemd keeps what runs in {home.root}, and begins anew what is ended there: {some(kept)}"
            raise RefusedError("home.systemd", said, next=f"systemctl stop {' '.join(kept)}; then {then}")

"""Addresses: the brokers that an operator names, as `dsmt://HOST:PORT,...`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dsmt.errors import InputError

if TYPE_CHECKING:
    from dsmt.ports.realm import BrokerAddress
    from dsmt.programs.configuration import RealmConfig

LAST_PORT: Final = 65_535
_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?")


def addresses(text: str, realm: RealmConfig) -> list[BrokerAddress]:
    """The brokers that `--bus dsmt://host:port,...` names. Raises `InputError`."""
    from dsmt.ports.realm import BrokerAddress  # noqa: PLC0415 - only where a realm is asked

    scheme, _, rest = text.partition("://")
    engine = realm.engine
    if scheme != engine or not rest:
        said = f"{text!r} is not a list of brokers of realm {realm.name}"
        raise InputError("bus.address", said, next=f"write {engine}://HOST:PORT,...")
    known = dict(realm.brokers)
    found = []
    for address in rest.rstrip("/").split(","):
        host, _, port = address.rpartition(":")
        if not _HOST.fullmatch(host) or not port.isascii() or not port.isdigit():
            advice = f"write {engine}://HOST:PORT,HOST:PORT" if "://" in address else f"write {engine}://HOST:PORT,..."
            raise InputError("bus.address", f"{address!r} is not the address of a broker", next=advice)
        if not 1 <= int(port[:6]) <= LAST_PORT:
            said = f"{address!r} is not the address of a broker: a port is a number from 1 to {LAST_PORT}"
            raise InputError("bus.address", said, next=f"write {engine}://HOST:PORT,...")
        keys = [known[address]] if address in known else list(dict.fromkeys(known.values()))
        found += [BrokerAddress(address, key) for key in keys]
    return found

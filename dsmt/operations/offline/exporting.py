"""Trust export: every certificate and revocation of the realm's history, so that recorded events can be verified offline.

Rule 1: brokers send the certificates of a signer before its first event, and revocations are facts: whoever reads the
    history has them all.
Rule 2: what a home has exported once it keeps, in `trust.cbor`; it only grows. A disk that takes nothing, or gives nothing
    back, keeps nobody from an export.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from dsmt.errors import InputError, unreadable
from dsmt.operations.local.home.home import Home
from dsmt.operations.read.realm.patience import patience
from dsmt.ports.bus import BusReader, Interest, Start
from dsmt.system.files import write_atomically
from dsmt.trust.store import TrustStore

KEPT: Final = "trust.cbor"
READ_S: Final = 300.0


async def gather(bus: BusReader) -> None:
    """Have the connection's trust store hear of all signers and revocations of the history. Raises `TransportError`."""
    interest = Interest(("/",), start=Start.HISTORY, conflate=True, follow=False)
    async with patience("the whole history", READ_S), bus.subscribe(interest) as batches:
        async for _ in batches:
            pass


def keep(home: Home, trust: TrustStore) -> bytes:
    """Add what a trust store knows to what the home has kept; the export of both."""
    path, held = home.root / KEPT, b""
    with suppress(InputError, OSError):
        held = path.read_bytes()
        merged = TrustStore.from_export(held)
        if merged.realm == trust.realm:
            merged.merge(trust.export())
            trust = merged
    exported = trust.export()
    if exported != held:
        with suppress(OSError):
            write_atomically(str(path), exported)
    return exported


def kept(home: Home) -> TrustStore | None:
    """The trust store that the home has kept, if it has. Raises `InputError` when it cannot be read."""
    path = home.root / KEPT
    return TrustStore.from_export(path.read_bytes()) if path.exists() else None


def check_replaces(path: Path, is_one: Callable[[Path], bool], *, code: str, what: str) -> None:
    """Check what is there: it is replaced, and a service file, a key or a device would be lost. Raises `InputError`."""
    if path.exists() and not path.is_file():
        raise InputError(code, f"{path} is not a regular file", next="name another file")
    if path.exists() and path.stat().st_size and not is_one(path):
        said = f"{path} is there, and is no {what}: it would be replaced"
        raise InputError(code, said, next="name another file, or remove that one")


def from_file(path: Path) -> TrustStore:
    """A trust store from an exported file. Raises `InputError`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError("trust.file", unreadable(path, error), next="dsmt trust export FILE writes one") from error
    return TrustStore.from_export(raw)

"""The broker's process: `python -m dsmt.programs.broker DIRECTORY`."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.older import OLDER
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import DsmtError, InputError
from dsmt.ports.realm import BrokerAddress
from dsmt.programs import nats_gate
from dsmt.programs.birth import is_birth_record
from dsmt.programs.bus import realm_ms, the_bus
from dsmt.programs.configuration import BIRTH, IDENTITY, BrokerFile, read_identity
from dsmt.programs.damage import found_in, open_sound, remains, set_aside, told
from dsmt.programs.kept import keep_keeper
from dsmt.programs.running import run_beside, run_until_signalled
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.procfs import boot
from dsmt.trust.keys import verify
from dsmt.trust.proven import remembering
from dsmt.trust.store import TrustStore
from dsmt.version import __version__

ASK_S: Final = 1.0
"""How long others may take to tell realm time at a start."""
REMEMBERED: Final = 16_384
"""Signatures that are not checked again, 210 B each: two others tell the same, and after a partition
all of a minute that it has told them itself."""


def main(directory: str) -> int:
    """Serve the realm from a broker's directory until a signal, or be the gate of its NATS server; the exit code."""
    with suppress(InputError, OSError):  # which is told as it begins to serve
        if BrokerFile.read(Path(directory)).realm.nats is not None:
            return nats_gate.main(directory)
    return run_until_signalled(lambda: _serve(Path(directory)))


async def _serve(directory: Path) -> None:
    """Serve until cancelled; whenever the store is found damaged, anew with what is sound in it (rule B11).

    Where it is found to be an older copy, once, anew under another id (rule R5).
    """
    (config, identity), older = BrokerFile.at_start(directory), ""
    while True:
        store = open_sound(directory, identity.name, synced=config.synced)
        try:
            await _serve_from(store, directory, config, older)
        except (DsmtError, BaseExceptionGroup) as error:
            damage, is_older = found_in(error, "store.damaged"), found_in(error, OLDER)
            if damage is None and is_older is None:
                raise
            if is_older is not None:
                older = is_older.message
                store.leave_identity()
        else:
            return
        finally:
            store.close()
        if damage is not None:
            set_aside(directory, damage)


async def _serve_from(store: SqliteStore, directory: Path, config: BrokerFile, older: str) -> None:
    identity = read_identity(directory / IDENTITY)
    check = remembering(verify, REMEMBERED)
    trust = TrustStore(config.realm.realm, verify=check)
    others = [one for one in config.realm.addresses if one.public != identity.key.public]
    birth = directory / BIRTH
    born = birth.exists() and is_birth_record(birth.read_bytes(), identity.name, store.identity, trust)
    broker = Broker(
        BrokerConfig(
            address=config.address,
            born=born,
            pid=os.getpid(),
            version=__version__,
            boot=boot(),
            brokers=tuple(config.realm.addresses),
            told_ms=await _told_ms(others),
            remains=remains(directory),
            older=older,
            damaged=lambda: told(directory),
        ),
        identity=identity,
        trust=trust,
        store=store,
        network=ZmqNetwork(),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        reach=lambda there: the_bus(identity, TrustStore(config.realm.realm, verify=check), there, reads=True),
    )
    await run_beside(broker.run(), keep_keeper("broker", directory, lambda record: broker.say("keeper", record)))


async def _told_ms(others: list[BrokerAddress]) -> int | None:
    """What realm time is by the other brokers that answer, now; None when none does."""
    asked = [asyncio.ensure_future(realm_ms(other)) for other in others]
    if not asked:
        return None
    answered, late = await asyncio.wait(asked, timeout=ASK_S)
    for one in late:
        one.cancel()
    times = [one.result() for one in answered if one.exception() is None]
    return round(median(times)) if times else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

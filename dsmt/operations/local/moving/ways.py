"""Ways: what is particular to each direction in which a realm may move; the steps themselves are in `migrating`.

Rule 1: while it is copied, what is left is not touched. At the fence NATS servers that are left are ended, too, and started
    again with nobody but the bridge let in: whoever was attached from outside could still be acknowledged.
Rule 2: the root says that the stores of brokers are whole (A4) when they are made, for it may not be here later. It is their
    word from `settle` on, when all was copied.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from dsmt.errors import NotFoundError, RefusedError
from dsmt.event.addresses import host_of
from dsmt.event.phrases import some
from dsmt.operations.local.home.addresses import free_everywhere
from dsmt.operations.local.home.dating import dated
from dsmt.operations.local.home.home import SERVERS, Home, write_secret
from dsmt.operations.local.up.wanted import NATS_SERVERS
from dsmt.operations.write.brokers import announced
from dsmt.ports.bus import BusReader
from dsmt.programs.birth import birth_record, open_store
from dsmt.programs.configuration import (
    BIRTH,
    BrokerFile,
    GateFile,
    RealmConfig,
    ServersKey,
    brokers_in,
)
from dsmt.programs.nats_server import make_servers
from dsmt.system.entropy import SystemEntropy

CLOCK_S: Final = 5.0
"""How far realm time may be from the machine's clock."""
WHOLE: Final = "whole"
"""Under it the root's word waits until it is true."""

Drain = Callable[[Path, Path, Callable[[int], object]], Awaitable[None]]


class Way(Protocol):
    """To one engine. `ends_servers`: the fence ends the servers that are left, too."""

    ends_servers: bool

    def check_home(self, home: Home) -> None:
        """Raise `RefusedError` where a realm cannot be moved, as far as its home tells it."""
        ...

    async def check_realm(self, bus: BusReader, home: Home) -> None:
        """Raise `RefusedError` where it cannot, as far as it says so itself."""
        ...

    def make(self, home: Home, directories: Sequence[Path], planned: RealmConfig) -> None:
        """Make the directories of what it moves to. Raises `FailedError`."""
        ...

    def beside(self, home: Home) -> list[tuple[str, Path]]:
        """What runs in them while it is copied."""
        ...

    def fence(self, home: Home) -> None:
        """Let nobody but the bridge come to what is left."""
        ...

    def unfence(self, home: Home) -> None:
        """Take that back."""
        ...

    def drain(self) -> Drain:
        """What copies the rest."""
        ...

    def settle(self, directory: Path) -> None:
        """Make of a directory what a realm has that has moved."""
        ...

    def moved(self, home: Home) -> None:
        """Have a home whose realm has moved hold the key for further servers, or none: who aborts has the former one."""
        ...


def _check_brokers_here(home: Home, announced: Iterable[str]) -> None:
    """Raise `RefusedError` where brokers are in another home: what they are to be is made in this one."""
    elsewhere = [one for one in announced if one not in home.names("brokers")]
    if elsewhere:
        are = "broker {} is" if len(elsewhere) == 1 else "brokers {} are"
        told = f"{are.format(some(elsewhere))} not in {home.root}"
        advice = "dsmt broker remove it, and dsmt broker add another one here, first"
        raise RefusedError("migrate.machines", told, next=advice)


def _check_clock(realm_s: float, why: str) -> None:
    """Raise `RefusedError` where realm time is not the machine's."""
    off_s = realm_s - time.time()
    if abs(off_s) > CLOCK_S:
        told = f"realm time is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's clock"
        raise RefusedError("migrate.clock", told, next=f"{why}: set it right, then try again")


class ToNats:
    """From dsmt's brokers to NATS servers."""

    ends_servers = False

    def check_home(self, home: Home) -> None:
        """It must have as many brokers as NATS takes."""
        realm = home.realm()
        number = len(home.names("brokers"))
        if number not in NATS_SERVERS:
            said = f"realm {realm.name} has {number} brokers, and NATS takes 1, 3 or 5 servers: a majority must be there"
            raise RefusedError("migrate.count", said, next="dsmt broker add, or dsmt broker remove, first")

    async def check_realm(self, bus: BusReader, home: Home) -> None:
        """Its brokers must be in this home, and its time this machine's."""
        said = await announced(bus)
        _check_brokers_here(home, said)
        leaves = [name for name, at in said.items() if at.leaf]
        if leaves:
            told = f"broker {leaves[0]} is a leaf, and on NATS there is none"
            raise RefusedError("migrate.leaf", told, next=f"dsmt broker remove {leaves[0]} first")
        _check_clock((await dated(home.realm().clocks)).now_s, "NATS goes by the machine's clock")

    def make(self, home: Home, directories: Sequence[Path], planned: RealmConfig) -> None:
        """Make servers and gates, with a key for the bridge."""
        del home
        routes = tuple(free_everywhere(host_of(address)) for address, _ in planned.brokers)
        beside = directories[0].parents[1]
        make_servers(directories, planned, routes, home=beside, bridge=SystemEntropy().bytes(32))

    def beside(self, home: Home) -> list[tuple[str, Path]]:
        """The servers, without their gates."""
        return [("nats_server", directory) for directory in home.parts(SERVERS).values()]

    def fence(self, home: Home) -> None:
        """Brokers that have ended let nobody in."""

    def unfence(self, home: Home) -> None:
        """There is nothing to be taken back."""

    def drain(self) -> Drain:
        """What reads the brokers' stores."""
        from dsmt.programs.bridge_copies import drain  # noqa: PLC0415 - only where the client of NATS is installed

        return drain

    def settle(self, directory: Path) -> None:
        """Nobody but gates lets anybody in."""
        _let_in(directory, b"")

    def moved(self, home: Home) -> None:
        """The key that was made beside the servers is the home's."""
        if (home.migration / ServersKey.FILE).exists():
            (home.migration / ServersKey.FILE).rename(home.root / ServersKey.FILE)


class ToDsmt:
    """From NATS servers to dsmt's brokers."""

    ends_servers = True

    def check_home(self, home: Home) -> None:
        """The root must be here, whose word the brokers' stores need."""
        try:
            home.root_key()
        except NotFoundError as error:
            said = f"{error.message}, and signs that what the brokers will have is all that the realm holds"
            raise RefusedError(
                "migrate.root", said, next="bring it there; it may go again when the copying has begun"
            ) from error

    async def check_realm(self, bus: BusReader, home: Home) -> None:
        """Its brokers must be in this home, and its time this machine's, which dates that with which each store begins."""
        _check_brokers_here(home, await announced(bus))
        _check_clock(bus.now_ms() / 1000, "the stores of brokers begin at the time of the machine's clock")

    def make(self, home: Home, directories: Sequence[Path], planned: RealmConfig) -> None:
        """Make brokers, each with an empty store and the root's word on it (rule 2)."""
        root = home.root_key()
        for directory, (address, _) in zip(directories, planned.brokers, strict=True):
            BrokerFile(realm=planned, address=address).write(directory)
            store = open_store(directory, synced=True)
            store.close()
            word = birth_record(planned.name, f"broker/{directory.name}", store.identity, root)
            write_secret(directory / WHOLE, word)

    def beside(self, home: Home) -> list[tuple[str, Path]]:
        """Nothing: the bridge writes the stores."""
        del home
        return []

    def fence(self, home: Home) -> None:
        """Have the servers let in the bridge, when they start; no gate does."""
        servers = brokers_in(home.root / "brokers")
        seed = GateFile.read(servers[0]).bridge or SystemEntropy().bytes(32)
        for one in servers:
            _let_in(one, seed)

    def unfence(self, home: Home) -> None:
        """Have them let in nobody but whom the gates do."""
        for one in brokers_in(home.root / "brokers"):
            _let_in(one, b"")

    def drain(self) -> Drain:
        """What reads the servers' streams."""
        from dsmt.programs.returning import drain  # noqa: PLC0415 - only where the client of NATS is installed

        return drain

    def settle(self, directory: Path) -> None:
        """The root's word is true now."""
        if (directory / WHOLE).exists():
            (directory / WHOLE).rename(directory / BIRTH)

    def moved(self, home: Home) -> None:
        """There are no servers."""
        (home.root / ServersKey.FILE).unlink(missing_ok=True)


def _let_in(directory: Path, bridge: bytes) -> None:
    gate = GateFile.read(directory)
    msgspec.structs.replace(gate, bridge=bridge).write(directory)


WAYS: Final[dict[str, Way]] = {"nats": ToNats(), "dsmt": ToDsmt()}


def way_to(home: Home, engine: str) -> Way:
    """The way to an engine. Raises `RefusedError` where the realm of a home cannot begin to go it."""
    realm = home.realm()
    if engine == realm.engine:
        said = f"realm {realm.name} is carried by {engine} already"
        raise RefusedError("migrate.same", said, next="dsmt brokers shows what carries it")
    if home.is_joined:
        said = f"{home.root} has joined realm {realm.name}, which was made on another machine"
        raise RefusedError("migrate.machines", said, next="type it there: its members on other machines follow it")
    if home.moving() is None:
        WAYS[engine].check_home(home)
    return WAYS[engine]

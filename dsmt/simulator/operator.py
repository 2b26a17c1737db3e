"""A simulated operator: a person at the command line, who says one thing after the other by the real operations.

Rule 1: what is not acknowledged is said again until it is, as a person does who was told that it failed; every operation
    looks first, and one that is so already says nothing.
Rule 2: what was acknowledged enters `will`, which is the truth of this realm for the invariants.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dsmt.errors import DsmtError, NotFoundError
from dsmt.operations.connection import Connection
from dsmt.operations.offline.history import export
from dsmt.operations.read.waits import leaving
from dsmt.operations.words.targets import Target
from dsmt.operations.write import (
    applying,
    braking,
    brokers,
    clocks,
    controlling,
    declaring,
    node_control,
    nodesets,
    removing,
    revoking,
)
from dsmt.ports.bus import Bus
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.bus import running
from dsmt.programs.configuration import RealmConfig
from dsmt.simulator.engine.host import HostProcess
from dsmt.simulator.members import KeptMember
from dsmt.simulator.will import Will
from dsmt.simulator.world import World
from dsmt.spec.plain import from_plain

AGAIN_S: Final = 0.5
"""How long somebody takes to read an error and to type it again."""
GONE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Wish:
    """Something to be said: in words, how, and what is so once it is acknowledged.

    `once`: it is not said again. `moot`: whether there is nothing any more that it could be said of.
    """

    text: str
    act: Callable[[Bus], Awaitable[object]]
    then: Callable[[], None] = lambda: None
    once: bool = False
    moot: Callable[[], bool] = lambda: False


class SimOperator:
    """Somebody at a command line. `will` is what was acknowledged; `refused` says what went wrong last."""

    def __init__(self, world: World, name: str, address: str) -> None:
        self.world, self.name = world, name
        self.host = world.host(name, address)
        self.identity = world.identity(f"operator/{name}")
        self.will = Will()
        self.refused = ""
        self.said = 0
        self.bus: Bus | None = None
        self.exported: bytes | None = None
        """The history that was exported last."""
        self.kept = KeptMember(self.host, "operator", self._main)
        self._wishes: deque[Wish] = deque()
        self._some = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether everything that was asked for is acknowledged."""
        return not self._wishes

    @property
    def realm(self) -> RealmConfig:
        """What it is configured with."""
        realm = self.world.realm
        return RealmConfig(
            name=realm.name, roots=realm.roots, brokers=tuple((b.address, b.public) for b in self.world.brokers)
        )

    async def _main(self, process: HostProcess) -> None:
        self.trust = self.world.trust()
        self.bus = bus = self.world.client(process, self.identity, trust=self.trust)
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.run())
            group.create_task(self._work(bus))

    async def _work(self, bus: Bus) -> None:
        while True:
            while self._wishes:
                await self._say(bus, self._wishes[0])
            self._some.clear()
            await self._some.wait()

    async def _say(self, bus: Bus, wish: Wish) -> None:
        try:
            await wish.act(bus)
        except DsmtError as error:
            self.refused = f"{wish.text}: {error}"
            await asyncio.sleep(AGAIN_S)
            if not wish.once and not wish.moot():
                return
        else:
            wish.then()
            self.said += 1
        self._wishes.popleft()
        self.will.asked.pop(0)

    def _ask(self, wish: Wish) -> None:
        """Ask for something, from outside of all processes."""
        process = self.kept.process
        if process is None:
            raise RuntimeError("the operator does not run")
        self._wishes.append(wish)
        self.will.asked.append(wish.text)
        self.world.loop.call_in(process.sim, self._some.set)

    # --- what can be asked for -----------------------------------------------------------------------------------

    def announce(self, which: dict[str, BrokerAddress]) -> None:
        """Say where brokers are, and which of them are leaves."""
        self._ask(Wish("announce brokers", lambda bus: brokers.announce(bus, which, by=self.name)))

    def rotate(self) -> None:
        """Speak with a new key from now on, and have the root end the former one: what stands is signed anew before."""
        former, self.identity = self.identity, self.world.identity(self.identity.name)
        self.kept.kill()
        root = self.world.root_identity()

        async def ended(bus: Bus) -> None:
            if self.trust.is_revoked(former.key.key_id):
                return
            own = Connection(bus, self.identity, self.trust, self.realm, self.name, [])
            claim = await revoking.claim(own, former.key.key_id.hex())
            await revoking.sign_anew(own, claim, drop=())
            process = self.kept.process
            if process is None:
                raise RuntimeError("the operator does not run")
            client = self.world.client(process, root)
            async with running(client):
                speaking = Connection(client, root, self.trust, self.realm, self.name, [])
                await revoking.revoke(speaking, claim, by=self.name, reason="it was stolen")

        self._wishes.appendleft(Wish("end the former key", ended))
        self.will.asked.insert(0, "end the former key")

    def export(self) -> None:
        """Export the history of the broker that it is attached to."""

        async def exported(bus: Bus) -> None:
            written: list[bytes] = []
            await export(bus, self.trust, written.append)
            self.exported = b"".join(written)

        self._ask(Wish("export the history", exported))

    def apply(self, *specs: dict[str, Any], reason: str = "a simulation") -> None:
        """Apply specs, as plain values, with one command."""
        declared = [declaring.Declared(from_plain(spec), Path("/"), ()) for spec in specs]

        def applied() -> None:
            for spec in specs:
                self.will.applied(spec["service"], spec)

        said = f"apply {' '.join(spec['service'] for spec in specs)}"
        self._ask(Wish(said, lambda bus: applying.apply(bus, declared, by=self.name, reason=reason), applied))

    def remove(self, service: str) -> None:
        """Remove a service; one that is not there for `GONE_S` is removed."""
        missing = 0

        async def remove(bus: Bus) -> None:
            nonlocal missing
            try:
                await removing.remove(bus, service, by=self.name, reason="not needed")
            except NotFoundError:
                missing += 1
                if missing * AGAIN_S < GONE_S:
                    raise

        self._ask(Wish(f"remove {service}", remove, lambda: self.will.removed(service)))

    def await_end(self, service: str) -> None:
        """Say nothing more before nothing is left of a service, for as long as somebody has patience."""

        async def ended(bus: Bus) -> None:
            await leaving.gone(bus, service, limit_s=20.0)

        self._ask(Wish(f"wait for the end of {service}", ended, lambda: self.will.ended(service), once=True))

    def hold(self, slot: str) -> None:
        """Hold a slot."""
        self._ask(
            Wish(
                f"stop {slot}",
                lambda bus: controlling.stop(bus, Target.parse(slot), by=self.name, reason="a look at it"),
                lambda: self.will.holds(slot, held=True),
                moot=lambda: slot not in self.will.slots(),
            )
        )

    def unhold(self, slot: str) -> None:
        """Lift a slot's hold."""
        self._ask(
            Wish(
                f"start {slot}",
                lambda bus: controlling.start(bus, Target.parse(slot), by=self.name, reason="looked at"),
                lambda: self.will.holds(slot, held=False),
                moot=lambda: slot not in self.will.slots(),
            )
        )

    def use(self, node: str, mode: node_control.Mode) -> None:
        """Say how a node is to be used."""
        self._ask(
            Wish(
                f"{mode} {node}",
                lambda bus: node_control.set_mode(bus, node, mode, by=self.name, reason="a visit"),
                lambda: self.will.used(node, mode, self.world.loop.time()),
            )
        )

    def brake(self, *, held: bool) -> None:
        """Hold the brake, or release it."""
        act = braking.hold if held else braking.release
        self._ask(Wish("hold the brake" if held else "release the brake", lambda bus: act(bus, by=self.name, reason="")))

    def accept_clock(self, broker: str) -> None:
        """Have a broker take its machine's clock for realm time."""
        self._ask(Wish(f"accept the clock of {broker}", lambda bus: clocks.accept(bus, broker, by=self.name, reason="")))

    def define(self, name: str, expression: str) -> None:
        """Name a set of nodes."""
        self._ask(Wish(f"define {name}", lambda bus: nodesets.define(bus, name, expression, by=self.name)))

    def undefine(self, name: str) -> None:
        """Name a set of nodes no more."""
        self._ask(Wish(f"remove the node set {name}", lambda bus: nodesets.forget(bus, name, by=self.name, used=True)))

    def restart(self, target: str) -> None:
        """Have instances restarted."""
        self._ask(
            Wish(
                f"restart {target}",
                lambda bus: controlling.restart(bus, Target.parse(target), by=self.name, reason="why not"),
                once=True,
            )
        )

    def move(self, slot: str, node: str | None) -> None:
        """Have a slot on a node, or on any other than where it is."""
        self._ask(
            Wish(
                f"move {slot} to {node or 'another node'}",
                lambda bus: controlling.move(
                    bus, Target.parse(slot), node, accept_data_loss=False, by=self.name, reason="a visit"
                ),
                moot=lambda: slot not in self.will.slots(),
            )
        )

    def retry(self, target: str) -> None:
        """Have instances tried again at once: a command, not a lasting will."""
        entropy = self.host.entropy("operator")
        self._ask(
            Wish(
                f"retry {target}",
                lambda bus: controlling.retry(bus, Target.parse(target), by=self.name, reason="", entropy=entropy),
                once=True,
            )
        )

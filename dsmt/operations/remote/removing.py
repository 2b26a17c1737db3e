"""Removing nodes of this home, or added over SSH, with all that was made for them, and forgetting those that are gone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from dsmt.errors import InputError, NotFoundError, TimedOutError, TransportError
from dsmt.event.phrases import some
from dsmt.operations.connection import Connection
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.members import brokers
from dsmt.operations.local.members.servers import check_left, emptied
from dsmt.operations.local.processes.ending import end_node
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.holding import Undrained, data_on, left_on
from dsmt.operations.read.rows.node_rows import find_node
from dsmt.operations.read.waits.waiting import until
from dsmt.operations.remote.adding import ALIVE_S
from dsmt.operations.remote.hosts import address_of, reached
from dsmt.operations.remote.places import NodePlace, TellOfHost, check_found, keep_place, places
from dsmt.operations.remote.wheels import unit_texts
from dsmt.operations.words.telling import Tell
from dsmt.operations.write import node_control
from dsmt.operations.write.brokers import announced
from dsmt.operations.write.node_control import Controlled
from dsmt.system.removing import remove_or_empty


async def remove(
    connection: Connection, home: Home, node: str, place: NodePlace, *, reason: str, sure: bool, tell: TellOfHost
) -> Controlled:
    """Remove a node and all that was made on its host, then forget it.

    Raises `InputError` where instances are on it, or their data is, unless who asks is `sure`, and what reaching the host
    may raise.
    """
    removal = _Removal(connection, home, node, reason, partial(tell, place.host))
    await removal.check_free(sure=sure)
    await removal.forget_broker(place)
    tell(place.host, "connects")
    try:
        await removal.clear(place)
    except TransportError as error:
        advice = f"{error.next}; if the machine is gone: dsmt node remove {node} --forget"
        raise TransportError(error.code, error.message, next=advice) from error
    return await removal.forget_ended()


async def remove_own(connection: Connection, home: Home, node: str, *, reason: str, sure: bool, waits: Tell) -> Controlled:
    """End a node of this home, with what runs there, forget it, and remove its directory, with the data that is there.

    Raises `InputError` where instances are on it, or their data is, unless who asks is `sure`.
    """
    removal = _Removal(connection, home, node, reason, waits)
    async with alone(home, waits):
        await removal.check_free(sure=sure)
        if home.part("nodes", node).exists():  # else who typed the same elsewhere has ended it, and was waited for
            await end_node(home, node)
            remove_or_empty(str(home.part("nodes", node)))
        try:
            return await removal.forget_ended()
        except NotFoundError:
            return _never_heard(node)


async def forget(connection: Connection, home: Home, node: str, *, reason: str, sure: bool, waits: Tell) -> Controlled:
    """Say that a node has left for good, and the broker beside it, and forget where they were."""
    return await _Removal(connection, home, node, reason, waits).forget(sure=sure)


class _Removal(NamedTuple):
    """The removal of one node: as whom and from which home that is done, and why. `waits` is told what is waited for."""

    connection: Connection
    home: Home
    node: str
    reason: str
    waits: Tell

    async def check_free(self, *, sure: bool) -> None:
        """Raise `InputError` where instances are on the node, or their data is, unless who asks is `sure`."""
        sight = await look(self.connection.bus)
        left, data = left_on(sight, self.node), data_on(sight, self.node)
        if (left or data) and not sure:
            raise _dead(self.node) if sight.fleet.state(self.node) == "dead" else _busy(self.node, left, data)

    async def clear(self, place: NodePlace) -> None:
        """End what runs on the node's host, and remove all that was made there."""
        realm = self.connection.realm
        async with reached(address_of(place.host), for_user=place.user) as host:
            self.waits(f"removes {self.node}")
            units, root = {} if place.user else unit_texts(), realm.roots[0].hex()
            told = {**place.paths, "build": "", "units": units, "root": root}
            check_found(host.address, realm.name, await host.do("state", told))
            await host.do("remove", told)
        if "controller" in place.roles:  # else one of this name is another machine's
            notes.drop(self.home.issuers, self.node)

    async def forget_ended(self) -> Controlled:
        """Forget the node, which was ended, once nobody hears it.

        Raises `TimedOutError` where somebody is heard for long: that is another machine.
        """
        try:
            await until(
                self.connection.bus,
                lambda sight: not self._is_heard(sight) or None,
                limit_s=ALIVE_S,
                unmet=f"{self.node} is still heard",
                look="dsmt nodes",
            )
        except TimedOutError as error:
            other = f"if another machine has its name: dsmt cert revoke node/{self.node}, of that one's key, then this again"
            raise TimedOutError(error.code, error.message, next=f"{error.next}; {other}") from error
        return await self.forget(sure=True)

    def _is_heard(self, sight: Sight) -> bool:
        with suppress(NotFoundError):
            find_node(sight, self.node)
            return sight.fleet.state(self.node) in ("alive", "suspect")
        return False

    async def forget(self, *, sure: bool) -> Controlled:
        """Say that it has left for good, and the broker beside it, and forget where they were."""
        node, by, bus = self.node, self.connection.by, self.connection.bus
        place = places(self.home).get(node)
        if place is not None and self._serves(place) and self.connection.realm.nats is not None:
            await check_left(bus, node, await announced(bus), self.waits)
        ends = _ends(self.home, node, place)
        freed = await node_control.free(bus, node, by=by, reason=self.reason)
        try:
            done = await node_control.remove(bus, node, by=by, reason=self.reason, sure=sure, ends=ends)
        except NotFoundError:
            if place is None and not freed:
                raise
            done = _never_heard(node)
        if place is not None:
            await self.forget_broker(place)
            await keep_place(self.home, node, None)
        return done

    def _serves(self, place: NodePlace) -> bool:
        """Whether a broker is on the host: one of this home, of the same name, is none of it."""
        return "broker" in place.roles and self.node not in self.home.names("brokers")

    async def forget_broker(self, place: NodePlace) -> None:
        """Say that the broker of the host is none any more, unless that was said. Raises `RefusedError` for the last."""
        bus, by = self.connection.bus, self.connection.by
        if self._serves(place):
            with suppress(NotFoundError):
                await brokers.remove(self.home, bus, self.node, by=by, reason=self.reason, waits=self.waits)
            if self.connection.realm.nats is not None:  # it may have been said before, by who was interrupted
                await emptied(bus, self.connection.realm, self.node)


def _dead(node: str) -> InputError:
    """That nobody hears of a node with instances: most likely its machine is gone."""
    advice = f"dsmt node remove {node} --forget, if its machine is gone; or --yes: that ends all there, data too"
    return InputError("node.dead", f"{node} is dead; nothing was done", next=advice)


def _busy(node: str, left: Sequence[Undrained], data: Sequence[str]) -> InputError:
    """What keeps a node from being removed; what no drain moves is named first, for its data goes with the node."""
    if not left:
        said = f"the data of {some(data)} is on {node}; nothing was done"
        return InputError("node.busy", said, next="copy that data; then --yes, which removes it")
    first = next((one.instance for one in left if one.stays), left[0].instance)
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    if data:
        are, them = ("are", "them") if more else ("is", "it")
        said = f"{first}{more} {are} on {node}, and the data of {some(data)} with {them}; nothing was done"
        advice = f"copy that data; then --yes, which ends {them} there and removes it"
    else:
        said = f"{first}{more} {'run' if len(left) > 1 else 'runs'} on {node}; nothing was done"
        advice = f"dsmt node drain {node} first; or --yes, which ends them there"
    return InputError("node.busy", said, next=advice)


def _never_heard(node: str) -> Controlled:
    return Controlled(node=node, mode="removed", changed=True, version=0, instances=0)


def _ends(home: Home, node: str, place: NodePlace | None) -> str:
    """How a node is ended that is alive: where it was added, in this home, or on the machine that has joined."""
    if place is not None:
        return f"dsmt node remove {node}, without --forget, which ends it on its host"
    if home.part("nodes", node).exists():
        return f"dsmt node remove {node}, without --forget, which ends it"
    there = f"on its machine: dsmt down, or stop its units; then this again; where it was added: dsmt node remove {node}"
    return f"{there}; of a machine that you do not have: dsmt cert revoke node/{node}, then this again"

"""Pinning: a slot that keeps data stays with the disk that holds it (rule A17).

Rule 1: the slot fact names its `home`: the node, and the id of the key that it had when its data directory was made, which
    stays when that key is rotated. Another machine that comes up under the node's name has an empty disk and another key:
    it is not home, and starts nothing.
Rule 2: neither the death of its node, nor a drain, an exclusion or another node set moves it: it waits, and a person is
    told. It moves when an operator asks for that and accepts the loss of the data, which is used up by that one move.
Rule 3: a slot that was ended and is wanted again comes back to its home; so does one of a service that was removed and is
    applied again (`good`, rule 3).
Rule 4: one of `each_node` ends with its node and is never elsewhere; but it begins on no other machine of that name either,
    until an operator accepts the loss of its data: that is a move to where it is.
Rule 5: one of which no fact is known, of a service that is older than what the store tells, may have data on a node that is
    yet to bring that fact back: it is placed nowhere until its node had `RETURN_MS` for it, and no fact is said of it.
"""

from __future__ import annotations

from dsmt.event.kinds.slot import DataHome, Slot
from dsmt.event.reason import Reason, reason
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet, ServiceEntry, SlotEntry, SlotKey
from dsmt.view.liveness import RETURN_MS


def is_there(fleet: Fleet, home: DataHome) -> bool:
    """Whether the machine of a home's name is the one that has the data, as far as is known."""
    return fleet.is_machine(home.node, home.key)


def is_replaced(fleet: Fleet, told: Slot) -> bool:
    """Whether a slot is where another machine has the name of the one that has its data: nothing begins there (rule 1)."""
    return told.home is not None and told.home.node == told.node and not is_there(fleet, told.home)


def settled(fleet: Fleet, before: DataHome | None, node: str | None, *, moves: bool) -> DataHome | None:
    """The home that the next fact of a pinned slot names; `moves` leaves the one `before` behind."""
    if node is None or (before is not None and before.node == node and not moves):
        return before
    return DataHome(node=node, key=fleet.key_of(node))


def lets_go(slot: SlotEntry) -> bool:
    """Whether the operator's move of a slot that is not done yet accepts the loss of its data."""
    return slot.move_asked is not None and slot.control is not None and slot.control.record.accept_data_loss


def is_bound(fleet: Fleet, component: ComponentSpec, home: DataHome | None, slot: SlotEntry) -> bool:
    """Whether no operator's move is done of a slot: its data would be left behind, or it is one of each node (rule 4)."""
    if home is not None and not lets_go(slot):
        return True
    return component.each_node and (home is None or is_there(fleet, home))


def may_return_until(fleet: Fleet, service: ServiceEntry, component: ComponentSpec, slot: SlotEntry) -> int | None:
    """Until when (realm ms) a node may bring back that it has a slot's data (rule 5); None where nobody waits for that."""
    if component.on_partition != "pinned" or component.each_node or slot.fact or lets_go(slot):
        return None
    since = fleet.told_since_ms
    if since is None or fleet.now_ms >= since + RETURN_MS:
        return None
    return since + RETURN_MS if _is_older(service, since) else None


def _is_older(service: ServiceEntry, than_ms: int) -> bool:
    """Whether a service was there before that: a fact of it was said then, or one that its spec replaces."""
    replaced = None if service.spec is None else service.spec.signed.event.replaces
    if replaced is not None and replaced.incarnation < than_ms:
        return True
    facts = (service.spec, *(slot.fact for slot in service.slots.values()))
    return any(fact is not None and fact.time_ms < than_ms for fact in facts)


def away(fleet: Fleet, key: SlotKey, home: DataHome, component: ComponentSpec) -> Reason | None:
    """Why a pinned slot cannot run at its home: the machine that has the data is not there; None when it is."""
    state = fleet.state(home.node)
    if not is_there(fleet, home):
        is_now = "is another machine now, with another key"
    elif state in ("dead", "left") and not component.each_node:
        is_now = "is dead" if state == "dead" else "has left"
    else:
        return None
    return reason("wait.pinned", node=home.node, is_now=is_now, target=key)

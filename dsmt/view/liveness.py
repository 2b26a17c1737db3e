"""Liveness: whether a node is alive, suspect, dead or left, told from facts and the time (rule F1, F2, F4).

Rule 1: `dead` and `left` are facts: a node's verdict, until one of its sources has a greater attachment than judged.
Rule 2: else a node is `alive` while an attachment of any of its sources is open, or became unknown (its broker was
    lost) less than `REATTACH_GRACE_MS` ago; otherwise it is `suspect`: nobody places anything there, nothing is moved.
Rule 3: its sources are its manager, its monitor, and the agents of containers that are not gone: what is left of the
    session of an agent that left says nothing, unless it is open.
Rule 4: an agent of which nothing was heard for `UNHEARD_AFTER_MS` in which another source of its node was heard is unheard:
    what it has said may be so no more. When all of a node is silent, that says nothing of its agents. It hangs where it is
    silent; where it has closed it is being started again, or cannot be; where its broker is lost it may live there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from math import inf, log10
from typing import Final, Literal

from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.node import NodeControl, NodeVerdict
from dsmt.event.slots import SlotKey, index_of
from dsmt.view.entries import NodeEntry
from dsmt.view.held import Held
from dsmt.view.sessions import AttachmentState, word
from dsmt.view.view import View

Liveness = Literal["alive", "suspect", "dead", "left"]

REATTACH_GRACE_MS: Final = 10_000
RETURN_MS: Final = 120_000
"""How long a node has to come back to a store that begins anew, before it and its data are taken for lost: a reboot."""
UNHEARD_AFTER_MS: Final = 10_000
OBSERVERS: Final = 3
"""How many nodes probe one that nobody hears (F6)."""
ROLES: Final = ("node", "monitor")
"""The sources whose sessions tell that nobody hears a node: its manager and its monitor. Its agents are too many."""
PROBE_S: Final = 2.0
"""A probe's period while a silence is young (F4)."""
LATE_PROBE_S: Final = 60.0
"""That of an old one, and the longest that counts."""
BACK_MS: Final[Mapping[str, float]] = {"closed": 30_000, "silent": 90_000}
"""By then a program of a node that has ended, or hangs, is begun anew and attached again (C6, C15)."""
NAMED_MOST: Final = 128
"""Attachments that a verdict names: with the longest names they fit into an event."""


def dead_after_ms(nodes: int) -> int:
    """How long a node of so many must be silent to be dead: the greater of 5 s and 4 s x log10 (F2)."""
    return max(5_000, round(4_000 * log10(max(1, nodes))))


def judged(entry: NodeEntry) -> tuple[dict[str, int], int]:
    """The attachments that a verdict on a node judges: by source, agents last; and the sum of those of all others."""
    order = sorted(entry.sources, key=lambda source: (source.startswith("agent/"), source))
    named, others = order[:NAMED_MOST], order[NAMED_MOST:]
    return (
        {source: entry.sources[source].attachment for source in named},
        sum(entry.sources[source].attachment for source in others),
    )


class Fleet:
    """The nodes of a view at one time, as seen by a reader attached to the broker `attached`."""

    def __init__(self, view: View, now_ms: int, attached: str = "") -> None:
        self.view = view
        self.now_ms = now_ms
        self.lost_brokers = dict(view.sessions.lost(attached))
        self._states: dict[str, Liveness] = {}

    @cached_property
    def node_words_ms(self) -> int:
        """When the last of the operators' words that stand on nodes and node sets was said (realm ms); 0 for none."""
        return max(self.view.node_words.values(), default=0)

    def state(self, node: str) -> Liveness:
        """A node's liveness; `suspect` for one that nothing is known of: absence is never an order (R4)."""
        state = self._states.get(node)
        if state is None:
            entry = self.view.nodes.get(node)
            state = self._states[node] = "suspect" if entry is None else self._judge(entry)
        return state

    def knows(self, node: str) -> bool:
        """Whether a node has said anything of itself, or a broker of its sessions."""
        entry = self.view.nodes.get(node)
        return entry is not None and (entry.attributes is not None or bool(entry.sources))

    def return_until_ms(self, node: str) -> int | None:
        """Until when (realm ms) a node may come back of which only what is to run there is known; None for others (R4).

        It counts from when this store began, and from when the first of what is to run there was decided: that may have
        come here before what its node says.
        """
        view = self.view
        if node not in view.allocations.unequipped or self.knows(node) or self.told_since_ms is None:
            return None
        decided = (slot.fact.time_ms for slot in map(view.slot, view.allocations.node(node).slots) if slot and slot.fact)
        return max(self.told_since_ms, min(decided, default=0)) + RETURN_MS

    def key_of(self, node: str) -> str:
        """The id of the key of a node's data; empty while it is not known."""
        entry = self.view.nodes.get(node)
        return "" if entry is None or entry.attributes is None else entry.attributes.record.key

    def is_machine(self, node: str, key: str) -> bool:
        """Whether the machine of a node's name is the one that had a key, as far as is known."""
        return not key or self.key_of(node) in ("", key)

    def drain_of(self, node: str) -> Held[NodeControl] | None:
        """An operator's word by which a node is drained; None where it is not."""
        entry = self.view.nodes.get(node)
        return entry.control if entry is not None and entry.mode == "draining" else None

    def is_lost(self, node: str) -> bool:
        """Whether a node is dead or has left: what it had is to run elsewhere."""
        return self.state(node) in ("dead", "left")

    def _judge(self, entry: NodeEntry) -> Liveness:
        verdict = self.verdict(entry.name)
        if verdict is not None:
            return verdict.record.state
        said = (word(attachments, self.lost_brokers) for attachments in entry.sources.values())
        if any(one is not None and one.state == "open" for one in said):  # mostly, and of any of its sources it is enough
            return "alive"
        return "alive" if any(map(self.in_grace, self.words(entry.name))) else "suspect"

    def word_of(self, source: str) -> AttachmentState[Held[SessionFact]] | None:
        """What counts of a source's session (F1); None where nothing is known of it."""
        attachments = self.view.sessions.of.get(source)
        return None if attachments is None else word(attachments, self.lost_brokers)

    def hears(self, node: str) -> bool:
        """Whether what is said here may come to a node's manager: it is at no broker that is lost here (F1).

        One that is away for a moment comes back, and reads what was said meanwhile.
        """
        said = self.word_of(f"node/{node}")
        return said is None or said.state != "unknown" or self.in_grace(said)

    def away_from_ms(self, source: str) -> float:
        """From when on (realm ms) a program of a node is away for longer than it takes to begin it anew; `inf` for never."""
        said = self.word_of(source)
        return inf if said is None else said.since_ms + BACK_MS.get(said.state, inf)

    def is_away(self, source: str) -> bool:
        """Whether a program of a node has ended, or hangs, for longer than it takes to begin it anew."""
        return self.now_ms > self.away_from_ms(source)

    @cached_property
    def next_away_ms(self) -> tuple[int, ...]:
        """When (realm ms) the next of the managers that are gone is away for so long; none where none is."""
        found = (self.away_from_ms(f"node/{node}") for node in self.view.nodes)
        ahead = [int(at) + 1 for at in found if self.now_ms <= at < inf]
        return (min(ahead),) if ahead else ()

    def words(self, node: str) -> list[AttachmentState[Held[SessionFact]]]:
        """What counts of each of a node's sources (rule 3), the manager's first."""
        entry = self.view.nodes.get(node)
        if entry is None:
            return []
        order = sorted(entry.sources, key=lambda source: (source != f"node/{node}", source))
        found = ((source, word(entry.sources[source], self.lost_brokers)) for source in order)
        return [w for source, w in found if w is not None and (w.state == "open" or self._is_there(source))]

    def _is_there(self, source: str) -> bool:
        """Whether a source is one that its node still has."""
        role, node, *slot = source.split("/")
        if role != "agent":
            return True
        index = index_of(slot[2]) if len(slot) == 3 else None
        instance = None if index is None else self.view.slot(SlotKey(slot[0], slot[1], index)).instances.get(node)
        return instance is not None and instance.left

    def is_unheard(self, agent: str) -> bool:
        """Whether what an agent has said may be so no more (rule 4)."""
        return self._is_unheard(agent, ("silent", "closed", "unknown"), UNHEARD_AFTER_MS)

    def apart_at(self, broker: str) -> list[str]:
        """Which sources of nodes that live have come to no other broker since this one was lost, sorted."""
        words = ((source, self.word_of(source)) for source in sorted(self.view.sessions.of))
        at = [(source.split("/"), one) for source, one in words if one is not None and one.broker == broker]
        away = [parts for parts, one in at if one.state == "unknown" and not self.in_grace(one)]
        return ["/".join(parts) for parts in away if parts[0] in (*ROLES, "agent") and self.state(parts[1]) == "alive"]

    def is_closed(self, source: str) -> bool:
        """Whether what a source said last is of a process that has ended, as far as is known."""
        said = self.word_of(source)
        return said is not None and said.state == "closed"

    def hangs(self, agent: str, for_ms: int) -> bool:
        """Whether an agent has been silent for so long though its node was heard (rule 4)."""
        return self._is_unheard(agent, ("silent",), for_ms)

    def _is_unheard(self, agent: str, states: Collection[str], for_ms: int) -> bool:
        said = self.word_of(agent)
        if said is None or said.state not in states:
            return False
        heard = [one.since_ms for one in self.words(agent.split("/")[1]) if one.state == "open"]
        return bool(heard) and self.now_ms >= max(said.since_ms, min(heard)) + for_ms

    def in_grace(self, word: AttachmentState[Held[SessionFact]]) -> bool:
        """Whether a source whose broker was lost may still attach elsewhere (F1)."""
        return word.state == "unknown" and self.now_ms < word.since_ms + REATTACH_GRACE_MS

    def verdict(self, node: str) -> Held[NodeVerdict] | None:
        """The verdict on a node, unless a greater attachment has undone it."""
        return self.view.standing.get(node)

    def lost_since(self, node: str) -> int:
        """Since when a node is lost (realm ms), by the verdict on it; now where there is none."""
        verdict = self.verdict(node)
        return self.now_ms if verdict is None else verdict.record.since_ms

    def contested_until_ms(self, node: str) -> int:
        """Until when (realm ms) nobody acts on a death by silence, for a broker that lives has heard the node (F4).

        Such a verdict comes from the other side of a cut; the node hears of it, and undoes it. 0 where nothing is contested.
        """
        verdict, entry = self.verdict(node), self.view.nodes.get(node)
        if verdict is None or verdict.record.road != "silent" or entry is None:
            return 0
        manager = entry.sources.get(f"node/{node}")
        if manager is None or manager.newest is None or manager.newest[0] in self.lost_brokers:
            return 0
        session = manager.newest[1].record
        if session.state == "open":
            return self.now_ms + REATTACH_GRACE_MS
        return session.since_ms + REATTACH_GRACE_MS if session.since_ms > verdict.time_ms else 0

    @property
    def in_doubt(self) -> list[str]:
        """The nodes that may be dead and are not judged, sorted: their manager's session is not open, or its broker lost."""
        held = (self.view.managers_by_broker.get(broker, ()) for broker in self.lost_brokers)
        return sorted(self.view.not_open.union(*held) - self.view.standing.keys())

    @cached_property
    def members(self) -> tuple[str, ...]:
        """The nodes of the realm, sorted: those with attributes that have not left."""
        return tuple(sorted(self.view.equipped - self.view.gone))

    @cached_property
    def speaking(self) -> tuple[str, ...]:
        """Up to two nodes that are alive: enough to know whether there is another one."""
        found: list[str] = []
        for node in sorted(self.view.nodes):
            if self.state(node) == "alive":
                found.append(node)
                if len(found) == 2:
                    break
        return tuple(found)

    @cached_property
    def told_since_ms(self) -> int | None:
        """Since when this store's brokers tell of sessions, at the latest; None while they tell of none.

        Nobody else brings their words on sessions back: those in a store that was lost are lost with it.
        """
        words = (held for known in self.view.sessions.of.values() for held in known.words.values())
        return min((held.record.since_ms for held in words), default=None)

    @property
    def dead_after_ms(self) -> int:
        """F2's time for a realm of this size, in ms."""
        view = self.view
        return dead_after_ms(len(view.equipped) - len(view.gone & view.equipped))

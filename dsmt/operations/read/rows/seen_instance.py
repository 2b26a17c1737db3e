"""A seen instance: what is known now of a slot's instance on a node. Its row and its reason are told from that."""

from __future__ import annotations

from dsmt.controllers.pinning import is_replaced
from dsmt.event.kinds.instance import Status
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.view import SlotKey
from dsmt.view.held import Held
from dsmt.view.served import served
from dsmt.view.shown import FAILED, bars, decisive, shown, silent_for


class SeenInstance:
    """Of a slot, and a node; None where it has none. `state` is the word for it, since `since_ms`, by what `status` says.

    `instance` is all that is said of it, but what came from a machine since replaced under the same name, and silent.
    """

    def __init__(self, sight: Sight, key: SlotKey, node: str | None) -> None:
        self.sight, self.key, self.node, self.entry = sight, key, node, sight.view.slot(key)
        self.spec, verdict = sight.spec_of(key), None if node is None else sight.fleet.verdict(node)
        place = None if self._is_of_another_machine() else node
        self.instance = None if place is None else self.entry.instances.get(place)
        self.silent_since_ms = self._silent_since_ms()
        self.state, self.since_ms, self.status = shown(
            self.entry,
            place,
            lost_since_ms=None if verdict is None else verdict.record.since_ms,
            silent_since_ms=self.silent_since_ms,
            job=self.spec is not None and self.spec.kind == "job",
        )

    def _is_of_another_machine(self) -> bool:
        said, fact = self.entry.application(self.node), self.entry.fact
        if said is None or fact is None or fact.record.desired != "running":
            return False
        if not is_replaced(self.sight.fleet, fact.record):
            return False
        word = self.sight.fleet.word_of(said.signed.event.source)
        return word is None or word.state != "open"

    def _silent_since_ms(self) -> int | None:
        """Since when whoever speaks of it has been silent, if that is too long; else None."""
        held = decisive(self.instance, 0 if self.entry.fact is None else self.entry.fact.version)
        said = None if held is None else self.sight.fleet.word_of(held.signed.event.source)
        if held is None or said is None or not silent_for(held.record, said.state, said.since_ms, self.sight.now_ms):
            return None
        return said.since_ms

    @property
    def application(self) -> Held[Status] | None:
        """What is said of its program."""
        return None if self.instance is None else self.instance.application

    @property
    def last_pid(self) -> int | None:
        """The pid of the program that its agent told of last."""
        return None if self.application is None else self.application.record.pid

    @property
    def is_unheard(self) -> bool:
        """Whether the source that reports on the program is not heard: what it said last may not be true any more."""
        return self.application is not None and self.sight.fleet.is_unheard(self.application.signed.event.source)

    @property
    def is_agentless(self) -> bool:
        """Whether the state that is shown is that its agent cannot be started."""
        return self.state in (Shown.BACKOFF, Shown.FAILED) and self.status is not None and bars(self.status.record)

    @property
    def serves_on(self) -> bool:
        """Whether a copy is served there beside which a try has failed."""
        if self.state not in FAILED or self.is_agentless:
            return False
        found = served(self.sight.fleet, self.entry)
        return found is not None and found.node == self.node

    @property
    def health(self) -> str:
        """`ready`, `unready`, `unknown` of an agent that is unheard, or `none` when nothing is known or nothing is checked.

        Of what has failed it is that of the copy that is served meanwhile.
        """
        if self.serves_on:
            return "ready"
        if self.is_agentless and self.last_pid:
            return "unknown"
        checked = None if self.instance is None else self.instance.health
        if self.state is not Shown.RUNNING or checked is None or self.status is None:
            return "none"
        if checked.record.generation < self.status.record.generation:
            return "none"
        return "unknown" if self.is_unheard else checked.record.health

"""Publishing: what sessions have published in one turn is stored in one commit, and answered (D1).

Rule 1: what is accepted is acknowledged once it is stored, at once or when another broker has it (`copied`); what is refused
    is refused for good, with the reason.
Rule 2: where the disk is full nothing is answered: who published is sent away, and keeps what it said.
"""

from __future__ import annotations

from collections.abc import Callable

from dsmt.bus.broker.copied import Copied
from dsmt.bus.broker.introductions import Send
from dsmt.bus.broker.receipts import acked, nacked
from dsmt.bus.broker.recorder import Recorder
from dsmt.bus.broker.session import Session
from dsmt.bus.rules.validator import HARMLESS
from dsmt.bus.wire import frames as f
from dsmt.errors import DsmtError, FailedError, RefusedError
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.ports.store import Log

Published = dict[tuple[Session, f.Publish], list[bytes]]


def full(broker: str, error: FailedError | None) -> RefusedError:
    """Why a broker takes nothing, by what its store said."""
    if error is None:
        return RefusedError("store.full", f"the store of {broker} is full", next="free space on its disk")
    return RefusedError("store.full", f"the store of {broker} {error.fields.get('what', 'is full')}", next=error.next)


def tellable(error: DsmtError) -> DsmtError:
    """What is said to a session. Raises what is none of its business: the store is damaged, and the broker ends (B11)."""
    if error.code == "store.damaged":
        raise error
    return error


class Publishing:
    """Of the broker of this name. `commit` stores what is pending, and says whether that could be."""

    def __init__(
        self,
        name: str,
        store: Log,
        clock: Clock,
        *,
        recorder: Recorder,
        copied: Copied,
        send: Send,
        refuse: Callable[[Session, DsmtError], None],
        commit: Callable[[], bool],
    ) -> None:
        self._name, self._store, self._clock, self._recorder, self._copied = name, store, clock, recorder, copied
        self._send, self._refuse, self._commit, self._log = send, refuse, commit, Logger(broker=name)

    def store(self, published: Published) -> None:
        """Take in what came, store it, and answer."""
        outcomes = []
        for (session, frame), parts in published.items():
            outcome = self._recorder.ingest.offered(session.name, parts, again=frame.offered, granted=session.incarnation)
            outcomes.append((session, outcome))
        if not self._commit():
            for session, _ in outcomes:
                self._refuse(session, full(self._name, self._recorder.full))
            return
        now = self._clock.boottime()
        if any(outcome.refilled for _, outcome in outcomes):
            self._recorder.wholeness.refilled(now)
        early_ms = max(outcome.early_ms for _, outcome in outcomes) if outcomes else 0
        if early_ms:
            self._recorder.wholeness.early(now)
            self._recorder.time.early(early_ms)
        for session, outcome in outcomes:
            for ranges in filter(None, (outcome.accepted, outcome.brought)):
                record = acked(ranges, self._store, self._recorder.time.now_ms())
                self._copied.acknowledge(session, record, now, counts=ranges is outcome.accepted)
            wanted = self._recorder.ingest.holes.wanted(session.name)
            if wanted is not None:
                self._send(session, f.Missing(incarnation=wanted[0], ranges=wanted[1]), ())
            for refusal in outcome.refused:
                error = refusal.error
                log = self._log.info if error.code in HARMLESS else self._log.warning
                log("event refused", session=session.name, code=error.code, reason=error.message)
                self._send(session, nacked(session.name, refusal, self._recorder.time.now_ms()), ())

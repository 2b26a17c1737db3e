"""Attached brokers: which other brokers are attached to this one, and with which it is linked, either way."""

from __future__ import annotations

from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.others.holders import Holders
from dsmt.bus.broker.recorder import Recorder
from dsmt.bus.broker.session import Session
from dsmt.bus.broker.sessions import Sessions
from dsmt.bus.wire.handshake import has_ended


class AttachedBrokers:
    """Of one broker: of its sessions those of other brokers of the realm."""

    def __init__(self, sessions: Sessions, recorder: Recorder, holders: Holders, fan_out: FanOut) -> None:
        self._sessions, self._recorder, self._holders, self._fan_out = sessions, recorder, holders, fan_out

    @property
    def copies(self) -> list[Session]:
        """The sessions of those that keep a copy of everything, and have had all that is here."""
        return list(filter(self._holders.readings.is_other, self._fan_out.copying))

    def stored_by(self, broker: str) -> int | None:
        """Up to which row another broker has said to hold all that is here; None where it keeps no copy now."""
        return next((one.stored for one in self.copies if one.name == broker), None)

    @property
    def any_believed(self) -> bool:
        """Whether one is attached here whose certificate has not ended."""
        now_ms = self._recorder.time.now_ms()
        certified = ((one, one.certificate) for one in self.copies if one.certificate is not None)
        return any(not has_ended(own, now_ms) and self._is_here(one) for one, own in certified)

    @property
    def is_linked(self) -> bool:
        """Whether another broker is read, or reads this one."""
        return bool(self._holders.readings.readers) or any(map(self._is_here, self.copies))

    def is_meshed(self, *, leaf: bool) -> bool:
        """Whether another one is read, and one reads this one; so is a `leaf`, or who is the only broker that is none.

        So is who is linked to one that stores nothing (`copied`, rule 6): with that nobody fares better.
        """
        readings = self._holders.readings
        mesh = {one.public for one in readings.known if not one.leaf}
        if leaf or not mesh:
            return True
        there = (one for one in self._fan_out.copying if not one.refused)
        reads = (one for one in there if self._is_here(one) or readings.lacks(one.name))
        by = {one.certificate.public for one in reads if one.certificate is not None}
        return bool(mesh & by) and bool(mesh & readings.linked)

    def is_attached(self, public: bytes) -> bool:
        """Whether the leaf of a key is attached here, and not silent: until that is said all at it is unknown (F1)."""
        names = (name for name, key in self._holders.leaves.items() if key == public)
        found = [one for name in names if (one := self._sessions.by_name.get(name)) is not None and self._is_here(one)]
        return any(one.certificate is not None and one.certificate.public == public for one in found)

    def _is_here(self, session: Session) -> bool:
        """Whether another broker is attached here, and not silent."""
        record = self._recorder.sessions.presence.record_of(session.name)
        return record is not None and record.state == "open" and session.refused is False

"""The status publisher: how a container manager says one layer's statuses of one slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsmt.agents.rules.container import NodeConfig
from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import Status
from dsmt.event.reason import Reason
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer, State
from dsmt.monitors.rules.install import InstallMonitor
from dsmt.ports.bus import Bus, Draft, Emission


class StatusPublisher:
    """Says one layer's statuses of one slot; each state is told with what is so `about` it then."""

    def __init__(
        self, bus: Bus, slot: SlotKey, config: NodeConfig, layer: Layer, about: Callable[[], dict[str, Any]] = dict
    ) -> None:
        self.monitor = InstallMonitor(layer, node=config.node, emit_rate_s=config.heartbeat_s)
        self.last: Emission | None = None
        self._bus = bus
        self._slot = slot
        self._about = about
        self._topic = slot.status_topic(config.node, layer)
        if not bus.attachment:  # afterwards there is nothing to put right
            bus.on_time_known.append(self.monitor.put_right)

    def tell(
        self, state: State, *, why: Reason | None = None, cause: tuple[EventId | Emission, ...] = (), **about: Any
    ) -> None:
        """Pass to a state, saying each on the way."""
        self._say(self.monitor.pass_to(state, self._bus.now_ms(), reason=why, **{**self._about(), **about}), cause)

    def note(self, **about: Any) -> None:
        """Say something new about the present state."""
        self._say(self.monitor.note(self._bus.now_ms(), **about), ())

    def resume(self, state: State, *, said: bool = True, **about: Any) -> None:
        """Go on from what an earlier manager had said, and say it again unless `said` is False."""
        self.monitor.resume(state, self._bus.now_ms(), **{**self._about(), **about})
        if said:
            self.again()

    def again(self) -> None:
        """Say the present status once more."""
        self._say(self.monitor.again(self._bus.now_ms()), ())

    def renew(self) -> None:
        """Say it once more if half of its time to live has passed."""
        self._say(self.monitor.renew(self._bus.now_ms()), ())

    def _say(self, statuses: list[Status], cause: tuple[EventId | Emission, ...]) -> None:
        own = tuple(self.monitor.own_times)
        for status in statuses:
            draft = Draft(self._topic, to_data(status), subject=str(self._slot), cause=cause, own_times=own)
            self.last = self._bus.emit(draft)

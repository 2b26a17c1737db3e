"""Serving: an instance's health and endpoint as facts, and what the health monitor's effects change of them."""

from __future__ import annotations

from typing import Any, Literal

from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.reporting import Reporter
from dsmt.agents.rules.served import Input, Said, Served
from dsmt.agents.rules.taking_turns import Turn
from dsmt.event.kinds.instance import STARTED, Endpoint, Health
from dsmt.event.reason import Reason
from dsmt.monitors.rules.health import Broken, Starting
from dsmt.ports.bus import Bus

Word = Literal["ready", "unready", "none"]


class Serving:
    """Says whether an instance may be served, and where."""

    def __init__(self, address: str, bus: Bus, memory: Memory, reporter: Reporter) -> None:
        self._address = address
        self._bus = bus
        self._memory = memory
        self._reporter = reporter
        self._served = Served()
        self._told: Health | None = None

    def begin(self) -> None:
        """A run has been started: it is not ready yet."""
        told = self._told
        if told is None or (told.generation, told.evidence) != (self._memory.record.run_generation, STARTED):
            self._say("unready", evidence=STARTED)

    def ready(self, *, check: str, evidence: str, checked: bool = True) -> None:
        """Serve it. Without any check its health is `none`."""
        self._memory.save_soon(ready=True)
        self._happens(Input.READY, "ready" if checked else "none", check=check, evidence=evidence)

    def go_on(self) -> None:
        """It was ready by other checks than it has now: it is served until these say otherwise, and not ready before."""
        self._happens(Input.GO_ON, evidence="what it is checked by has changed, and has not passed yet")

    def unready(self, *, check: str, evidence: str, failures: int, live: bool = False) -> None:
        """Do not serve it; nothing is restarted."""
        self._memory.save_soon(ready=False)
        why = self._reporter.why("health.not_ready", check=check, n=failures, result=evidence)
        self._happens(Input.UNREADY, check=check, evidence=evidence, failures=failures, why=why, live=live)

    def not_live(self, check: str, evidence: str, failures: int) -> None:
        """It is to be restarted in its turn; its siblings are told, too, where it was only unready (A22)."""
        if self._told is None or self._told.live:
            self.unready(check=check, evidence=evidence, failures=failures)

    def braked(self, check: str, evidence: str, failures: int, turn: Turn) -> None:
        """It is not live, as others are not, and waits for its turn to be restarted."""
        why = self._reporter.why("health.braked", k=turn.failing, n=turn.known)
        self._happens(Input.UNREADY, check=check, evidence=evidence, failures=failures, why=why)

    def tell(self, effect: Starting | Broken) -> None:
        """What changes nothing. Of a start that goes on no failures are counted, for it is in nobody's way (A22)."""
        if isinstance(effect, Starting):
            self._say("unready", evidence=f"its start-up check fails: {effect.evidence}")
            return
        why = self._reporter.why("health.check_broken", error=effect.error)
        self._say("ready" if self._served.healthy else "unready", check=effect.check, evidence=effect.error, why=why)

    def withdraw(self, why: str) -> None:
        """It is about to be stopped, or has failed. Its siblings are told, too, where it was unready before (A22)."""
        self._happens(Input.WITHDRAW, evidence=why)
        if self._told is not None and self._told.failures:
            self._say("unready", evidence=why)

    def hold(self) -> None:
        """From now on what is served is the copy before."""
        self._happens(Input.HAND_OVER)

    def let_go(self, why: str) -> None:
        """The copy before ends: nothing is served, unless the present one is."""
        self._happens(Input.LET_GO, evidence=why)

    def absent(self, why: str) -> None:
        """Whatever an earlier agent has said, nothing is served."""
        self._happens(Input.ABSENT, evidence=why)

    def resume(self) -> None:
        """The copy before is the present one again."""
        self._happens(Input.TAKE_BACK)

    def go_back(self, ports: dict[str, int], generation: int) -> None:
        """The present one, which is withdrawn, was served meanwhile: from now on it is the copy before again."""
        self._happens(Input.GO_BACK, before=(ports, generation))

    async def heard(self) -> None:
        """Wait until a broker has where it is reached now."""
        await self._reporter.heard("endpoint")

    def _happens(
        self, what: Input, word: Word = "unready", *, before: tuple[dict[str, int], int] = ({}, 0), **health: Any
    ) -> None:
        """Say what follows; `before` are the ports and the generation of the copy before."""
        record = self._memory.record
        for said in self._served.happens(what):
            match said:
                case Said.HEALTH:
                    self._say(word, **health)
                case Said.BEFORE:
                    self._endpoint(*before, ready=True)
                case Said.HERE | Said.NOWHERE:
                    self._endpoint(record.ports, record.run_generation, ready=said is Said.HERE)

    def _endpoint(self, ports: dict[str, int], generation: int, *, ready: bool) -> None:
        """Say where it is reached, or not."""
        told = Endpoint(address=self._address, ports=ports, generation=generation, ready=ready)
        self._reporter.fact("endpoint", told)

    def _say(
        self,
        word: Word,
        *,
        evidence: str,
        check: str = "none",
        failures: int = 0,
        why: Reason | None = None,
        live: bool = False,
    ) -> None:
        self._told = Health(
            health=word,
            generation=self._memory.record.run_generation,
            check=check,
            evidence=evidence[:1024],
            failures=failures,
            since_ms=self._bus.now_ms(),
            reason=why,
            live=live,
        )
        self._reporter.fact("health", self._told, own_times=("since_ms",))

"""Serving: an instance's health and endpoint as facts, and what the health monitor's effects change of them."""

from __future__ import annotations

from typing import Literal

from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.reporting import Reporter
from dsmt.event.kinds.instance import Endpoint, Health
from dsmt.event.reason import Reason
from dsmt.ports.bus import Bus

Word = Literal["ready", "unready", "none"]


class Serving:
    """Says whether an instance may be served, and where."""

    def __init__(self, address: str, bus: Bus, memory: Memory, reporter: Reporter) -> None:
        self._address = address
        self._bus = bus
        self._memory = memory
        self._reporter = reporter
        self._served = False
        self._held = False
        """What is served is the copy before, whatever becomes of the present one."""
        self._healthy = False
        self._told: tuple[Word, int] | None = None

    def begin(self) -> None:
        """A run has been started: it is not ready yet."""
        if self._told != ("unready", self._memory.record.run_generation):
            self._say("unready", check="none", evidence="started, not checked yet")

    def ready(self, *, check: str, evidence: str, checked: bool = True) -> None:
        """Serve it. Without any check its health is `none`."""
        self._memory.save_soon(ready=True)
        self._healthy = True
        self._held = False
        self._say("ready" if checked else "none", check=check, evidence=evidence)
        self._served = True
        self._endpoint(ready=True)

    def go_on(self) -> None:
        """It was ready by other checks than it has now: it is served until these say otherwise, and not ready before."""
        if not self._served:
            self._served = True
            self._endpoint(ready=True)
        self._healthy = False
        self._say("unready", check="none", evidence="what it is checked by has changed, and has not passed yet")

    def unready(self, *, check: str, evidence: str, failures: int) -> None:
        """Do not serve it; nothing is restarted."""
        self._memory.save_soon(ready=False)
        self._end_serving()
        why = self._reporter.why("health.not_ready", check=check, n=failures, result=evidence)
        self._healthy = False
        self._say("unready", check=check, evidence=evidence, failures=failures, why=why)

    def broken(self, *, check: str, error: str) -> None:
        """The check cannot run: say so, and change nothing."""
        why = self._reporter.why("health.check_broken", error=error)
        self._say("ready" if self._healthy else "unready", check=check, evidence=error, why=why)

    def withdraw(self, why: str) -> None:
        """It is about to be stopped, or has failed."""
        self._end_serving()
        if self._healthy:
            self._healthy = False
            self._say("unready", check="none", evidence=why)

    def hold(self) -> None:
        """From now on what is served is the copy before."""
        self._held, self._healthy = self._served, False

    def let_go(self, why: str) -> None:
        """The copy before ends: nothing is served, unless the present one is."""
        if self._held:
            self._held = False
            self.withdraw(why)

    def absent(self, why: str) -> None:
        """Whatever an earlier agent has said, nothing is served."""
        self._served = self._healthy = True
        self.withdraw(why)

    def resume(self) -> None:
        """The copy before is the present one again."""
        self._held, self._healthy = False, True

    def go_back(self, ports: dict[str, int], generation: int) -> None:
        """The present one, which is withdrawn, was served meanwhile: from now on it is the copy before again."""
        if not self._held:
            self._held = self._served = True
            self._endpoint(ready=True, ports=ports, generation=generation)

    def _end_serving(self) -> None:
        if self._served and not self._held:
            self._served = False
            self._endpoint(ready=False)

    def _endpoint(self, *, ready: bool, ports: dict[str, int] | None = None, generation: int = 0) -> None:
        """Say where the present copy is reached, or not; with `ports` the one before, in its `generation`."""
        record = self._memory.record
        where, of = (record.ports, record.run_generation) if ports is None else (ports, generation)
        self._reporter.fact("endpoint", Endpoint(address=self._address, ports=where, generation=of, ready=ready))

    def _say(self, word: Word, *, check: str, evidence: str, failures: int = 0, why: Reason | None = None) -> None:
        self._told = (word, self._memory.record.run_generation)
        self._reporter.fact(
            "health",
            Health(
                health=word,
                generation=self._memory.record.run_generation,
                check=check,
                evidence=evidence[:1024],
                failures=failures,
                since_ms=self._bus.now_ms(),
                reason=why,
            ),
        )

"""An asyncio event loop in virtual time: ordinary asyncio code, deterministic by seed, no selector, no thread.

Rule 1: time stands still while callbacks run and jumps to the next timer when none is ready; it counts in ticks. Only
    where very many callbacks run within one instant, `_NUDGE_S` passes now and then, so that what waits for less than
    the float's resolution comes to an end, as it does in life.
Rule 2: callbacks run first come, first served, also timers of one instant; real loops promise less: do not rely on it.
Rule 3: nothing that a callback does depends on an address, on `hash(str)` or on the real clock.
Rule 4: what reaches outside of the simulation is refused by name (`REFUSED`) and is a finding even when swallowed.
Rule 5: nothing of a halted process runs: of a paused one it is held, of a dead one it is dropped.
Rule 6: in a dead process, timers, tasks and deliveries raise `ProcessKilled`; waiting ends the coroutine.

It relies on names that asyncio keeps private (3.11): `_ready`, `_run_once`, `_stopping`, `_closed`,
`_timer_cancelled_count` and the generator hooks.
"""

# ruff: noqa: SLF001 - the loop is the owner of the private slots of its handles and tasks

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from math import inf, nextafter
from typing import Any, Final, NoReturn

from dsmt.simulator.engine.burial import bury_tasks, close_generator, forget_exception
from dsmt.simulator.engine.errors import DeadlockError, Finding, LivelockError, NotSimulatedError, ProcessKilled
from dsmt.simulator.engine.findings import Findings
from dsmt.simulator.engine.generators import Generators, name_of
from dsmt.simulator.engine.handles import OWNER, Owner, SimHandle, SimTask, SimTimer
from dsmt.simulator.engine.refusals import refusing
from dsmt.simulator.engine.signals import OwnSignals
from dsmt.simulator.engine.stack import describe_task, describe_waiting
from dsmt.simulator.engine.trace import Trace

_COMPACT_FROM: Final = 20_000
"""Cancelled timers are thrown out early when there are more than this many, and more than are live."""

_NUDGE_EACH: Final = 10_000
_NUDGE_S: Final = 1e-7
"""How much passes each so many callbacks of one instant; over `max_spin` of them it stays below a tick."""

_PLEAS: Final = 1000
"""Timers that a coroutine asks for in vain while it is ended, before it gets one that never fires."""


@refusing
class SimLoop(OwnSignals, asyncio.BaseEventLoop):
    """The loop; `dsmt.simulator.engine.run.run` is the way to use it.

    `hz`: ticks in a virtual second; a timer fires at the first tick that is not before its time.
    `max_spin`: callbacks within one instant before `LivelockError`. `collect_every`: virtual seconds between
    garbage collections, None for none. `live`: the live tasks by number, in order of creation. `processes`: the
    live simulated processes by number. `findings`: what went wrong unseen. `unseen`: by process number, the
    failures of processes that nobody has waited for yet. `world`: the context outside of all processes.
    """

    _ready: deque[SimHandle | SimTimer]
    _closed: bool
    _stopping: bool
    _timer_cancelled_count: int

    get_debug = staticmethod(bool)  # always False, in C: each Future asks
    _check_closed: Callable[[], None]

    def __init__(
        self,
        *,
        hz: int = 1000,
        max_spin: int = 5_000_000,
        collect_every: float | None = 300.0,
        trace: Trace | None = None,
    ) -> None:
        super().__init__()
        self.trace = trace
        self.live: dict[int, SimTask] = {}
        self.processes: dict[int, Owner] = {}
        self.unseen: dict[int, Finding] = {}
        self.findings = Findings(self.time)
        self._hz = hz
        self._max_spin = max_spin
        self._collect_ticks = None if collect_every is None else max(1, int(collect_every * hz))
        self._next_collection = self._collect_ticks
        self._tick = 0
        self._now = 0.0
        self._buckets: dict[int, list[SimTimer]] = {}
        self._ticks: list[int] = []
        self._timer_count = 0
        self._task_count = 0
        self._process_count = 0
        self._generators = Generators()
        self.world = Context()
        self._halts = False
        self._pleas = 0
        self._off = False
        self._owner_thread = threading.get_ident()
        self.set_exception_handler(lambda _loop, context: self.findings.note_error(context))

    # --- time and callbacks ---

    def time(self) -> float:
        """Return the virtual time in seconds; it starts at 0."""
        return self._now

    @property
    def tick(self) -> int:
        """The virtual time in ticks."""
        return self._tick

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> SimHandle:  # type: ignore[override]
        """Run the callback within this instant, after what is ready already. Never refused, even in a dead process."""
        if self._closed:
            self._check_closed()
        handle = SimHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> SimHandle:
        """Like `call_soon`; another thread is refused."""
        if threading.get_ident() != self._owner_thread:
            self.refuse("call_soon_threadsafe", "a thread called into the simulation")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> SimTimer:
        """Run the callback `delay` seconds from now; a delay that is lost in the float's rounding still takes a tick."""
        when = self._now + delay
        if when == self._now and delay > 0:
            when = nextafter(when, inf)
        return self.call_at(when, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> SimTimer:
        """Run the callback at the virtual time `when` (within this instant if past, never if infinite).

        ProcessKilled: the calling process is dead.
        """
        if self._closed:
            self._check_closed()
        if self._halts:
            when = self._deadline(when)
        timer = SimTimer(when, callback, args, self, context)
        if when <= self._now:
            timer._scheduled = False
            self._ready.append(timer)
            return timer
        try:
            tick = int(when * self._hz + 0.999)  # never early, but for the error of the float
        except OverflowError:
            timer._scheduled = False
            return timer
        if tick <= self._tick:
            tick = self._tick + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = [timer]
            heapq.heappush(self._ticks, tick)  # integers compare in C; TimerHandle.__lt__ is Python
        else:
            bucket.append(timer)
        self._timer_count += 1
        return timer

    def _deadline(self, when: float) -> float:
        try:
            self.require_alive()
        except ProcessKilled:
            self._pleas += 1
            if self._pleas < _PLEAS:
                raise
            return inf  # it swallows every exception: let it wait, so that its end is not an endless loop
        return when

    def call_in(self, process: Owner | None, callback: Callable[..., object], *args: Any) -> SimHandle:
        """Run the callback within this instant in another process's context (None: in that of the world).

        It is held while that process is paused and dropped when it is dead. ProcessKilled: the caller is dead.
        """
        if self._halts:
            self.require_alive()
        return self.call_soon(callback, *args, context=self.world if process is None else process.context)

    def call_in_at(self, process: Owner | None, when: float, callback: Callable[..., object], *args: Any) -> SimTimer:
        """Like `call_in`, at the virtual time `when`."""
        return self.call_at(when, callback, *args, context=self.world if process is None else process.context)

    def require_alive(self) -> None:
        """Raise ProcessKilled if the calling process is dead. A port calls this before each effect."""
        owner = OWNER.get()
        if self._off:
            raise ProcessKilled("the simulation is over")
        if owner is not None and owner.dead:
            raise ProcessKilled(f"process {owner.name} is dead")

    # --- tasks ---

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> SimTask:
        """Start a task, in the process that its context names. ProcessKilled: the calling process is dead."""
        if self._closed:
            self._check_closed()
        if self._halts:
            try:
                self.require_alive()
            except ProcessKilled:
                coro.close()
                raise
        self._task_count = number = self._task_count + 1
        task = SimTask(coro, self, name, number, contextvars.copy_context() if context is None else context)
        self.live[number] = task
        owner = task.owner
        if owner is not None:
            owner.tasks[number] = task
        task.add_done_callback(self._task_done, context=self.world)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, SimTask)  # noqa: S101 - create_task makes no other
        self.live.pop(task.number, None)
        if task.owner is not None:
            task.owner.tasks.pop(task.number, None)

    # --- the run ---

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._advance()
        trace, spin, limit = self.trace, 0, min(_NUDGE_EACH, self._max_spin)
        while ready:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            context = handle._context
            if self._halts and (owner := context.get(OWNER)) is not None and owner.halted:
                if not owner.dead:
                    owner.held.append(handle)
                continue
            if trace is not None:
                trace.ran(self._tick, handle)
            try:
                context.run(handle._callback, *handle._args)  # type: ignore[arg-type] # cancelled ones do not come here
            except BaseException as error:  # noqa: BLE001 - sorted there, as Handle._run does
                self._failed(handle, error)
            if self._stopping:
                break
            spin += 1
            if spin > limit and ready:
                limit = self._nudge(spin)

    def _nudge(self, spin: int) -> int:
        """Much has run within this instant: let a trifle of time pass, and say how much more may run (rule 1)."""
        if spin > self._max_spin:
            raise LivelockError(
                f"{spin} callbacks ran at {self._now:.3f} s and more are ready, the next is {self._ready[0]!r}. "
                "Something reschedules itself without waiting"
            )
        self._now += _NUDGE_S
        return min(spin + _NUDGE_EACH, self._max_spin)

    def _advance(self) -> None:
        if not self._ticks:
            raise DeadlockError(
                f"nothing is ready and no timer is set at {self._now:.3f} s; what waits:\n"
                + describe_waiting(self.live.values(), self.processes.values())
            )
        self._tick = tick = heapq.heappop(self._ticks)
        self._now = tick / self._hz
        if self._next_collection is not None and tick >= self._next_collection:
            self._next_collection = tick + (self._collect_ticks or 1)
            gc.collect()
        bucket = self._buckets.pop(tick)
        for timer in bucket:
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)
        self._timer_count -= len(bucket)

    def count_cancelled(self) -> None:
        """Count a timer that was cancelled before its instant, and throw such timers out when they are most."""
        self._timer_cancelled_count += 1
        if self._timer_cancelled_count > _COMPACT_FROM and self._timer_cancelled_count * 2 > self._timer_count:
            for bucket in self._buckets.values():
                bucket[:] = [timer for timer in bucket if not timer._cancelled]
            self._timer_count = sum(map(len, self._buckets.values()))
            self._timer_cancelled_count = 0

    def _failed(self, handle: SimHandle | SimTimer, error: BaseException) -> None:
        owner = handle._context.get(OWNER)
        task = getattr(handle._callback, "__self__", None)
        if isinstance(error, ProcessKilled) and owner is not None and owner.dead:
            return
        if isinstance(error, SystemExit) and owner is not None:
            if isinstance(task, SimTask):
                forget_exception(task)
            owner.system_exit(error.code)
            return
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error
        self.call_exception_handler({"message": f"exception in callback {handle!r}", "exception": error})

    # --- processes ---

    def register(self, process: Owner) -> int:
        """Enter a started process into `processes` and return its number."""
        self._process_count = number = self._process_count + 1
        self.processes[number] = process
        return number

    def note_halt(self) -> None:
        """Look at the state of a handle's process from now on; before the first halt the loop saves that."""
        self._halts = True

    def release(self, process: Owner) -> None:
        """Make ready what was held of a process, in the order in which it came due: before what comes due only now."""
        self._ready.extendleft(reversed(process.held))
        process.held.clear()

    def bury(self, tasks: list[SimTask]) -> None:
        """End the tasks at once: their `finally` blocks run now, but no wait in them, and nobody hears them.

        Each is done afterwards, with `ProcessKilled`. The running task cannot be ended from inside and is left.
        """
        with self.findings.muted():
            bury_tasks(self, tasks, self._buried)

    def _buried(self, task: SimTask, closed: bool) -> None:
        self._pleas = 0
        if not closed:
            text = f"{describe_task(task)}\n    swallows every exception, even its own end"
            self.findings.add(text, task.owner)
        self._task_done(task)

    # --- what is not simulated, and what was left ---

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise NotSimulatedError for something that reaches outside; a finding even when that is swallowed."""
        text = f"loop.{name} is not simulated: {why}"
        self.findings.add(text, OWNER.get())
        raise NotSimulatedError(text)

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        self._generators.begin(agen)

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        owner = self._generators.end(agen)
        text = f"async generator {name_of(agen)} was dropped half-way; use contextlib.aclosing"
        self.findings.complain(text, owner)
        close_generator(agen)

    async def shutdown_asyncgens(self) -> None:
        """Close the asynchronous generators that are half-way, in the order in which they began."""
        for agen, _ in self._generators.half_way():
            await agen.aclose()

    # --- the end ---

    def power_off(self, *, report: bool) -> None:
        """End all that is left: tasks, generators, timers, in order; with `report`, each thing left is a finding."""
        self.findings.items.extend(self.unseen.values())
        if report:
            for process in self.processes.values():
                self.findings.add("the process still runs; kill it or wait for its end", process)
            for task in self.live.values():
                if task.owner is None:
                    self.findings.add(f"{describe_task(task)}\n    still runs; cancel it or wait for its end", None)
        self._halts = self._off = True
        self.bury(list(self.live.values()))
        for agen, owner in self._generators.half_way():
            if report:
                self.findings.complain(f"async generator {name_of(agen)} was left half-way", owner)
            close_generator(agen)
        self._ready.clear()
        self._buckets.clear()
        self._ticks.clear()

    def _write_to_self(self) -> None:
        """Wake nothing: no thread waits."""

    def _process_events(self, event_list: object) -> None:
        """There is no selector, so there are no events."""


def current_loop() -> SimLoop:
    """Return the running simulation. NotSimulatedError: the running loop is a real one. RuntimeError: none runs."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, SimLoop):
        raise NotSimulatedError(f"the running loop is {type(loop).__name__}, not a simulation")
    return loop

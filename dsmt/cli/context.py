"""The context of a command: which realm it is about, how that is reached, and how the operator is told and asked."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import click

from dsmt.cli.addresses import addresses
from dsmt.cli.printing import columns, fitted, one_line, page, send
from dsmt.errors import FailedError, InputError, TransportError
from dsmt.operations.words.telling import Tell, silent

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from dsmt.operations.connection import Connection, Reading
    from dsmt.operations.local.home.home import Home
    from dsmt.operations.read.waits.settling import Applied
    from dsmt.ports.files import Files
    from dsmt.ports.realm import BrokerAddress
    from dsmt.programs.configuration import RealmConfig

Result = TypeVar("Result")
Attached = TypeVar("Attached", bound="Reading")
QUIET_S: Final = 2.0
"""How long an answer, a start or an end may take, before it is told what is waited for."""
SILENT_S: Final = 5.0
"""How long a wait without a terminal says nothing."""


@dataclass(slots=True)
class CliContext:
    """Where the operator sits: which home, which brokers, and how answers are printed."""

    json: bool = False
    bus: str | None = None
    bus_variable: bool = False
    """Whether `DSMT_BUS` named these brokers, and no option."""
    home_path: str | None = None
    debug: bool = False
    asked: tuple[str, str] | None = None
    """What was asked for and goes on when the command is interrupted, and the command that shows it."""
    done: bool = False
    """Whether what was asked for is done, and only has to be told."""

    def brokers(self, realm: RealmConfig) -> list[BrokerAddress] | None:
        """The brokers that `--bus` or `DSMT_BUS` names, if one does. Raises `InputError`."""
        if self.bus is None:
            return None
        try:
            return addresses(self.bus, realm)
        except InputError as error:
            if not self.bus_variable:
                raise
            raise InputError(error.code, f"DSMT_BUS: {error.message}", next=error.next) from error

    def home(self) -> Home:
        """The home: `--home`, else `DSMT_HOME`, else the default. Raises `InputError`."""
        from dsmt.operations.local.home.home import Home, home_directory  # noqa: PLC0415 - only where a realm is asked

        return Home(home_directory(self.home_path))

    def ask(self, work: Callable[[Reading], Awaitable[Result]]) -> Result:
        """Attach to the realm as one who only reads, do the work, detach."""
        from dsmt.operations.connection import reading  # noqa: PLC0415 - only where a realm is asked

        return self._attach(reading, work)

    def act(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Attach to the realm as a source, which may say something, do the work, detach."""
        from dsmt.operations.connection import connect  # noqa: PLC0415 - only where a realm is asked

        result = self._attach(connect, work)
        self.done = True
        return result

    def _attach(
        self, how: Callable[..., AbstractAsyncContextManager[Attached]], work: Callable[[Attached], Awaitable[Result]]
    ) -> Result:
        import asyncio  # noqa: PLC0415 - a third of the time of `--help`

        home = self.home()
        realm = home.realm()
        named = self.brokers(realm)

        async def asked() -> Result:
            from dsmt.event.phrases import some  # noqa: PLC0415 - the same
            from dsmt.operations.connection import PATIENCE_S, while_let_in  # noqa: PLC0415 - the same
            from dsmt.operations.local.home.home import is_up  # noqa: PLC0415 - the same
            from dsmt.operations.read.realm.patience import SLOW  # noqa: PLC0415 - the same
            from dsmt.system.files import DiskFiles  # noqa: PLC0415 - the same

            operator, reached, waits_s = home.operator(), None, PATIENCE_S
            known: Files | None = None  # who names brokers is answered by one of these, or by none
            if named is not None:
                from dsmt.operations.local.members.brokers import located  # noqa: PLC0415 - only where brokers are named

                reached = await located(home, operator, realm, named)
            else:
                known = DiskFiles(str(home.operator_file.parent), durable=False)  # where brokers are by now
                if not is_up(home):  # where it is there is no need to look further
                    from dsmt.operations.local.processes.unreached import patience_s  # noqa: PLC0415 - the same

                    waits_s = patience_s(home, realm)
            with self.lasting() as waits:
                waits(f"an answer at {some(list(dict.fromkeys(one.address for one in reached or realm.addresses)))}")
                async with how(operator, realm, brokers=reached, known=known, patience_s=waits_s) as connection:
                    waits("")
                    SLOW.set(silent if self.json else _slow)
                    return await while_let_in(connection.bus, work(connection))

        try:
            return asyncio.run(asked())
        except TransportError as error:
            move = home.moving()
            if move is None or not move.cut:
                from dsmt.operations.local.processes.unreached import unreached  # noqa: PLC0415 - only where a realm is asked

                raise (error if named is not None else unreached(home, error)) from error
            from dsmt.operations.local.home.lock import is_held  # noqa: PLC0415 - only while a realm is cut over

            said = f"realm {realm.name} is being cut over to {move.engine}: {error.message}"
            waits = "try again when dsmt bus migrate --cut has ended"
            advice = waits if is_held(home) else "dsmt bus migrate --cut goes on with it"
            raise TransportError("bus.moving", said, next=advice) from error

    def confirm(self, ends: str, question: str, *, no: str, advice: str, after: str = "") -> None:
        """Say what would end and what comes `after`, and ask on a terminal; refuse without one.

        Raises `InputError`, and `FailedError` for a no.
        """
        if self.json or not sys.stdin.isatty():
            raise InputError("confirm", f"nothing was done, for nobody said yes to this: {ends}", next=advice)
        print(page(filter(None, (ends, after))))
        if not click.confirm(question):
            raise FailedError("confirm.no", f"{no}: the answer was no")

    def tell_waits(self, held: str) -> None:
        """Say whom this command waits for."""
        if not self.json:
            send(sys.stderr, f"{one_line(held)}; this waits for it\n")

    @contextmanager
    def lasting(self) -> Iterator[Tell]:
        """Say what this command waits for, if longer than `QUIET_S`: what was told last, and nothing where that is empty."""
        import asyncio  # noqa: PLC0415 - a third of the time of `--help`

        loop = asyncio.get_running_loop()
        due: list[asyncio.TimerHandle] = []

        def waits(what: str) -> None:
            while due:
                due.pop().cancel()
            if what and not self.json:
                due.append(loop.call_later(QUIET_S, _slow, what))

        try:
            yield waits
        finally:
            waits("")

    async def settled(self, connection: Reading, done: Applied, *, limit_s: float | None, counted: bool = False) -> Applied:
        """What became of a revision that was applied, once that is known; how far it is shows meanwhile."""
        from dsmt.operations.read.waits import settling  # noqa: PLC0415 - only where somebody waits

        with self.progress() as tell:
            return await settling.settled(connection.bus, done, limit_s=limit_s, tell=tell, counted=counted)

    @contextmanager
    def progress(self) -> Iterator[Tell]:
        """How a wait tells how far it is: on one line of a terminal, which is wiped at the end.

        Without one it is told once, after `SILENT_S`; with `--json` to nobody.
        """
        if self.json or not sys.stderr.isatty():
            with nullcontext(silent) if self.json else _once() as told:
                yield told
            return

        def tell(text: str) -> None:
            room = columns(sys.stderr)
            send(sys.stderr, f"\r\x1b[K{fitted(one_line(text), None if room is None else room - 1)}")

        try:
            yield tell
        finally:
            send(sys.stderr, "\r\x1b[K")


def _slow(what: str) -> None:
    """Say what does not come."""
    send(sys.stderr, f"waiting for {one_line(what)}\n")


@contextmanager
def _once() -> Iterator[Tell]:
    """How a wait tells without a terminal how far it is: in one line, when it has lasted for `SILENT_S`."""
    import asyncio  # noqa: PLC0415 - a third of the time of `--help`

    loop = asyncio.get_running_loop()
    ends_s, said, due = loop.time() + SILENT_S, False, list[asyncio.TimerHandle]()

    def say(text: str) -> None:
        nonlocal said
        said = True
        send(sys.stderr, f"waiting: {one_line(text)}\n")

    def tell(text: str) -> None:
        while due:
            due.pop().cancel()
        if not said:
            due.append(loop.call_at(ends_s, say, text))

    try:
        yield tell
    finally:
        while due:
            due.pop().cancel()

"""Warm fork: run a program, already imported, in a child of its own session.

Rule 1: nothing of the parent's is open in the child: `close` closes its descriptors, standard input is /dev/null,
        standard output and error are the program's log.
Rule 2: a signal that reaches the child before its handlers are its own waits; the parent never hears of it.
Rule 3: the child's record is written by the child, before its program starts, so the parent may die at any time. It is
        found without, too (`placed`).
"""

from __future__ import annotations

import importlib
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NoReturn

import msgspec

from dsmt.errors import FailedError
from dsmt.logs import Logger
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.garbage import keeping_all
from dsmt.system.placed import hold
from dsmt.system.procfs import identity_of, set_name, set_title
from dsmt.system.records import write_record
from dsmt.system.removing import make_way

Main = Callable[[str], int]
"""A program: takes its directory, returns its exit code."""

LOG_CAP: Final = 1 << 20
"""A log that is larger, at its start or when it is looked at, is put aside as `.1`."""

_APPENDED: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

BUG: Final = 70
"""Exit code of a program that raised (EX_SOFTWARE of sysexits.h)."""


class Program(msgspec.Struct, frozen=True):
    """What to fork: `name` gives the log `<directory>/<name>.log`; `record` is where its identity is written."""

    name: str
    main: Main
    directory: str
    record: str


def load(programs: Mapping[str, str]) -> dict[str, Main]:
    """Import every program of a table. Raises `FailedError` (`start.cannot_exec`) for one that cannot be."""
    loaded: dict[str, Main] = {}
    with keeping_all():
        for name, place in programs.items():
            module, _colon, function = place.partition(":")
            try:
                loaded[name] = getattr(importlib.import_module(module), function)
            except Exception as error:
                raise FailedError(
                    "start.cannot_exec",
                    f"the program {name} ({place}) cannot be imported: {type(error).__name__}: {error}",
                    program=name,
                ) from error
        read_annotations(msgspec.Struct)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise FailedError("start.driver", f"a program starts threads when it is imported: {threads} run, none can fork")
    return loaded


def read_annotations(record: type[msgspec.Struct]) -> None:
    """Have msgspec read here what records are made of: else each child does, which takes an agent a tenth of its CPU."""
    for below in record.__subclasses__():
        with suppress(TypeError):  # one that nobody reads from bytes
            if below.__module__.startswith("dsmt."):
                msgspec.json.Decoder(below)
        read_annotations(below)


def fork(program: Program, close: Callable[[], None]) -> ProcessIdentity:
    """Fork a child that runs the program; `close` is called there first. Raises `FailedError` (`start.driver`)."""
    sys.stdout.flush()
    sys.stderr.flush()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be(program, close)
    except OSError as error:
        raise FailedError("start.driver", f"cannot fork {program.name}: {error.strerror}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    identity = identity_of(pid)
    if identity is None:
        raise FailedError("start.driver", f"{program.name} was reaped by somebody else", pid=pid)
    return identity


def open_log(directory: str, name: str) -> int:
    """Open the log of a program of this directory, to append to it; one that has grown too large is put aside.

    What is in its place and no file goes (C13). Where none is to be had it is /dev/null: who is to begin begins.
    """
    path = os.path.join(directory, f"{name}.log")
    try:
        make_way(path)
        with suppress(FileNotFoundError):
            if os.stat(path).st_size > LOG_CAP:
                make_way(f"{path}.1")
                os.replace(path, f"{path}.1")
        return os.open(path, _APPENDED, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def go_on_in(directory: str, name: str) -> None:
    """Go on in the log of this name, where the one that is written has grown too large; where none is to be had, in that."""
    log = open_log(directory, name)
    if stat.S_ISREG(os.fstat(log).st_mode):
        os.dup2(log, 1)
        os.dup2(log, 2)
    os.close(log)


def _be(program: Program, close: Callable[[], None]) -> NoReturn:
    """The child: never returns to the parent's code."""
    code = BUG
    try:
        os.setsid()
        _default_signals()
        close()
        _redirect(open_log(program.directory, program.name))
        Logger.keep_small = lambda: go_on_in(program.directory, program.name)
        set_name(f"dsmt-{program.name}")
        set_title(f"dsmt-{program.name} {program.directory}")
        hold(program.directory)
        _own_record(program.record)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = program.main(program.directory)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException:  # noqa: BLE001 - the outermost frame of this process
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _default_signals() -> None:
    """Handle signals as a fresh Python does: SIGPIPE and SIGXFSZ ignored, SIGINT raises, the rest by default."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _redirect(output: int) -> None:
    """Put /dev/null and an open log in the place of the standard streams."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in {null, output} - {0, 1, 2}:
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)


def _own_record(path: str) -> None:
    """Write who we are; a full disk must not keep the program from running."""
    identity = identity_of(os.getpid())
    if identity is not None:
        try:
            write_record(path, identity)
        except OSError as error:
            with suppress(OSError):  # the log may be on the same disk
                sys.stderr.write(f"{path} cannot be written: {error}\n")

"""Logs: what instances on this machine have written, read from their files, with no bus and no agent (`--local`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.output import LOGS, Output
from dsmt.agents.instance.present import Present
from dsmt.agents.rules.container import LOGS as LOGS_PLACE
from dsmt.agents.rules.record import BESIDE
from dsmt.operations.local.here.here import Here, not_ours
from dsmt.operations.write.asking_logs import LogLine, LogNotice, LogQuery
from dsmt.ports.logs import STREAMS
from dsmt.system.files import DiskFiles
from dsmt.system.logs import DiskLogs
from dsmt.system.procfs import boot

MOST_BYTES: Final = 1024 * 1024
LOOK_S: Final = 0.5


def logs_here(those: tuple[Here, ...], wanted: LogQuery) -> Iterator[list[LogLine | LogNotice]]:
    """The last lines of each instance; then, when followed, what comes. Raises `RefusedError` for another user's home."""
    try:
        outputs = [(one, output) for one in those if (output := _output(one)) is not None]
        places = {(str(one.key), log): output.place(log) for one, output in outputs for log in LOGS}
        for one, output in outputs:
            if wanted.follow and not wanted.previous:
                yield _new(one, output, places, wanted.lines)
            else:
                yield _last(one, output, wanted)
        while wanted.follow:
            for one, output in outputs:
                yield _new(one, output, places)
            time.sleep(LOOK_S)
    except PermissionError as error:
        raise not_ours(those[0].directory, "read") from error


def _output(one: Here) -> Output | None:
    """What it has written; None where there is no place for that yet, which its agent makes."""
    directory = str(one.directory)
    if not (one.directory / LOGS_PLACE).is_dir():
        return None
    memory = Memory(DiskFiles(directory, made=False, ours=False), boot())
    return Output(DiskLogs(f"{directory}/{LOGS_PLACE}"), memory, Present())


def _last(one: Here, output: Output, wanted: LogQuery) -> list[LogLine | LogNotice]:
    """What there is of the run that is asked for."""
    found: list[LogLine | LogNotice] = []
    if wanted.step is not None:
        return _lines(one, wanted.step, output.read_step(wanted.step, most=MOST_BYTES), wanted.lines)
    run = output.shown()
    if wanted.revision is not None or wanted.previous:
        asked = output.previous() if wanted.revision is None else output.of(wanted.revision)
        if asked is None:
            return [LogNotice(str(one.key), f"{one.key} on {one.node}: nothing is known of such a run")]
        run = asked
    for stream in STREAMS:
        found += _lines(one, stream, output.read(run, stream, most=MOST_BYTES), wanted.lines)
    return found


def _new(
    one: Here, output: Output, places: dict[tuple[str, str], int], most: int | None = None
) -> list[LogLine | LogNotice]:
    """What has come since; with `most`, the last of what there is of the present run."""
    found: list[LogLine | LogNotice] = []
    for log in LOGS:
        text, places[str(one.key), log] = output.since(log, places[str(one.key), log], most=MOST_BYTES)
        found += _lines(one, log.removesuffix(BESIDE), text, most, written=most is None)
    return found


def _lines(one: Here, stream: str, text: str, most: int | None, *, written: bool = False) -> list[LogLine | LogNotice]:
    now_ms = time.time_ns() // 1_000_000
    lines = text.splitlines()
    kept = lines if most is None else lines[-most:] if most else []
    at_ms = now_ms if written else None
    return [LogLine(str(one.key), one.node, stream, line, at_ms, now_ms) for line in kept]

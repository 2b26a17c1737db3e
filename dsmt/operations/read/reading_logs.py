"""Logs: what instances have written, asked of their agents (LOGS, rule A7), who answer to the asker's inbox.

Rule 1: the answer's end is marked by the agent; who does not answer within `ANSWER_S` is told as such.
Rule 2: following is asked for again each time before the agent's own limit ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dsmt.errors import NotFoundError, TimedOutError, UnusableEventError
from dsmt.event.records import LogLines, from_data
from dsmt.operations.read.sight import look
from dsmt.operations.words.targets import Target, slots_of
from dsmt.operations.write.controlling import command
from dsmt.ports.bus import Arrived, Bus, Complete, Delivery, Draft, Interest, Start

ANSWER_S: Final = 10.0
FOLLOW_S: Final = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one instance."""

    instance: str
    node: str
    stream: str
    line: str
    time_ms: int


@dataclass(slots=True)
class _Asked:
    """The commands whose answers are awaited, by id: the instance that each is about."""

    open: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)


async def logs(
    bus: Bus, target: Target, *, lines: int, follow: bool = False, previous: bool = False, step: str | None = None
) -> AsyncIterator[list[Line]]:
    """The last lines of each instance, or of the log of one `step` (`install` ...); then, when followed, what comes.

    Raises `NotFoundError` when nothing of the target is on a node, `TimedOutError` when an agent does not answer.
    """
    patterns = (f"service/{target.service}/log/{target.component or '+'}/{'+' if target.index is None else target.index}/",)
    asked = _Asked()
    async with bus.subscribe(Interest(patterns, start=Start.LIVE, inbox=True)) as batches:
        first = {"lines": lines, "previous": previous, "follow_s": FOLLOW_S if follow else 0}
        await _ask(bus, target, asked, first if step is None else {"lines": lines, "step": step})
        reading = aiter(batches)
        while asked.open:
            found = _lines(await _next(reading, asked, follow=follow), asked)
            if found:
                yield found
            if follow and not asked.open:
                await _ask(bus, target, asked, {"lines": 0, "previous": False, "follow_s": FOLLOW_S})


async def _ask(bus: Bus, target: Target, asked: _Asked, arguments: dict[str, Any]) -> None:
    sight = await look(bus)
    drafts: list[tuple[str, Draft]] = []
    for key in slots_of(sight.view, target):
        draft = command(bus, sight, key, "LOGS", **arguments)
        if draft is not None:
            drafts.append((str(key), draft))
    if not drafts:
        raise NotFoundError("logs.nowhere", f"nothing of {target} is on a node", next=f"dsmt ps {target.service}")
    for key_, draft in drafts:
        asked.open[draft.data["id"]] = key_
        asked.known[draft.data["id"]] = key_
        bus.emit(draft)


async def _next(reading: AsyncIterator[Sequence[Delivery]], asked: _Asked, *, follow: bool) -> Sequence[Delivery]:
    try:
        async with asyncio.timeout(FOLLOW_S + ANSWER_S if follow else ANSWER_S):
            return await anext(reading)
    except TimeoutError as error:
        silent = ", ".join(sorted(set(asked.open.values())))
        raise TimedOutError(
            "logs.silent", f"the agent of {silent} did not answer", next="dsmt ps shows whether it runs; dsmt nodes"
        ) from error


def _lines(batch: Sequence[Delivery], asked: _Asked) -> list[Line]:
    found = []
    for delivery in batch:
        if not isinstance(delivery, Arrived) or isinstance(delivery, Complete):
            continue
        event = delivery.signed.event
        try:
            told = from_data(LogLines, event.data)
        except UnusableEventError:
            continue
        if event.type != "dsmt.log" or told.command not in asked.known:
            continue
        node, stream = event.topic.split("/")[5:7]
        instance = asked.known[told.command]
        found += [Line(instance, node, stream, one, event.time_ms) for one in told.lines]
        if told.last:
            asked.open.pop(told.command, None)
    return found

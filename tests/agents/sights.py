"""Services and doings that several tests of agents share."""

from collections.abc import Awaitable, Callable
from typing import Any

from dsmt.event.kinds.instance import Command
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft

from .world import WEB, Site

Doing = Callable[[Site], Awaitable[None]]


CHECKED = WEB + "    health: {http: {port: http, path: /}}\n"


PARKS = (
    "    restart: {first: 100ms, factor: 1, park: {after: 3}, escalate: [{restart: 9}]}\n    update: {healthy_after: 1s}\n"
)


FAILS = WEB + PARKS + "    install: 'false'\n"


DOZES = CHECKED.replace("    run: sleep", "    run: doze")


async def served(site: Site, text: str = CHECKED) -> Any:
    """An instance that is ready; its program, which holds its port."""
    site.place(text)
    await site.realm.until(lambda: site.endpoint() and site.endpoint()["ready"])
    (program,) = site.machine.alive
    site.machine.held[int(program.launch.env["PORT"])] = "the program"
    return program


async def two_copies(site: Site) -> Any:
    """An instance beside which the next revision runs, and is not ready; its own program."""
    old = await served(site)
    site.checks.passed = False
    site.assign(site.spec(DOZES, version=2), version=2)
    await site.realm.until(lambda: len(site.machine.alive) == 2)
    return old


def command(
    site: Site, verb: str, id_: str = "c1", generation: int = 1, ttl_ms: int | None = None, **arguments: object
) -> None:
    told = Command(id=id_, verb=verb, generation=generation, asker="operator/op", arguments=arguments)  # type: ignore[arg-type]
    site.spec_bus.emit(Draft(site.slot.command_topic, to_data(told), to=("node/n1",), ttl_ms=ttl_ms))

"""What every driver is held to, through the port alone (`dsmt/ports/driver.py`): a factory makes a driver and its programs.

`EVERY` holds for all drivers. `REAL` asks what only programs that really run can answer. `CONTAINED` holds for those that
show a program only its mounts, `OTHERS` for those that run one as any user.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from dsmt.errors import FailedError
from dsmt.ports.driver import Driver, Handle, Instance, Launch, Mount
from dsmt.ports.processes import Exit
from tests.waiting import until

TIMES = 20.0


class Factory(Protocol):
    """One driver under test: everything that the suite may know of it."""

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a test on the loop that the driver needs."""
        ...

    def driver(self, container: str = "one") -> Driver:
        """A driver of one container, as another agent would make it."""
        ...

    def launch(self, what: str) -> Launch:
        """A program that `stays`, `fails` with 1, is `stubborn` (and stays), or a script for `sh`."""
        ...

    def ready(self, launch: Launch) -> bool:
        """Whether a program that stays has come so far that it hears signals, or does not listen."""
        ...


async def started(driver: Driver, launch: Launch) -> Instance:
    assert driver.available() == ""
    await driver.prepare(launch)
    return await driver.start(launch)


async def ended(instance: Instance) -> Exit:
    async with asyncio.timeout(TIMES):
        return await instance.wait()


def kept(handle: Handle) -> Handle:
    """A handle as an agent keeps it: through JSON."""
    return Handle(json.loads(json.dumps(handle)))


# -- every driver


async def a_program_runs_until_it_ends_and_all_who_wait_hear_how(at: Factory) -> None:
    one = await started(at.driver(), at.launch("fails"))
    assert await asyncio.gather(ended(one), ended(one)) == [Exit(1, None)] * 2
    assert await ended(one) == Exit(1, None)
    assert await one.kill(deadline=TIMES) == ()
    one.signal(signal.SIGTERM)


async def what_it_prepared_it_prepares_again_at_once(at: Factory) -> None:
    driver, launch = at.driver(), at.launch("stays")
    for _ in range(3):
        await driver.prepare(launch)
    one = await driver.start(launch)
    assert await one.kill(deadline=TIMES) == ()


async def what_is_prepared_for_is_started_again_and_again(at: Factory) -> None:
    driver, launch = at.driver(), at.launch("stays")
    one = await started(driver, launch)
    for _ in range(5):
        assert await one.kill(deadline=TIMES) == ()
        assert not (await ended(one)).code
        one = await driver.start(launch)
    assert await one.kill(deadline=TIMES) == ()


async def a_program_that_is_asked_to_end_ends(at: Factory) -> None:
    launch = at.launch("stays")
    one = await started(at.driver(), launch)
    await until(lambda: at.ready(launch))
    one.signal(signal.SIGTERM)
    how = await ended(one)
    assert how in (Exit(None, signal.SIGTERM), Exit(0, None), Exit(128 + signal.SIGTERM, None))
    assert await one.kill(deadline=TIMES) == ()


async def a_program_that_does_not_listen_is_killed(at: Factory) -> None:
    launch = at.launch("stubborn")
    one = await started(at.driver(), launch)
    await until(lambda: at.ready(launch))
    one.signal(signal.SIGTERM)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await one.wait()
    assert await one.kill(deadline=TIMES) == ()
    assert await ended(one) in (Exit(None, signal.SIGKILL), Exit(128 + signal.SIGKILL, None))


async def a_later_driver_of_the_container_adopts_by_the_handle_it_is_given(at: Factory) -> None:
    one = await started(at.driver(), at.launch("stays"))
    again = await at.driver().adopt(kept(one.handle))
    assert again is not None
    assert (again.handle, again.pid) == (one.handle, one.pid)
    assert await again.kill(deadline=TIMES) == ()
    await asyncio.gather(ended(again), ended(one))


async def what_has_ended_is_not_adopted(at: Factory) -> None:
    one = await started(at.driver(), at.launch("fails"))
    handle = kept(one.handle)
    await ended(one)
    await one.kill(deadline=TIMES)
    assert await at.driver().adopt(handle) is None
    assert (await at.driver().ended(handle)) in (Exit(None, None), Exit(1, None))


async def each_program_has_a_handle_of_its_own(at: Factory) -> None:
    driver = at.driver()
    some = [await started(driver, at.launch("stays")) for _ in range(3)]
    assert len({json.dumps(one.handle, sort_keys=True) for one in some}) == 3
    for one in some:
        assert await one.kill(deadline=TIMES) == ()


async def a_container_is_cleared_but_for_what_is_spared_and_no_other_is(at: Factory) -> None:
    containers = ("one", "one", "other")
    launches = [at.launch("stays") for _ in containers]
    some = [await started(at.driver(container), one) for container, one in zip(containers, launches, strict=True)]
    await until(lambda: all(at.ready(one) for one in launches))
    spared, left, other = (kept(one.handle) for one in some)

    async def live() -> list[bool]:
        asked = zip(containers, (spared, left, other), strict=True)
        return [await at.driver(container).adopt(handle) is not None for container, handle in asked]

    assert await live() == [True, True, True]
    anothers = Handle({"of": "another driver"})
    assert await at.driver().clear(deadline=TIMES, spared=(anothers, spared)) == ()
    assert await live() == [True, False, True]
    assert await at.driver().clear(deadline=TIMES) == ()
    assert await live() == [False, False, True]
    assert await some[2].kill(deadline=TIMES) == ()


async def what_it_promises_is_in_the_closed_lists(at: Factory) -> None:
    driver = at.driver()
    assert driver.fence in ("kernel", "none")
    assert set(driver.enforces) <= {"pids", "files", "memory", "cpu", "disk"}
    assert driver.users
    assert driver.available() == ""


# -- programs that really run


def script(at: Factory, text: str, **about: Any) -> Launch:
    return replace(at.launch(text), **about)


def out(launch: Launch) -> str:
    return Path(launch.stdout).read_text()


def aside(launch: Launch) -> str:
    return Path(launch.stderr).read_text()


def beside(launch: Launch, name: str, text: str) -> Path:
    """A directory beside that of the program, with a file `is` in it."""
    place = Path(launch.directory).parent / name
    place.mkdir()
    (place / "is").write_text(text)
    return place


def behind(descriptor: int) -> str:
    """What a descriptor is of."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


async def it_gets_its_directory_environment_and_logs(at: Factory) -> None:
    launch = script(at, 'pwd; echo "$NAME"; echo aside >&2')
    launch = replace(launch, env={**launch.env, "NAME": "value"})
    for times in (1, 2):
        assert await ended(await started(at.driver(), launch)) == Exit(0, None)
        assert out(launch) == f"{launch.directory}\nvalue\n" * times
        assert aside(launch) == "aside\n" * times


async def its_limits_hold_from_the_beginning(at: Factory) -> None:
    launch = script(at, "ulimit -n; ulimit -Hn", limits={"files": 100})
    assert await ended(await started(at.driver(), launch)) == Exit(0, None)
    assert out(launch) == "100\n100\n"


async def it_may_write_to_a_writable_mount(at: Factory) -> None:
    launch = script(at, 'echo data > "$PLACE/new"')
    place = beside(launch, "data", "")
    mounts = (Mount(launch.directory, writable=True), Mount(str(place), writable=True))
    launch = replace(launch, env={**launch.env, "PLACE": str(place)}, mounts=mounts)
    assert await ended(await started(at.driver(), launch)) == Exit(0, None)
    assert (place / "new").read_text() == "data\n"


async def who_contains_shows_no_more_than_the_mounts_and_writes_to_no_read_only_one(at: Factory) -> None:
    launch = script(at, 'cat "$SEEN/is"; echo x > "$SEEN/is"; test -e "$HIDDEN/is" && echo seen; exit 0')
    seen, hidden = (beside(launch, name, "there\n") for name in ("seen", "hidden"))
    launch = replace(
        launch,
        env={**launch.env, "SEEN": str(seen), "HIDDEN": str(hidden)},
        mounts=(Mount(launch.directory, writable=True), Mount(str(seen))),
    )
    assert await ended(await started(at.driver(), launch)) == Exit(0, None)
    assert out(launch) == "there\n"
    assert (seen / "is").read_text() == "there\n"


async def it_holds_the_descriptors_it_was_given_from_3_on(at: Factory) -> None:
    first, second = socket.socket(), socket.socket()
    with first, second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        text = 'echo "$LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID $$"; readlink /proc/self/fd/3 /proc/self/fd/4'
        launch = script(
            at, f"{text}; ls /proc/self/fd | wc -l", descriptors={"web": second.fileno(), "admin": first.fileno()}
        )
        wanted = [behind(one.fileno()) for one in (second, first)]
        assert await ended(await started(at.driver(), launch)) == Exit(0, None)
    told, *links, count = out(launch).splitlines()
    fds, names, listener, pid = told.split()
    assert (fds, names, listener) == ("2", "web:admin", pid)
    assert links == wanted
    assert int(count) == 6, "0, 1, 2, both, and the directory that ls reads"


async def a_program_that_is_not_there_says_why_with_and_without_limits_and_descriptors(at: Factory) -> None:
    with socket.socket() as one:
        for about in ({}, {"limits": {"files": 100}}, {"descriptors": {"a": one.fileno()}}):
            launch = script(at, "", argv=("no-such-program-anywhere",), **about)
            with pytest.raises(FailedError) as caught:
                await started(at.driver(), launch)
            assert caught.value.code == "start.cannot_exec"
            assert "not found" in caught.value.message


async def nothing_of_it_is_left_when_it_is_killed(at: Factory) -> None:
    launch = script(at, "setsid sh -c 'echo there; sleep 600; echo lived' & wait")
    one = await started(at.driver(), launch)
    await until(lambda: out(launch) == "there\n")
    assert await one.kill(deadline=TIMES) == ()
    assert not living(launch.env)


async def what_outlives_its_program_is_killed_with_it(at: Factory) -> None:
    launch = script(at, "setsid sleep 600 & exit 3")
    one = await started(at.driver(), launch)
    assert await ended(one) == Exit(3, None)
    assert await one.kill(deadline=TIMES) == ()
    assert not living(launch.env)


async def it_runs_as_the_user_it_is_to_be(at: Factory) -> None:
    launch = script(at, "id -u; id -G", user="65534:65534")
    let_through(launch.directory)
    assert await ended(await started(at.driver(), launch)) == Exit(0, None)
    assert out(launch) == "65534\n65534\n"


def let_through(directory: str) -> None:
    """Let others pass to a directory below pytest's."""
    for place in (Path(directory), *Path(directory).parents):
        if any(part.startswith("pytest-") for part in place.parts):
            place.chmod(0o755)


def living(env: Mapping[str, str]) -> list[str]:
    """The command lines of living processes that were started with the test's mark."""
    mark = f"DSMT_TEST={env['DSMT_TEST']}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state = place.joinpath("stat").read_text().rpartition(")")[2].split()[0]
            environment = place.joinpath("environ").read_bytes().split(b"\0")
            if state not in "ZX" and mark in environment and place.name != str(os.getpid()):
                found.append(place.joinpath("cmdline").read_text())
        except OSError:
            continue
    return found


Test = Callable[[Factory], Awaitable[None]]

EVERY: tuple[Test, ...] = (
    a_program_runs_until_it_ends_and_all_who_wait_hear_how,
    what_it_prepared_it_prepares_again_at_once,
    what_is_prepared_for_is_started_again_and_again,
    a_program_that_is_asked_to_end_ends,
    a_program_that_does_not_listen_is_killed,
    a_later_driver_of_the_container_adopts_by_the_handle_it_is_given,
    what_has_ended_is_not_adopted,
    each_program_has_a_handle_of_its_own,
    a_container_is_cleared_but_for_what_is_spared_and_no_other_is,
    what_it_promises_is_in_the_closed_lists,
)
REAL: tuple[Test, ...] = (
    it_gets_its_directory_environment_and_logs,
    its_limits_hold_from_the_beginning,
    it_may_write_to_a_writable_mount,
    it_holds_the_descriptors_it_was_given_from_3_on,
    a_program_that_is_not_there_says_why_with_and_without_limits_and_descriptors,
    nothing_of_it_is_left_when_it_is_killed,
    what_outlives_its_program_is_killed_with_it,
)
CONTAINED: tuple[Test, ...] = (who_contains_shows_no_more_than_the_mounts_and_writes_to_no_read_only_one,)
OTHERS: tuple[Test, ...] = (it_runs_as_the_user_it_is_to_be,)

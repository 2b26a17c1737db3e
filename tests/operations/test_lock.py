"""One at a time makes, starts or ends what is in a home (rule C16)."""

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest

from dsmt.cli.root import main
from dsmt.errors import RefusedError
from dsmt.operations.local.home import lock
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import init
from tests.waiting import until


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(lock, "TOLD_S", 0.01)
    return Home(tmp_path / "home")


def test_of_two_who_make_a_realm_one_does_and_the_other_finds_it(home: Home) -> None:
    inside: list[str] = []

    async def made(name: str) -> str:
        async with alone(home):
            inside.append(name)
            await asyncio.sleep(0)  # the other has its turn
            assert inside == [name]
            inside.clear()
            init(home, name=name)
        return name

    async def both() -> list[str | BaseException]:
        return await asyncio.gather(made("one"), made("other"), return_exceptions=True)

    first, second = asyncio.run(both())
    assert home.realm().name == first
    assert isinstance(second, RefusedError)
    assert "holds a realm already" in second.message


def test_of_two_one_is_inside_also_where_the_file_or_the_home_was_removed_meanwhile(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[str] = []
    opened: list[int] = []
    most = 0
    real = lock._opened

    def noted(*about: object) -> int:
        opened.append(real(*about))
        return opened[-1]

    monkeypatch.setattr(lock, "_opened", noted)

    async def works(name: str) -> None:
        nonlocal most
        async with alone(home):
            inside.append(name)
            most = max(most, len(inside))
            await until(lambda: len(opened) > 1)
            for file in home.root.iterdir():
                file.unlink()
            home.root.rmdir()
            await asyncio.sleep(0.02)
            inside.remove(name)

    async def scenario() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(works("first"))
            group.create_task(works("second"))

    asyncio.run(scenario())
    assert most == 1


def test_a_pipe_in_the_place_of_the_lock_holds_nobody_up(home: Home) -> None:
    home.root.mkdir()
    os.mkfifo(home.root / "home.lock")

    async def scenario() -> None:
        async with asyncio.timeout(20), alone(home):
            pass

    asyncio.run(scenario())


def test_who_waits_is_told_once_for_whom(home: Home) -> None:
    told: list[str] = []

    heard = asyncio.Event()

    def hear(held: str) -> None:
        told.append(held)
        heard.set()

    async def waiting() -> None:
        async with alone(home, hear):
            told.append("mine")

    async def scenario() -> None:
        async with alone(home), asyncio.timeout(20):
            second = asyncio.create_task(waiting())
            await heard.wait()
        await second

    asyncio.run(scenario())
    assert told == [f"another dsmt, pid {os.getpid()}, is at work on {home.root}", "mine"]


def test_who_was_killed_with_the_lock_has_it_no_more(home: Home) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:

        async def for_ever() -> None:
            async with alone(home):
                os.write(tell, b"x")
                await asyncio.Event().wait()

        asyncio.run(for_ever())
        os._exit(0)
    assert os.read(ready, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    async def next_one() -> None:
        async with asyncio.timeout(20), alone(home):
            pass

    asyncio.run(next_one())


def test_a_lock_without_a_realm_is_no_realm(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    async def nothing() -> None:
        async with alone(home):
            pass

    asyncio.run(nothing())
    assert not home.exists
    assert main(["--home", str(home.root), "ps"]) != 0
    assert "there is no realm in" in capsys.readouterr().err


def test_another_users_home_is_said_to_be_theirs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *_: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    async def work() -> None:
        async with alone(home):
            raise AssertionError

    init(home, name="test")
    monkeypatch.setattr("dsmt.operations.local.home.lock.os.open", denied)
    with pytest.raises(RefusedError, match="who alone makes, starts or ends what is in it") as refused:
        asyncio.run(work())
    owner = home.root.owner()
    assert f"is of user {owner}," in refused.value.message
    assert refused.value.next.startswith(f"do this as {owner}, or ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root works on a home of another user")
def test_the_lock_of_a_home_is_of_the_user_that_the_home_is_of_whoever_made_it(home: Home) -> None:
    home.root.mkdir()
    os.chown(home.root, 12_345, 12_345)

    async def work() -> None:
        async with alone(home):
            pass

    asyncio.run(work())
    made = (home.root / lock.LOCK_FILE).stat()
    assert (made.st_uid, made.st_gid) == (12_345, 12_345), "or its own user could do nothing more"


def test_who_had_not_to_wait_is_told_of_nobody(home: Home) -> None:
    told = list[str]()

    async def work() -> None:
        async with alone(home, told.append):
            await asyncio.sleep(5 * lock.TOLD_S)

    asyncio.run(work())
    assert told == []

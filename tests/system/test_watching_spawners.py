"""Who watches a spawner while this machine is short of means."""

import asyncio
import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import pytest

from dsmt.system import processes
from dsmt.system.processes import SpawnedProcesses, watch_spawner
from dsmt.system.procfs import identity_of
from tests.waiting import until


def _no_descriptor(*_: object) -> Never:
    raise OSError(errno.EMFILE, "Too many open files")


def test_who_has_no_descriptor_left_for_a_moment_goes_on_to_watch_its_spawner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody starts another one when it dies, and nobody knows that until then."""
    own, asked, watched = identity_of(os.getpid()), list[bool](), list[Any]()

    def watch(*about: Any, really: Any = processes.watch) -> Any:
        watched.append(about)
        return _no_descriptor() if len(watched) == 1 else really(*about)

    async def is_silent(spawned: SpawnedProcesses, really: Any = SpawnedProcesses.is_silent) -> bool:
        asked.append(await really(spawned))
        return asked[-1]

    monkeypatch.setattr(processes, "spawner_of", lambda _: own)
    monkeypatch.setattr(processes, "watch", watch)
    monkeypatch.setattr(SpawnedProcesses, "is_silent", is_silent)

    async def main() -> None:
        watching = asyncio.ensure_future(watch_spawner("/nowhere", pause_s=0.0, ask_s=0.01))
        await until(lambda: watching.done() or len(watched) == 2)
        monkeypatch.setattr(processes, "identity_of", _no_descriptor)
        asked.clear()
        await until(lambda: watching.done() or len(asked) == 4)
        assert not any(asked), "who cannot ask it knows nothing of it"
        assert not watching.done()
        watching.cancel()
        await asyncio.wait({watching})

    asyncio.run(main())


def test_a_spawner_is_killed_that_has_not_answered_three_times_in_a_row_and_not_for_more_of_them_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, killed = iter([True, True, False] * 3 + [True] * 3), list[int]()

    async def main() -> None:
        over = asyncio.get_running_loop().create_future()

        async def is_silent(_: SpawnedProcesses) -> bool:
            assert not killed
            return next(answers)

        def signalled(number: int) -> None:
            killed.append(number)
            over.set_result(None)

        monkeypatch.setattr(SpawnedProcesses, "is_silent", is_silent)
        watched: Any = SimpleNamespace(wait=lambda: asyncio.shield(over), signal=signalled)
        await processes._ended_or_killed("/nowhere", watched, 0.001)

    asyncio.run(main())
    assert (killed, list(answers)) == ([signal.SIGKILL], [])


def test_where_its_directory_was_moved_no_other_spawner_is_started_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was, in a directory that was made for it: `down` in the home that had been moved did not find it."""
    started, looked, lock = list[str](), list[str](), tmp_path / "spawner.lock"
    monkeypatch.setattr(processes, "spawner_of", looked.append)
    monkeypatch.setattr(processes, "start_spawner", lambda directory, _: started.append(directory))

    async def main() -> None:
        lock.touch()
        watching = asyncio.ensure_future(watch_spawner(str(tmp_path), pause_s=0.0))
        await until(lambda: started)
        lock.unlink()
        looked.clear()
        await until(lambda: looked)
        started.clear()
        await until(lambda: len(looked) > 2)
        assert not started
        lock.touch()
        await until(lambda: started)
        watching.cancel()
        await asyncio.wait({watching})

    asyncio.run(main())

"""Every driver keeps the port's contract: those of the registry with real programs, and the simulator's."""

import asyncio
import os
import re
from pathlib import Path

import pytest

import dsmt
from dsmt.agents.drivers import MAKERS, roots_of
from dsmt.agents.rules.record import InstanceRecord
from dsmt.ports.driver import Handle, Launch, Mount
from dsmt.simulator.engine.host import Host
from dsmt.simulator.engine.rng import Stream
from dsmt.simulator.engine.run import run as simulate
from dsmt.simulator.programs import FAILS, Habits, SimDriver
from dsmt.spec.drivers import BUILT, DRIVERS
from dsmt.system.procfs import become_subreaper
from dsmt.system.watch import nobody

from .contract import CONTAINED, EVERY, OTHERS, REAL, kept, started

SCRIPTS = {
    "stays": "trap 'exit 0' TERM; echo ready; sleep 600 & wait",
    "fails": "exit 1",
    "stubborn": "trap '' TERM; echo ready; while :; do sleep 1; done",
}


class Real:
    """A driver of the registry, with programs of `sh`."""

    def __init__(self, word, place, env):
        self._make, self._place, self._env = MAKERS[word], place, env
        self._launches = 0
        (place / "files").mkdir()
        become_subreaper()

    def run(self, main):
        asyncio.run(main)

    def driver(self, container="one"):
        return self._make(str(self._place / container), nobody)

    def launch(self, what):
        self._launches += 1
        return Launch(
            argv=("/bin/sh", "-c", SCRIPTS.get(what, what)),
            directory=str(self._place / "files"),
            env={"PATH": os.environ["PATH"], **self._env},
            stdout=str(self._place / f"out{self._launches}"),
            stderr=str(self._place / f"err{self._launches}"),
            mounts=(Mount(str(self._place / "files"), writable=True),),
        )

    def ready(self, launch):
        return "ready" in Path(launch.stdout).read_text()


class Simulated:
    """The simulator's driver, whose programs do what its habits say."""

    def __init__(self):
        self._host = None
        self._stubborn = 0.0

    def run(self, main):
        simulate(main)

    def driver(self, container="one"):
        if self._host is None:
            self._host = Host(asyncio.get_running_loop(), "n1", "10.0.0.1", Stream(7), [])
        return SimDriver(self._host, container, Habits(life_s=1e9, stubborn=self._stubborn))

    def launch(self, what):
        self._stubborn = 1.0 if what == "stubborn" else 0.0
        return Launch((what, FAILS) if what == "fails" else (what,), "/d", {"DSMT_INSTANCE": what}, "o", "e")

    def ready(self, launch):
        return True


def clauses(word):
    """What a driver of the registry is held to: what its row and it itself promise."""
    others = "any" in MAKERS[word]("", nobody).users
    return (*EVERY, *REAL, *(CONTAINED if DRIVERS[word].contains else ()), *(OTHERS if others else ()))


HELD = [("simulator", one) for one in EVERY] + [(word, one) for word in BUILT for one in clauses(word)]


@pytest.mark.parametrize(("word", "holds"), [pytest.param(word, one, id=f"{one.__name__}-{word}") for word, one in HELD])
def test_every_driver(word, holds, tmp_path, leaves_nothing):
    at = Simulated() if word == "simulator" else Real(word, tmp_path, leaves_nothing)
    at.run(holds(at))


@pytest.mark.parametrize("word", BUILT)
def test_whoever_is_no_agent_finds_the_process_of_a_program_by_its_handle(word, tmp_path, leaves_nothing):
    """`dsmt down`, for one, has nothing but the record of an agent that is dead."""
    at = Real(word, tmp_path, leaves_nothing)

    async def main():
        driver = at.driver()
        instance = await started(driver, at.launch("stays"))
        record = InstanceRecord(boot="", driver=word, process=kept(instance.handle))
        assert [root.pid for root in roots_of(record)] == [instance.pid]
        assert driver.root(Handle({"of": "another driver"})) is None
        assert await instance.kill(deadline=5.0) == ()

    at.run(main())


def test_no_agent_names_a_process_of_an_instance():
    rooms = [Path(dsmt.__file__).parent / "agents" / room for room in ("instance", "rules")]
    named = [path for room in rooms for path in room.glob("*.py") if re.search(r"\bIdentity\b(?!`)", path.read_text())]
    assert named == [], "a handle is its driver's own"


def test_each_built_row_of_the_registry_is_a_driver_and_no_other_is():
    assert tuple(MAKERS) == BUILT == tuple(word for word, row in DRIVERS.items() if row.adapter)

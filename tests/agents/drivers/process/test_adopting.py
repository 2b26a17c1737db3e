"""The process driver finds again what an earlier agent started: to adopt it, or to end it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace

from dsmt.agents.drivers import process
from dsmt.agents.drivers.process import ProcessDriver, ProcessInstance
from dsmt.errors import InputError
from dsmt.ports.processes import Exit, ProcessIdentity
from dsmt.system.marks import UNMARKED, borne_by
from dsmt.system.process_tree import Tree, kill_owned
from dsmt.system.procfs import identity_of, is_alive, pids, stat_of
from tests.loops import in_real_time
from tests.waiting import until

from .programs import DAEMON, handle_of, who

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


FIRST_AGENT = """
import asyncio, sys, msgspec
from dsmt.agents.drivers.process import ProcessDriver
from dsmt.ports.driver import Launch

async def main():
    driver = ProcessDriver(sys.argv[2])
    instance = await driver.start(msgspec.json.decode(sys.argv[1], type=Launch))
    sys.stdout.buffer.write(msgspec.json.encode(instance.handle) + b"\\n")
    sys.stdout.flush()
    await asyncio.sleep(600)

asyncio.run(main())
"""


def _first_agent(launch):
    """Have another process start an instance, then SIGKILL that process; who the instance is."""
    argv = [sys.executable, "-c", FIRST_AGENT, msgspec.json.encode(launch), launch.directory]
    agent = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    try:
        return msgspec.json.decode(agent.stdout.readline(), type=ProcessIdentity)
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()


def test_an_instance_survives_its_agent_and_is_adopted_with_its_daemons(launch, said, cleanup, tmp_path):
    identity = _first_agent(launch(DAEMON))
    cleanup.append(identity)

    async def main():
        await until(lambda: said().endswith("\n"))
        escaped = identity_of(int(said()))
        cleanup.append(escaped)
        instance = await ProcessDriver(str(tmp_path)).adopt(handle_of(identity))
        assert who(instance) == identity
        assert await instance.kill(deadline=10) == ()
        assert not is_alive(identity)
        assert not is_alive(escaped)
        assert await instance.wait() == Exit(None, signal.SIGKILL)

    asyncio.run(main())


def test_who_finds_that_one_program_of_its_owner_has_ended_ends_no_other_one(launch, said, cleanup, tmp_path, monkeypatch):
    """The copy before, while its successor started: that is taken over next."""
    gone, other = (_first_agent(launch("import time; time.sleep(600)")) for _ in range(2))
    cleanup.extend((gone, other))
    sent = []
    monkeypatch.setattr(process, "send_signal", lambda who, _number: sent.append(who))

    async def main():
        driver = ProcessDriver(str(tmp_path))
        os.kill(gone.pid, signal.SIGKILL)
        await until(lambda: _is_reaped(gone))
        assert await driver.adopt(handle_of(gone)) is None
        assert sent == []
        instance = await driver.adopt(handle_of(other))
        assert instance is not None
        assert await instance.kill(deadline=10) == ()

    asyncio.run(main())


def test_what_an_instance_left_that_died_unwatched_is_found_by_its_container_alone(launch, said, cleanup, tmp_path):
    identity = _first_agent(launch(DAEMON))
    cleanup.append(identity)

    async def main():
        await until(lambda: said().endswith("\n"))
        escaped = identity_of(int(said()))
        cleanup.append(escaped)
        os.kill(identity.pid, signal.SIGKILL)
        await until(lambda: not is_alive(identity))
        assert is_alive(escaped)
        driver, other = ProcessDriver(str(tmp_path)), ProcessDriver(str(tmp_path / "other"))
        assert await driver.adopt(handle_of(identity)) is None
        assert await other.clear(deadline=10) == ()
        assert await ProcessDriver().clear(deadline=10) == ()
        assert is_alive(escaped)
        assert await driver.clear(deadline=10) == ()
        assert not is_alive(escaped)

    asyncio.run(main())


def _is_reaped(identity):
    """Whether nothing is left of a dead process; it is our child where an earlier test made this process a subreaper."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(identity.pid, os.WNOHANG)
    return identity_of(identity.pid) is None


def test_a_session_whose_leader_is_gone_is_nobodys_where_its_number_may_be_anothers(launch, said, cleanup):
    """What a leader leaves that is no descendant of ours is ended by its mark, and not by the number of its session."""
    code = """
        import os, sys, time
        if os.fork() == 0:
            if os.fork() == 0:
                os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
            os._exit(0)
        os.wait()
        print("ready", flush=True)
        time.sleep(600)
    """
    identity = _first_agent(launch(code))
    cleanup.append(identity)

    async def main():
        await until(lambda: "ready" in said())
        tree = Tree(identity, UNMARKED, ours=False)
        left = {one for one in tree.members() if one != identity}
        cleanup.extend(left)
        assert len(left) == 1
        os.kill(identity.pid, signal.SIGKILL)
        await until(lambda: not is_alive(identity))
        await until(lambda: _is_reaped(identity))
        assert tree.members() == left, "who was seen belongs to it for good"
        assert Tree(identity, UNMARKED, ours=False).members() == set()

    asyncio.run(main())


WORKER = """
    import os, time
    if os.fork() == 0:
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "600"], {})
        os._exit(0)
    os.wait()
    print("ready", flush=True)
    time.sleep(600)
"""
"""Like a web server that writes over its environment: its worker is in its session, and bears no mark."""


def test_what_an_adopted_program_leaves_in_its_session_when_it_is_killed_ends_with_it(launch, said, cleanup, tmp_path):
    identity = _first_agent(launch(WORKER))
    cleanup.append(identity)

    async def main():
        await until(lambda: "ready" in said())
        await until(lambda: left(identity))
        cleanup.extend(left(identity))
        (worker,) = left(identity)
        with _second_agent(identity, tmp_path) as agent:
            assert agent.stdout.readline() == b"watches\n"
            agent.send_signal(signal.SIGSTOP)  # it looks when the leader is gone, and not before
            os.kill(identity.pid, signal.SIGKILL)
            await until(lambda: _is_reaped(identity))
            agent.send_signal(signal.SIGCONT)
            assert agent.stdout.readline() == b"()\n"
        assert not is_alive(worker)

    asyncio.run(main())


SECOND_AGENT = """
import asyncio, sys, msgspec
from dsmt.agents.drivers.process import ProcessDriver
from dsmt.ports.processes import ProcessIdentity

async def main():
    who = msgspec.json.decode(sys.argv[1], type=ProcessIdentity)
    handle = {"pid": who.pid, "started": who.started, "boot": who.boot}
    instance = await ProcessDriver(sys.argv[2]).adopt(handle)
    print("watches", flush=True)
    await instance.wait()
    print(await instance.kill(deadline=10), flush=True)

asyncio.run(main())
"""


@contextlib.contextmanager
def _second_agent(identity, directory):
    """An agent that has taken over a program whose agent was killed."""
    argv = [sys.executable, "-c", SECOND_AGENT, msgspec.json.encode(identity), str(directory)]
    agent = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        yield agent
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()


def left(leader):
    """Who lives in the session of a leader, but the leader itself."""
    stats = [stat for pid in pids() if (stat := stat_of(pid)) is not None and stat.session == leader.pid and not stat.dead]
    return [identity_of(stat.pid) for stat in stats if stat.pid != leader.pid]


def test_a_program_that_is_spared_lives_on_with_all_that_it_forked_and_another_one_does_not(launch, said, cleanup, tmp_path):
    old = _first_agent(launch(DAEMON))
    cleanup.append(old)

    async def main():
        await until(lambda: said().endswith("\n"))
        escaped = identity_of(int(said()))
        new = await ProcessDriver(str(tmp_path)).start(launch(argv=("sleep", "60")))
        cleanup.extend((escaped, who(new)))
        driver = ProcessDriver(str(tmp_path))
        assert await driver.clear(deadline=10, spared=(handle_of(old),)) == ()
        assert (await asyncio.wait_for(new.wait(), 20)).code is None, "it was killed"
        assert (is_alive(old), is_alive(escaped), is_alive(who(new))) == (True, True, False)

    asyncio.run(main())


def test_a_program_that_is_spared_lives_on_though_it_has_set_its_limits_itself(launch, cleanup, tmp_path):
    """One of its marks is a limit, the other one is still that of its owner."""
    old = _first_agent(launch("import resource, time; resource.setrlimit(10, (1000, 1000)); time.sleep(600)"))
    cleanup.append(old)

    async def main():
        await until(lambda: borne_by(old.pid) == 1000)
        assert await ProcessDriver(str(tmp_path)).clear(deadline=10, spared=(handle_of(old),)) == ()
        assert is_alive(old)
        assert await ProcessDriver(str(tmp_path)).clear(deadline=10) == ()
        assert not is_alive(old)

    asyncio.run(main())


@in_real_time
async def test_who_has_the_number_of_a_program_that_was_to_be_spared_and_is_gone_is_not_spared(launch, cleanup, tmp_path):
    driver = ProcessDriver(str(tmp_path))
    new = await driver.start(launch(argv=("sleep", "60")))
    cleanup.append(who(new))
    gone = replace(who(new), started=who(new).started - 1)
    assert await driver.clear(deadline=10, spared=(handle_of(gone),)) == ()
    assert (await asyncio.wait_for(new.wait(), 20)).code is None, "it was killed"


def test_all_that_an_owners_agents_started_is_found_and_killed(launch, said, cleanup, tmp_path):
    identity = _first_agent(launch(DAEMON))
    cleanup.append(identity)

    async def main():
        await until(lambda: said().endswith("\n"))
        escaped = identity_of(int(said()))
        cleanup.append(escaped)
        os.kill(identity.pid, signal.SIGKILL)
        assert await kill_owned(f"{tmp_path}/other", deadline=10) == ()
        assert is_alive(escaped)
        assert await kill_owned(str(tmp_path), deadline=10) == ()
        assert not is_alive(escaped)
        assert not is_alive(identity)

    asyncio.run(main())


def test_an_owner_that_other_nodes_of_this_machine_might_have_is_refused():
    with pytest.raises(InputError):
        ProcessDriver("web/app/0")


@in_real_time
async def test_another_process_with_the_same_pid_is_neither_adopted_nor_harmed(launch, said, tmp_path):
    driver = ProcessDriver(str(tmp_path))
    code = """
            import os, signal, time
            signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"alive "))  # a print within a print ends the program
            os.write(1, b"ready ")
            while True:
                time.sleep(600)
        """
    instance = await driver.start(launch(code))
    await until(lambda: "ready" in said())
    real = who(instance)
    before = replace(real, started=real.started - 1)
    late = SimpleNamespace(pid=real.pid, identity=before, ended=None)  # its end was not heard of yet
    ProcessInstance(late, "", ours=False).signal(signal.SIGKILL)
    for number, other in enumerate((replace(real, started=real.started - 1), replace(real, boot="another")), 1):
        assert await driver.adopt(handle_of(other)) is None
        assert await ProcessDriver(str(tmp_path / "other")).adopt(handle_of(other)) is None
        instance.signal(signal.SIGUSR1)
        await until(lambda number=number: said().count("alive") == number)
    assert await instance.kill(deadline=10) == ()

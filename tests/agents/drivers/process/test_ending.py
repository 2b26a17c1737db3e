"""The process driver ends a program with all that it forked, wherever that went, and nobody else."""

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dsmt.agents.drivers.process import ProcessDriver
from dsmt.ports.processes import Exit
from dsmt.system.marks import UNMARKED
from dsmt.system.process_tree import Tree
from dsmt.system.procfs import children, identity_of, is_alive, stat_of
from tests.loops import in_real_time
from tests.waiting import until

from .programs import DAEMON, who

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


@in_real_time
async def test_a_signal_reaches_the_whole_group(launch, said):
    code = "import os, time\nif os.fork() == 0:\n print('here', flush=True)\ntime.sleep(600)"
    instance = await ProcessDriver().start(launch(code))
    await until(lambda: said() == "here\n")
    (child,) = _members(instance) - {who(instance)}
    instance.signal(signal.SIGTERM)
    assert await instance.wait() == Exit(None, signal.SIGTERM)
    await until(lambda: not is_alive(child))
    assert await instance.kill(deadline=5) == ()


def _members(instance):
    """The living processes of an instance, by the driver's own eyes."""
    return Tree(who(instance), instance._mark, ours=True).members()


def test_a_double_fork_does_not_escape_and_other_children_are_spared(launch, said, cleanup):
    command = subprocess.Popen(["sleep", "600"], start_new_session=True)

    async def main():
        driver = ProcessDriver()
        other = await driver.start(launch("import time; time.sleep(600)"))
        cleanup.extend([who(other), identity_of(command.pid)])
        instance = await driver.start(launch(DAEMON))
        await until(lambda: said().endswith("\n"))
        escaped = identity_of(int(said()))
        cleanup.extend([who(instance), escaped])
        assert stat_of(escaped.pid).session not in (escaped.pid, who(instance).pid)
        assert await instance.kill(deadline=10) == ()
        assert not is_alive(escaped)
        assert not is_alive(who(instance))
        assert await instance.wait() == Exit(None, signal.SIGKILL)
        assert is_alive(who(other))
        assert command.poll() is None
        command.kill()
        command.wait()
        assert await other.kill(deadline=10) == ()

    asyncio.run(main())


ESCAPING = """
    import os, resource, signal, sys, time
    if sys.argv[1] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reads, writes = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.set_inheritable(writes, False)
        resource.setrlimit(10, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os.close(writes)
    os.read(reads, 1)
    print("ready", flush=True)
    time.sleep(600)
"""
"""Its child has a session of its own and takes off both forms of its mark; the pipe closes when it is exec'd."""


@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize("way", ["obedient", "stubborn", "asked elsewhere"])
@in_real_time
async def test_a_child_that_left_session_and_marks_ends_with_its_living_parent(launch, said, cleanup, way, adopted):
    driver = ProcessDriver()
    one = await driver.start(launch(argv=(sys.executable, "-c", textwrap.dedent(ESCAPING), way)))
    await until(lambda: "ready" in said())
    child = identity_of(children(one.pid)[0])
    cleanup.extend([who(one), child])
    if adopted:
        one = await driver.adopt(one.handle)
        one._ours = False
    if way == "asked elsewhere":  # by its stop command
        one.look()
        os.kill(one.pid, signal.SIGTERM)
    else:
        one.signal(signal.SIGTERM)
    if way != "stubborn":
        await one.wait()
    assert is_alive(child)
    assert await one.kill(deadline=10) == ()
    assert not is_alive(child)


@in_real_time
async def test_who_escapes_again_and_again_is_killed_with_its_parent(launch, said):
    code = """
            import os, resource, time
            while True:
                if os.fork() == 0:
                    os.setsid()
                    resource.setrlimit(10, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                    os.execve("/bin/sleep", ["sleep", "600.7113"], {})
                print("go", flush=True)
                time.sleep(0.001)
        """
    one = await ProcessDriver().start(launch(code))
    await until(lambda: said().count("go") > 20)
    before = children(os.getpid())
    assert await one.kill(deadline=20) == ()
    left = [pid for pid in children(os.getpid()) if pid not in before and (stat := stat_of(pid)) and not stat.dead]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@in_real_time
async def test_what_outlives_its_program_is_killed_too(launch, said, cleanup):
    code = "import os, time\nif os.fork() == 0:\n print(os.getpid(), flush=True)\n time.sleep(600)\nraise SystemExit(1)"
    instance = await ProcessDriver().start(launch(code))
    assert await instance.wait() == Exit(1, None)
    await until(lambda: said().endswith("\n"))
    left = identity_of(int(said()))
    cleanup.append(left)
    assert await instance.kill(deadline=10) == ()
    assert not is_alive(left)
    assert stat_of(left.pid) is None


@in_real_time
async def test_a_storm_of_forks_is_killed_within_the_deadline(launch, said):
    code = """
            import os, time
            print("go", flush=True)
            for _ in range(200):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork():
                        os._exit(0)
                    time.sleep(600)
            time.sleep(600)
        """
    instance = await ProcessDriver().start(launch(code))
    await until(lambda: "go" in said())
    assert await instance.kill(deadline=20) == ()
    assert _members(instance) == set()


@in_real_time
async def test_kill_tells_who_does_not_die(launch, monkeypatch, cleanup):
    # A process that the kernel keeps from dying cannot be had on demand: here the signal is kept from the process.
    instance = await ProcessDriver().start(launch("import time; time.sleep(600)"))
    cleanup.append(who(instance))
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda *_: None)
        patch.setattr(signal, "pidfd_send_signal", lambda *_: None)
        assert await instance.kill(deadline=0.1) == (who(instance).pid,)
    assert await instance.kill(deadline=10) == ()


def test_an_instance_with_more_processes_than_we_may_have_descriptors_ends_with_all_of_them(launch, said):
    may = max(int(one.name) for one in Path("/proc/self/fd").iterdir()) + 100
    many = may + 100
    code = f"""
        import os, time
        for _ in range({many}):
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
        print("ready", flush=True)
        time.sleep(600)
    """

    async def main():
        instance = await ProcessDriver().start(launch(code))
        await until(lambda: "ready" in said())
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        members = Tree(who(instance), UNMARKED, ours=True).members()
        assert len(members) == many + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, before[1]))
        try:
            assert await instance.kill(deadline=20) == ()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert not any(map(is_alive, members))

    asyncio.run(main())


@in_real_time
async def test_whatever_goes_wrong_in_a_kill_nobody_is_left_stopped(launch, said, monkeypatch):
    instance = await ProcessDriver().start(launch("import time\nprint('ready', flush=True)\ntime.sleep(600)"))
    await until(lambda: "ready" in said())
    identity, looks = who(instance), []

    def look(tree):
        looks.append(tree)
        if len(looks) > 1:
            raise OSError(errno.EMFILE, "too many open files")
        return {identity}

    monkeypatch.setattr(Tree, "members", look)
    with pytest.raises(OSError, match="too many open files"):
        await instance.kill(deadline=10)
    assert await instance.wait() == Exit(None, signal.SIGKILL)

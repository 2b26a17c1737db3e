"""The process driver, against real programs."""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dsmt.agents.drivers import MAKERS
from dsmt.agents.drivers.limits import Limits
from dsmt.agents.drivers.process import ProcessDriver
from dsmt.errors import FailedError, InputError
from dsmt.ports.driver import Driver, Handle, Instance, Launch
from dsmt.ports.processes import Exit, Identity
from dsmt.system.procfs import become_subreaper, children, identity_of, is_alive, open_pidfd, stat_of
from dsmt.system.tree import Tree, kill_owned
from dsmt.system.watch import nobody

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


async def until(condition, seconds=20.0):
    """Wait for a condition with a deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.005)


def who(instance):
    """Which process an instance is, by the process driver's handle."""
    return msgspec.convert(instance.handle, Identity)


def handle_of(identity):
    return Handle(msgspec.to_builtins(identity))


@pytest.fixture(autouse=True)
def subreaper():
    """An agent is one, so its instances' orphans, and those of an earlier agent, are its children here."""
    become_subreaper()


@pytest.fixture
def cleanup():
    """Identities that must not outlive the test."""
    identities: list[Identity] = []
    yield identities
    for identity in identities:
        descriptor = open_pidfd(identity)
        if descriptor is not None:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)


@pytest.fixture
def launch(tmp_path, leaves_nothing):
    """What starts a program of Python, or another one, in the test's directory."""

    def make(code="", argv=None, limits=None, env=None):
        return Launch(
            argv=tuple(argv) if argv else (sys.executable, "-c", textwrap.dedent(code)),
            directory=str(tmp_path),
            env={"PATH": os.environ["PATH"]} | leaves_nothing | (env or {}),
            stdout=str(tmp_path / "out"),
            stderr=str(tmp_path / "err"),
            limits=limits or {},
        )

    return make


def written(path, text, mode):
    """A file with this text."""
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


@pytest.fixture
def said(tmp_path):
    """What the programs have written so far."""
    return (tmp_path / "out").read_text


def test_the_table_names_the_driver_and_it_fulfils_the_port(launch, cleanup):
    async def main():
        driver: Driver = MAKERS["process"]("/containers/web", nobody)
        assert driver.fence == "none"
        assert {"files", "memory"} <= set(driver.enforces) <= {"files", "memory", "pids"}
        instance: Instance = await driver.start(launch("raise SystemExit(3)"))
        cleanup.append(who(instance))
        assert await asyncio.gather(instance.wait(), instance.wait()) == [Exit(3, None)] * 2
        assert await instance.kill(deadline=5) == ()
        instance.signal(signal.SIGTERM)

    asyncio.run(main())


def test_a_program_gets_its_directory_environment_logs_and_session(launch, tmp_path, said):
    (tmp_path / "out").write_text("kept\n")

    async def main():
        code = """
            import os, sys
            fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1]
            print(os.getcwd(), os.environ["NAME"], os.getsid(0) == os.getpid(), fds, sys.stdin.read() == "")
            print("to the other", file=sys.stderr)
        """
        instance = await ProcessDriver().start(launch(code, env={"NAME": "value"}))
        assert await instance.wait() == Exit(0, None)

    asyncio.run(main())
    assert said() == f"kept\n{tmp_path} value True [0, 1, 2] True\n"
    assert (tmp_path / "err").read_text() == "to the other\n"


def test_one_log_may_serve_both_outputs(launch, tmp_path, said):
    async def main():
        plain = launch("import sys; print('a', flush=True); print('b', file=sys.stderr, flush=True); print('c')")
        one = Launch(plain.argv, plain.directory, plain.env, plain.stdout, plain.stdout)
        assert await (await ProcessDriver().start(one)).wait() == Exit(0, None)

    asyncio.run(main())
    assert said() == "a\nb\nc\n"


def _write(path: Path, content: bytes, mode: int) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda here: "./nothing", "not found"),
        (lambda here: "no-such-program-anywhere", "not found"),
        (lambda here: _write(here / "plain", b"#!/bin/sh\n", 0o644), "not executable"),
        (str, "not executable"),
        (lambda here: _write(here / "text", b"\x00\x01 not a program", 0o755), "wrong machine type"),
        (lambda here: _write(here / "script", b"#!/no/such/interpreter\n", 0o755), "interpreter"),
    ],
)
def test_a_program_that_cannot_be_executed_says_why(launch, tmp_path, make, word):
    program = make(tmp_path)

    async def main():
        with pytest.raises(FailedError) as caught:
            await ProcessDriver().start(launch(argv=[program, "argument"]))
        assert caught.value.code == "start.cannot_exec"
        assert caught.value.message.startswith(f"{program} in {tmp_path}: ")
        assert word in caught.value.message
        assert caught.value.next == "correct `run`, or `chmod +x`"

    asyncio.run(main())


def test_a_missing_directory_is_told_as_such(launch, tmp_path):
    async def main():
        plain = launch("pass")
        with pytest.raises(FailedError) as caught:
            await ProcessDriver().start(Launch(plain.argv, str(tmp_path / "gone"), plain.env, plain.stdout, plain.stderr))
        assert caught.value.code == "start.cannot_exec"
        assert "the directory is not found" in caught.value.message

    asyncio.run(main())


def test_what_is_not_the_programs_fault_is_the_drivers(launch, tmp_path):
    async def main():
        plain = launch("pass")
        for wrong in (
            Launch(plain.argv, plain.directory, plain.env, str(tmp_path / "no" / "out"), plain.stderr),
            Launch((*plain.argv, "x" * (1 << 22)), plain.directory, plain.env, plain.stdout, plain.stderr),
            Launch((*plain.argv, "a\0b"), plain.directory, plain.env, plain.stdout, plain.stderr),
        ):
            with pytest.raises(FailedError) as caught:
                await ProcessDriver().start(wrong)
            assert caught.value.code == "start.driver"

    asyncio.run(main())


def agent_like(launch, code, tmp_path, **limits):
    """Start a program from a process of its own, as an agent does, and wait for it: what it holds stays with it."""
    program = f"""
import asyncio, sys
from dsmt.agents.drivers.process import ProcessDriver
from dsmt.ports.driver import Launch

async def main():
    ended = await (await ProcessDriver().start({launch(code, limits=limits)!r})).wait()
    assert ended.code == 0, ended

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=tmp_path, env=dict(os.environ))


LIMITED = "import resource as r; print([r.getrlimit(k) for k in (r.RLIMIT_NOFILE, r.RLIMIT_NPROC, r.RLIMIT_AS)])"


@pytest.mark.parametrize("files", [100, 300], ids=["set by prlimit", "held by the agent"])
def test_limits_hold_before_the_programs_first_instruction_and_cannot_be_raised(launch, said, tmp_path, files):
    agent_like(launch, LIMITED, tmp_path, files=files, pids=50, memory=1 << 30, cpu=1, disk=1)
    assert said() == f"[({files}, {files}), (50, 50), ({1 << 30}, {1 << 30})]\n"


def test_limits_are_never_above_those_that_hold_already(launch, said, tmp_path):
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    agent_like(launch, LIMITED, tmp_path, files=files * 2)
    assert said().startswith(f"[({files}, {files}), ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
def test_a_program_that_changes_its_user_at_once_starts_each_time_with_its_limits(launch, said, tmp_path):
    argv = ("setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "ulimit -Hn; ulimit -n")
    for files in (65536 // 64, 100):
        for _ in range(10):
            (tmp_path / "out").unlink(missing_ok=True)
            agent_like(lambda _, limits: launch(argv=argv, limits=limits), "", tmp_path, files=files, pids=4096)
            assert said() == f"{files}\n{files}\n"


def test_an_agent_that_must_hold_more_than_it_has_left_ends_so_that_its_successor_can(monkeypatch):
    ended = []

    def refuse(_kind, _limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append((pid, number)))
    Limits._hold(resource.RLIMIT_NOFILE, 12345)
    assert ended == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda d: d / "missing", "not found"),
        (lambda d: d, "not executable"),
        (lambda d: written(d / "plain", "#!/bin/sh", 0o644), "not executable"),
        (lambda d: written(d / "noise", "noise", 0o755), "wrong machine type"),
        (lambda d: written(d / "lost", "#!/no/such", 0o755), "interpreter"),
    ],
)
def test_a_program_with_limits_that_cannot_be_executed_says_why_as_any_other(launch, tmp_path, make, word):
    argv = [str(make(tmp_path))]

    async def main():
        for limits in ({}, {"files": 100}):
            with pytest.raises(FailedError, match=word) as caught:
                await ProcessDriver().start(launch(argv=argv, limits=limits))
            assert caught.value.code == "start.cannot_exec"

    asyncio.run(main())


def test_memory_beyond_the_limit_is_not_given(launch):
    async def main():
        code = """
            try:
                bytearray(2 << 30)
            except MemoryError:
                raise SystemExit(9)
        """
        before = resource.getrlimit(resource.RLIMIT_AS)
        instance = await ProcessDriver().start(launch(code, limits={"memory": 1 << 30}))
        assert resource.getrlimit(resource.RLIMIT_AS) == before, "its agent goes on with what it needs"
        assert await instance.wait() == Exit(9, None)

    asyncio.run(main())


def test_a_signal_reaches_the_whole_group(launch, said):
    async def main():
        code = "import os, time\nif os.fork() == 0:\n print('here', flush=True)\ntime.sleep(600)"
        instance = await ProcessDriver().start(launch(code))
        await until(lambda: said() == "here\n")
        (child,) = _members(instance) - {who(instance)}
        instance.signal(signal.SIGTERM)
        assert await instance.wait() == Exit(None, signal.SIGTERM)
        await until(lambda: not is_alive(child))
        assert await instance.kill(deadline=5) == ()

    asyncio.run(main())


DAEMON = """
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        print(os.getpid(), flush=True)
        time.sleep(600)
    os.wait()
    time.sleep(600)
"""


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
    import os, signal, sys, time
    if sys.argv[1] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reads, writes = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.set_inheritable(writes, False)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os.close(writes)
    os.read(reads, 1)
    print("ready", flush=True)
    time.sleep(600)
"""
"""Its child has a session of its own and an empty environment; the pipe closes when it is exec'd."""


@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize("way", ["obedient", "stubborn", "asked elsewhere"])
def test_a_child_that_left_session_and_environment_ends_with_its_living_parent(launch, said, cleanup, way, adopted):
    async def main():
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

    asyncio.run(main())


def test_who_escapes_again_and_again_is_killed_with_its_parent(launch, said):
    async def main():
        code = """
            import os, time
            while True:
                if os.fork() == 0:
                    os.setsid()
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

    asyncio.run(main())


def test_what_outlives_its_program_is_killed_too(launch, said, cleanup):
    async def main():
        code = "import os, time\nif os.fork() == 0:\n print(os.getpid(), flush=True)\n time.sleep(600)\nraise SystemExit(1)"
        instance = await ProcessDriver().start(launch(code))
        assert await instance.wait() == Exit(1, None)
        await until(lambda: said().endswith("\n"))
        left = identity_of(int(said()))
        cleanup.append(left)
        assert await instance.kill(deadline=10) == ()
        assert not is_alive(left)
        assert stat_of(left.pid) is None

    asyncio.run(main())


def test_a_storm_of_forks_is_killed_within_the_deadline(launch, said):
    async def main():
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

    asyncio.run(main())


def test_kill_tells_who_does_not_die(launch, monkeypatch, cleanup):
    # A process that the kernel keeps from dying cannot be had on demand: here the signal is kept from the process.
    async def main():
        instance = await ProcessDriver().start(launch("import time; time.sleep(600)"))
        cleanup.append(who(instance))
        with monkeypatch.context() as patch:
            patch.setattr(os, "killpg", lambda *_: None)
            patch.setattr(signal, "pidfd_send_signal", lambda *_: None)
            assert await instance.kill(deadline=0.1) == (who(instance).pid,)
        assert await instance.kill(deadline=10) == ()

    asyncio.run(main())


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
        return msgspec.json.decode(agent.stdout.readline(), type=Identity)
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


def test_an_instance_with_more_processes_than_we_may_have_descriptors_ends_with_all_of_them(launch, said):
    many = 300
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
        members = Tree(who(instance), "", ours=True).members()
        assert len(members) == many + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        try:
            assert await instance.kill(deadline=20) == ()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert not any(map(is_alive, members))

    asyncio.run(main())


def test_whatever_goes_wrong_in_a_kill_nobody_is_left_stopped(launch, said, monkeypatch):
    async def main():
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
        tree = Tree(identity, "", ours=False)
        left = {one for one in tree.members() if one != identity}
        cleanup.extend(left)
        assert len(left) == 1
        os.kill(identity.pid, signal.SIGKILL)
        await until(lambda: not is_alive(identity))
        await until(lambda: _is_reaped(identity))
        assert tree.members() == left, "who was seen belongs to it for good"
        assert Tree(identity, "", ours=False).members() == set()

    asyncio.run(main())


def test_a_program_that_is_spared_lives_on_with_all_that_it_forked_and_another_one_does_not(launch, said, cleanup, tmp_path):
    old = _first_agent(launch(DAEMON))
    cleanup.append(old)

    async def main():
        await until(lambda: said().endswith("\n"))
        escaped = identity_of(int(said()))
        new = await ProcessDriver(str(tmp_path)).start(launch("sleep 60"))
        cleanup.extend((escaped, who(new)))
        driver = ProcessDriver(str(tmp_path))
        assert await driver.clear(deadline=10, spared=(handle_of(old),)) == ()
        await new.wait()
        assert (is_alive(old), is_alive(escaped), is_alive(who(new))) == (True, True, False)

    asyncio.run(main())


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


def test_another_process_with_the_same_pid_is_neither_adopted_nor_harmed(launch, said, tmp_path):
    async def main():
        driver = ProcessDriver(str(tmp_path))
        code = """
            import signal, time
            signal.signal(signal.SIGUSR1, lambda *_: print("alive", flush=True))
            print("ready", flush=True)
            while True:
                time.sleep(600)
        """
        instance = await driver.start(launch(code))
        await until(lambda: "ready" in said())
        real = who(instance)
        for number, other in enumerate((replace(real, started=real.started - 1), replace(real, boot="another")), 1):
            assert await driver.adopt(handle_of(other)) is None
            assert await ProcessDriver(str(tmp_path / "other")).adopt(handle_of(other)) is None
            instance.signal(signal.SIGUSR1)
            await until(lambda number=number: said().count("alive") == number)
        assert await instance.kill(deadline=10) == ()

    asyncio.run(main())


def test_a_program_that_dies_is_replaced_from_the_same_loop_many_times(launch):
    async def main():
        driver = ProcessDriver()
        program = launch(argv=["sleep", "600"])
        instance = await driver.start(program)
        for _ in range(50):
            os.kill(who(instance).pid, signal.SIGKILL)
            assert await instance.wait() == Exit(None, signal.SIGKILL)
            instance = await driver.start(program)
        assert await instance.kill(deadline=10) == ()

    before = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(main())
    assert len(list(Path("/proc/self/fd").iterdir())) == before

"""Processes: who they are, when they end, and what belongs to them."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from dsmt.ports.processes import Exit
from dsmt.system import process_tree
from dsmt.system import watch as watching
from dsmt.system.marks import MARK, UNMARKED, number_of
from dsmt.system.process_tree import Orphans, Tree
from dsmt.system.procfs import become_subreaper, children, descendants, identity_of, is_alive, open_pidfd, stat_of
from dsmt.system.watch import watch
from tests.waiting import seen, until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]

FORKS = """
import os, sys, time
# a child, a grandchild in a session of its own, and one orphaned in a session of its own
ready, tell = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
    os.write(tell, b".")
    time.sleep(600)
middle = os.fork()
if middle == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(tell, b".")
        time.sleep(600)
    os._exit(0)
os.waitpid(middle, 0)
for _ in range(3):
    os.read(ready, 1)
print("forked", flush=True)
time.sleep(600)
"""

ORPHAN = """
import os
if os.fork() == 0:
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os._exit(0)
    os.read(0, 1)
    os._exit(0)
os.wait()
"""


@pytest.fixture
def start():
    """Start programs of Python; kills what is left of them and of their sessions."""
    started = []

    def begin(code, **options):
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True, **options
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def mark(tmp_path):
    """A mark that no other process of the machine has."""
    return str(tmp_path)


def test_a_process_is_alive_until_its_last_thread_has_ended():
    code = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start();"
        "print('ready', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    identity = identity_of(child.pid)
    try:
        assert child.stdout.readline() == b"ready\n"
        seen(lambda: stat_of(child.pid).state == "Z", "that its first thread has ended", 10)
        assert is_alive(identity)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert not is_alive(identity)


def test_an_identity_tells_a_process_from_a_later_one_with_its_pid(start):
    child = start("input()", stdin=subprocess.PIPE)
    identity = identity_of(child.pid)
    assert is_alive(identity)
    for other in (replace(identity, started=identity.started - 1), replace(identity, boot="another")):
        assert not is_alive(other)
        assert open_pidfd(other) is None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert stat_of(child.pid).dead
    assert identity_of(child.pid) == identity
    assert not is_alive(identity)
    child.wait()
    assert identity_of(child.pid) is None


def test_children_and_descendants_are_found(start):
    child = start("import subprocess; subprocess.run(['sh', '-c', 'echo here; read x'])", stdin=subprocess.PIPE)
    assert child.stdout.readline() == "here\n"
    assert child.pid in children(os.getpid())
    (shell,) = children(child.pid)
    assert descendants(child.pid) == [shell]
    assert descendants(os.getpid()).index(child.pid) < descendants(os.getpid()).index(shell)
    child.stdin.close()
    child.wait()
    assert children(child.pid) == []


@pytest.mark.parametrize(
    ("code", "ended"), [("raise SystemExit(7)", Exit(7, None)), ("import os; os.kill(os.getpid(), 9)", Exit(None, 9))]
)
def test_a_watch_tells_how_a_child_ended_to_all_who_wait(start, code, ended):
    child = start("import sys; sys.stdin.read();" + code, stdin=subprocess.PIPE)
    child.returncode = 0  # the watch reaps

    async def main():
        watched = watch(identity_of(child.pid))
        cancelled = asyncio.ensure_future(watched.wait())
        await asyncio.sleep(0)
        cancelled.cancel()
        waits = [asyncio.ensure_future(watched.wait()) for _ in range(3)]
        child.stdin.close()
        assert await asyncio.gather(*waits) == [ended] * 3
        assert await watched.wait() == ended
        watched.signal(signal.SIGKILL)

    asyncio.run(main())


def test_a_watch_of_a_process_that_is_gone_is_none(start):
    child = start("")
    identity = identity_of(child.pid)
    child.wait()
    assert watch(identity) is None


def test_how_a_strangers_child_ended_is_asked(start):
    child = start("import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()")
    identity = identity_of(int(child.stdout.readline()))
    asked = []

    async def ask(who):
        asked.append(who)
        return Exit(None, 9)

    async def main():
        watched = watch(identity, ask)
        watched.signal(signal.SIGKILL)
        assert await watched.wait() == Exit(None, 9)

    asyncio.run(main())
    assert asked == [identity]


def test_a_tree_is_killed_with_its_sessions_and_orphans_and_nothing_else(start, mark):
    become_subreaper()
    bystander = start("input()", stdin=subprocess.PIPE)
    root = start(FORKS, env={**os.environ, MARK: mark})
    assert root.stdout.readline() == "forked\n"

    async def main():
        tree = Tree(identity_of(root.pid), number_of(mark), ours=True)
        members = tree.members()
        assert len(members) == 4
        stranger = Tree(identity_of(root.pid), number_of(mark), ours=False)
        assert stranger.members() == members
        watched = watch(tree.root)
        assert await tree.kill(deadline=10, root=watched) == ()
        assert not any(is_alive(member) for member in members)
        assert tree.members() == set()
        assert await watched.wait() == Exit(None, signal.SIGKILL)

    asyncio.run(main())
    assert bystander.poll() is None


def test_a_tree_without_its_root_is_still_found_by_session_and_mark(start, mark):
    become_subreaper()
    root = start(FORKS, env={**os.environ, MARK: mark})
    assert root.stdout.readline() == "forked\n"
    tree = Tree(identity_of(root.pid), number_of(mark), ours=True)
    root.kill()
    root.wait()

    async def main():
        assert len(Tree(tree.root, UNMARKED, ours=True).members()) == 2
        assert Tree(replace(tree.root, boot="another"), UNMARKED, ours=True).members() == set()
        assert len(tree.members()) == 3
        assert await tree.kill(deadline=10) == ()
        assert tree.members() == set()

    asyncio.run(main())


def test_a_tree_without_a_mark_is_killed_with_all_that_its_root_forked(start):
    root = start("import subprocess; subprocess.run(['sh', '-c', 'echo here; sleep 600 & wait'])")
    assert root.stdout.readline() == "here\n"
    below = {identity_of(pid) for pid in descendants(root.pid)}
    assert asyncio.run(Tree(identity_of(root.pid), UNMARKED, ours=False).kill(deadline=10)) == ()
    assert len(below) >= 1
    assert not any(is_alive(member) for member in below)


def test_a_pid_used_again_is_no_member(start):
    bystander = start("input()", stdin=subprocess.PIPE)
    old = replace(identity_of(bystander.pid), started=1)
    assert Tree(old, UNMARKED, ours=False).members() == set()
    assert asyncio.run(Tree(old, UNMARKED, ours=False).kill(deadline=1)) == ()
    assert bystander.poll() is None


def test_orphans_are_reaped_at_the_second_sweep(start):
    become_subreaper()
    root = start(ORPHAN, stdin=subprocess.PIPE)
    orphan = int(root.stdout.readline())
    root.wait()
    root.stdin.close()

    async def main():
        await until(lambda: stat_of(orphan).dead)
        orphans = Orphans()
        orphans.sweep()
        assert stat_of(orphan).dead
        orphans.sweep()
        assert stat_of(orphan) is None

    asyncio.run(main())


def test_who_was_stopped_to_be_killed_dies_also_where_the_next_look_fails(start):
    identity, looks = identity_of(start("import time; time.sleep(600)").pid), []

    def look():
        looks.append(1)
        if len(looks) > 1:
            raise OSError(errno.EMFILE, "no descriptor is left")
        return {identity}

    with pytest.raises(OSError, match="no descriptor is left"):
        asyncio.run(process_tree._kill_until_none(look, 5.0))
    assert os.waitid(os.P_PID, identity.pid, os.WEXITED | os.WSTOPPED).si_status == signal.SIGKILL


def test_of_who_has_ended_nothing_stays_open(start):
    async def main():
        for _ in range(3):
            child = start("pass")
            await watch(identity_of(child.pid)).wait()

    def watching() -> int:
        opened = []
        for one in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that of this list itself
                opened.append(str(one.readlink()))
        return sum("pidfd" in one for one in opened)

    before = watching()  # what other tests of this process have begun may be watched still
    asyncio.run(main())
    assert watching() <= before


def test_who_sweeps_up_orphans_goes_on_after_a_sweep_for_which_no_descriptor_was_left(monkeypatch):
    looks = []

    def nobody(pid):
        looks.append(pid)
        if len(looks) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return []

    monkeypatch.setattr(process_tree, "children", nobody)
    monkeypatch.setattr(Orphans, "PERIOD", 0.01)

    async def main():
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        Orphans().start()
        await until(lambda: len(looks) == 3)
        assert [type(error) for error in told] == [OSError]

    asyncio.run(main())


def test_the_end_of_a_child_is_seen_though_there_was_no_descriptor_to_see_who_it_was(start, monkeypatch):
    tried, child = [], start("raise SystemExit(7)")

    def none_left(pid):
        tried.append(pid)
        if len(tried) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return identity_of(pid)

    async def main():
        monkeypatch.setattr(watching, "identity_of", none_left)
        watched = watching.ProcessWatch(child.pid, os.pidfd_open(child.pid))
        assert await asyncio.wait_for(watched.wait(), 20) == Exit(7, None)
        assert watched.identity.pid == child.pid
        assert len(tried) == 3

    asyncio.run(main())

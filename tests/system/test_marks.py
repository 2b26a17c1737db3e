"""A mark is borne by whatever is started under it, whatever becomes of its environment."""

import asyncio
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from dsmt.system import procfs
from dsmt.system.marks import MARK, UNMARKED, bearers, bearing, borne_by, make_mark, number_of, numbers_of, owners_below
from dsmt.system.process_tree import kill_owned
from dsmt.system.procfs import descendants, identity_of, is_alive, soft_limit
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


@pytest.fixture
def sleeper():
    """Starts `sleep` with words before it; it is killed when the test ends."""
    started = []

    def start(*words, env=None):
        child = subprocess.Popen([*words, "sleep", "600"], env=env)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


def test_who_has_no_environment_bears_the_mark_and_who_is_started_later_does_not(sleeper, tmp_path):
    mark = make_mark(str(tmp_path), 1)
    with bearing(mark):
        child = sleeper("env", "-i", "/usr/bin/env")
    later = sleeper()
    assert borne_by(child.pid) == number_of(mark)
    assert borne_by(later.pid) == borne_by(os.getpid())
    assert bearers([str(tmp_path)]) == {identity_of(child.pid)}
    assert bearers([str(tmp_path)], {number_of(mark)}) == set()
    assert bearers([f"{tmp_path}/other"]) == set()


def test_what_a_bearer_has_started_without_any_mark_is_found_below_it(tmp_path):
    """As su(1) does, whose session sets limits anew, and whose shell has an environment of its own."""
    code = """
import os, resource, sys
if os.fork() == 0:
    os.setsid()
    resource.setrlimit(10, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.execve("/bin/sleep", ["sleep", "600"], {})
print("forked", flush=True)
sys.stdin.read()
"""
    with bearing(make_mark(str(tmp_path), 1)) as marked:
        words, env = [sys.executable, "-c", code], os.environ | marked
        child = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"forked\n"
        (below,) = (identity_of(pid) for pid in descendants(child.pid))
        asyncio.run(until(lambda: borne_by(below.pid) == UNMARKED))
        assert bearers([str(tmp_path)]) == {identity_of(child.pid), below}
        assert asyncio.run(kill_owned(str(tmp_path), deadline=10)) == ()
        assert not is_alive(below)
    finally:
        child.kill()
        child.communicate()


def test_an_owner_whose_directory_is_no_more_is_named_by_who_bears_its_mark(sleeper, tmp_path):
    owner = tmp_path / "nodes" / "n1" / "containers" / "web" / "app" / "0"
    with bearing(make_mark(str(owner), 1)) as marked:
        sleeper(env=os.environ | marked)
    asyncio.run(until(lambda: owners_below(str(tmp_path)) == {str(owner)}))
    assert owners_below(str(tmp_path / "nodes" / "n1")) == {str(owner)}
    assert owners_below(str(tmp_path / "nodes" / "n")) == set()


def test_who_bears_the_mark_by_its_limit_alone_is_found_and_what_it_starts_has_a_mark_of_its_own(tmp_path):
    code = """
import subprocess, sys
from dsmt.system.marks import bear, bearing, borne_by, make_mark, number_of
place = sys.argv[1]
bear(place)
with bearing(make_mark(place + "/other", 1)) as marked:
    child = subprocess.Popen(["sleep", "600"], env=marked)
own = borne_by(child.pid) == number_of(marked["DSMT_TREE"])
child.kill()
child.wait()
print(own, flush=True)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=pipe, stdout=pipe) as bearer:
        assert bearer.stdout.readline() == b"True\n"
        assert bearers([str(tmp_path)]) == {identity_of(bearer.pid)}
        bearer.stdin.close()


def test_what_is_started_unmarked_bears_no_mark_of_where_it_is_started(tmp_path):
    code = """
import subprocess
from dsmt.system.marks import borne_by, unmarked
with unmarked() as env:
    child = subprocess.Popen(["sleep", "600"], env=env)
print(borne_by(child.pid), flush=True)
child.kill()
child.wait()
"""
    with bearing(make_mark(str(tmp_path), 1)) as marked:
        words, env = [sys.executable, "-c", code], os.environ | marked
        said = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, env=env)
    assert said.stdout == f"{UNMARKED}\n", said.stderr


def test_whose_limit_was_changed_bears_the_mark_in_its_environment(sleeper, tmp_path):
    mark = make_mark(str(tmp_path), 1)
    child = sleeper(env={**os.environ, MARK: mark})
    resource.prlimit(child.pid, 10, (12, resource.RLIM_INFINITY))
    assert 12 in numbers_of(child.pid)
    assert number_of(mark) in numbers_of(child.pid)
    assert bearers([str(tmp_path)]) == {identity_of(child.pid)}


def test_where_the_limit_cannot_be_set_the_environment_bears_it_alone(tmp_path):
    """In a program of its own, since a hard limit that was lowered stays so for who is not privileged."""
    code = """
import os, resource, subprocess
from dsmt.system.marks import bearing, borne_by, number_of
os.setresuid(65534, 65534, 65534) if os.getuid() == 0 else None
resource.setrlimit(10, (5, 5))
with bearing("/owner#1") as marked:
    child = subprocess.Popen(["sleep", "600"], env=marked | dict(os.environ))
try:
    assert resource.getrlimit(10) == (5, 5)
    print([*__import__("dsmt").system.marks.numbers_of(child.pid)] == [5, number_of("/owner#1")])
finally:
    child.kill()
    child.wait()
"""
    said = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert said.stdout == "True\n", said.stderr


def test_marks_of_one_owner_differ_in_their_last_bits_alone():
    marks = [number_of(f"/home/containers/web/app/0#{number}") for number in range(50)]
    assert len({mark >> 16 for mark in marks}) == 1
    assert len(set(marks)) > 45
    assert UNMARKED < max(marks) < 2**63
    other = number_of("/home/containers/web/app/1#1")
    assert other >> 16 != marks[0] >> 16


@contextmanager
def unlimited(number):
    before = resource.getrlimit(number)
    resource.setrlimit(number, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(number, before)


@pytest.mark.parametrize("whose", ["ours", "another user's"])
def test_a_limit_that_is_none_and_that_of_nobody_are_none(monkeypatch, whose):
    if whose != "ours":

        def refused(_pid, _number):
            raise PermissionError

        monkeypatch.setattr(procfs.resource, "prlimit", refused)
    files, locks = (resource.RLIMIT_NOFILE, "Max open files"), (10, "Max file locks")
    assert soft_limit(os.getpid(), *files) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for mark, number in (("/a#1", number_of("/a#1")), (None, None)):
        with bearing(mark) if mark else unlimited(locks[0]):
            assert soft_limit(os.getpid(), *locks) == number
    assert soft_limit(2**22 + 1, *files) is None

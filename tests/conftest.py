"""Shared fixtures; and what holds for all property tests: machines are slow and shared, so no example has a deadline."""

import contextlib
import gc
import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from itertools import chain

import pytest
from hypothesis import HealthCheck, settings

from dsmt.system.garbage import collect_seldom
from dsmt.system.procfs import environment_value, pids

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell script; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
settings.register_profile("dsmt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dsmt")


LONGEST_NAME = 200


def pytest_make_parametrize_id(val: object) -> str | None:
    """What is too long for a name is named by its beginning: each worker sends every name, and with each step of a test."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_NAME:
        return f"{val[:40]!a}..{len(val)}"
    return None


LONG_GROUPS = ("machines-kept", "nats-realm", "machines-cut", "machines-nats", "nats", "machines-adding")
"""Groups that take minutes, in most of which they wait: the longest first."""
BEGUN_BY, LAST_REAL = 0.5, 0.85
"""By when in a run, in [0, 1), all groups have begun, and tests on real processes: none that waits long comes last."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What waits and what computes is spread over the whole run, so that each fills the gaps of the other."""
    kinds: dict[str, list[pytest.Item]] = {"grouped": [], "behind": [], "real": [], "other": []}
    for item in items:
        kinds[kind_of(item, grouped=config.getoption("loadgroup", default=False))].append(item)
    if alone := [item.nodeid for item in kinds["grouped"] if "@" not in item.nodeid]:
        raise pytest.UsageError(f"{alone[0]} is in no group: pytest-xdist does not fit this pytest")
    spread = chain(evenly(kinds["behind"]), evenly(kinds["real"], LAST_REAL), evenly(kinds["other"]))
    placed = [*map(group_begins, kinds["grouped"]), *spread]
    items[:] = [item for _, item in sorted(placed, key=lambda one: one[0])]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All tests are kept to the end: who looks for garbage among them time and again takes a twentieth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        collect_seldom()  # before it is looked for again: else all of them are looked through once, 0.4 s in each worker
        gc.enable()


def kind_of(item: pytest.Item, *, grouped: bool) -> str:
    """As what it is spread."""
    if grouped and item.get_closest_marker("xdist_group"):
        return "grouped"
    if item.get_closest_marker("behind"):
        return "behind"
    return "real" if item.nodeid.startswith("tests/real/") else "other"


def evenly(items: Sequence[pytest.Item], until: float = 1.0) -> list[tuple[float, pytest.Item]]:
    """Each with where it stands in the run, in [0, 1)."""
    return [(until * at / len(items), item) for at, item in enumerate(items)]


def group_begins(item: pytest.Item) -> tuple[float, pytest.Item]:
    """With where its whole group stands: one that is not long at the beginning."""
    name = item.nodeid.rpartition("@")[2]
    return (BEGUN_BY * LONG_GROUPS.index(name) / len(LONG_GROUPS) if name in LONG_GROUPS else 0.0), item


@pytest.fixture
def leaves_nothing(tmp_path, monkeypatch):
    """Whatever the test starts, at any depth, is killed after it: it is told by a variable of its environment."""
    monkeypatch.setenv("DSMT_TEST", str(tmp_path))
    yield {"DSMT_TEST": str(tmp_path)}
    for pid in pids():
        if pid != os.getpid() and environment_value(pid, "DSMT_TEST") == str(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path, request):
    """A directory on a file system of 256 KiB, or as its parameter says. Mounting it needs root, as the project's CI has."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', '256k')}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)

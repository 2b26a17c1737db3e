"""Shared fixtures; and what holds for all property tests: machines are slow and shared, so no example has a deadline."""

import contextlib
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from dsmt.system.procfs import environment_value, pids

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell script; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
settings.register_profile("dsmt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dsmt")


@pytest.fixture
def leaves_nothing(tmp_path, monkeypatch):
    """Whatever the test starts, at any depth, is killed after it: it is told by a variable of its environment."""
    monkeypatch.setenv("DSMT_TEST", str(tmp_path))
    yield {"DSMT_TEST": str(tmp_path)}
    for pid in pids():
        if pid != os.getpid() and environment_value(pid, "DSMT_TEST") == str(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

"""What starts programs with the process driver, and ends what is left of them."""

import os
import signal
import sys
import textwrap

import pytest

from dsmt.ports.driver import Launch
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.procfs import become_subreaper, open_pidfd


@pytest.fixture(autouse=True)
def subreaper():
    """An agent is one, so its instances' orphans, and those of an earlier agent, are its children here."""
    become_subreaper()


@pytest.fixture
def cleanup():
    """Identities that must not outlive the test."""
    identities: list[ProcessIdentity] = []
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


@pytest.fixture
def said(tmp_path):
    """What the programs have written so far."""
    return (tmp_path / "out").read_text

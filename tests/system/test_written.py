"""Writing a file whole or not at all, also where who writes is killed."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.system.files import write_atomically


def test_who_is_killed_as_it_writes_leaves_nothing_beside(tmp_path):
    (tmp_path / "key").write_bytes(b"before")
    code = (
        "import os, signal, sys; from dsmt.system.files import write_atomically; "
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); write_atomically(sys.argv[1], b'a secret')"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "key"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"key": b"before"}


@pytest.mark.parametrize("refused", ["open", "link"])
def test_where_no_file_is_without_a_name_it_is_written_all_the_same(tmp_path, monkeypatch, refused):
    real = getattr(os, refused)

    def refuses(path, *how, **more):
        if refused == "link" or how[0] & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, *how, **more)

    monkeypatch.setattr(os, refused, refuses)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for content in (b"one", b"another"):
        write_atomically(str(tmp_path / "a"), content, mode=0o640)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": content}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors

"""Writing a file whole or not at all, also where who writes is killed."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.system.files import replacing, write_atomically


def test_who_is_killed_as_it_writes_leaves_nothing_beside(tmp_path):
    (tmp_path / "key").write_bytes(b"before")
    code = (
        "import os, signal, sys; from dsmt.system.files import write_atomically; "
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); write_atomically(sys.argv[1], b'a secret')"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "key"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"key": b"before"}


def test_who_is_killed_as_it_writes_a_long_file_leaves_nothing_beside(tmp_path):
    (tmp_path / "history").write_bytes(b"before")
    code = (
        "import os, signal, sys; from dsmt.system.files import replacing\n"
        "with replacing(sys.argv[1]) as file: file.write(b'x' * 100_000); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "history"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"history": b"before"}


@pytest.mark.parametrize("nameless", [True, False])
def test_a_long_file_is_in_its_place_when_it_is_whole_and_what_fails_leaves_the_one_before(tmp_path, monkeypatch, nameless):
    real = os.open

    def refuses(path, *how, **more):
        if how[0] & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, *how, **more)

    if not nameless:
        monkeypatch.setattr(os, "open", refuses)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    file = tmp_path / "a"
    for content in (b"one", b"another"):
        with replacing(str(file)) as written:
            written.write(content)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": content}
    with pytest.raises(ZeroDivisionError), replacing(str(file)) as written:
        raise ZeroDivisionError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"another"}
    (tmp_path / "other").touch()
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode, "the umask counts"
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


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

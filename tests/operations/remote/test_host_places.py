"""What is removed of a host where others have made a home's, or the program's, directory: a mount point, or a link."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.operations.remote.test_on_host import host, parameters

MOUNTED = """
import json, pathlib, subprocess, sys
from dsmt.operations.remote.on_host import Installation
one = Installation(json.loads(sys.argv[1]))
for place in (one.home, one.prefix):
    place.mkdir(parents=True)
    (beside := place.parent / "disk").mkdir()
    what = ["--bind", str(beside)] if sys.argv[2] == "bind" else ["-t", "tmpfs", "tmpfs"]
    subprocess.run(["mount", *what, str(place)], check=True)
    (place / "nodes/web-1").mkdir(parents=True)
    (place / "file").touch()
    (place / "lost+found").mkdir()
one.remove()
print([path.name for place in (one.home, one.prefix) for path in place.iterdir()])
"""


@pytest.mark.parametrize(("kind", "below"), [("tmpfs", "user"), ("bind", "user"), ("tmpfs", "a user")])
def test_a_file_system_mounted_where_a_home_or_a_program_is_stays_with_its_lost_found(
    tmp_path: Path, kind: str, below: str
) -> None:
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    argv = [*unshare, sys.executable, "-c", MOUNTED, json.dumps(parameters(tmp_path / below)), kind]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "['lost+found', 'lost+found']\n"), done.stderr


def test_a_home_or_a_program_that_is_a_link_stays_one_and_what_it_leads_to_is_emptied(tmp_path: Path) -> None:
    one = host(tmp_path)
    for place, name in ((one.home, "home"), (one.prefix, "prefix")):
        place.parent.mkdir(parents=True)
        place.symlink_to(tmp_path / name)
        (tmp_path / name / "nodes/web-1").mkdir(parents=True)
        (tmp_path / name / "file").touch()
        (tmp_path / name / "link").symlink_to(tmp_path)
    one.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "opt", "prefix", "state"]
    assert [*(tmp_path / "home").iterdir(), *(tmp_path / "prefix").iterdir()] == []
    assert one.home.is_symlink()
    assert one.prefix.is_symlink()


BELOW = """
import json, pathlib, subprocess, sys
from dsmt.operations.remote.on_host import HostError, Installation
one, theirs = Installation(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2])
(at := one.home / "nodes/web-1/data").mkdir(parents=True)
theirs.mkdir()
(theirs / "file").touch()
subprocess.run(["mount", "--bind", str(theirs), str(at)], check=True)
try:
    one.remove()
except HostError as error:
    print(error.told["code"], str(at) in error.told["message"], (theirs / "file").exists())
"""


def test_nothing_is_removed_of_what_others_have_mounted_somewhere_in_a_home(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    argv = [*unshare, sys.executable, "-c", BELOW, json.dumps(parameters(tmp_path / "user")), str(tmp_path / "theirs")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "host.mounted True True\n"), done.stderr

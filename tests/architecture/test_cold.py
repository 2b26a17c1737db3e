"""What `make mutants` runs tests with: a second session of one process finds the tests that the first one told."""

import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.mark.parametrize("text", ["a\\nb", b"\\x00"], ids=repr)
def test_it(text):
    assert text
"""
TWICE = """
import pytest, sys

class Found:
    def pytest_collection_finish(self, session):
        self.ids = [item.nodeid for item in session.items]

def ids(*tests):
    found = Found()
    assert pytest.main(["-q", "-p", "no:cacheprovider", "-p", "scripts.cold", *tests], plugins=[found]) == 0
    return found.ids

first = ids("test_it.py")
assert len(first) == 2 and ids(*first) == first
"""


def test_what_was_found_once_is_found_by_its_id_again(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    here = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([sys.executable, "-c", TWICE], cwd=tmp_path, env=here, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr

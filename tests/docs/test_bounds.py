"""The page of bounds says what the code does: each number is a constant's, each test is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/bounds.md").read_text()
ROWS = re.findall(r"^\|[^|]+\|[^|]+\| `([\w.]+)` = ([\d.]+) \|[^|]+\| (\w+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("name", "number", "test"), ROWS)
def test_a_bound_on_the_page_is_the_one_in_the_code(name, number, test):
    module, _, constant = name.rpartition(".")
    assert getattr(import_module(module), constant) == float(number)
    assert (ROOT / "tests/bus" / f"{test}.py").exists()


def test_every_line_of_the_page_is_read():
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2

"""The rules: what the code cites is there, and each names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in (ROOT / "docs/rules").glob("*.md") if page.name not in ("README.md", "invariants.md"))
NAME = re.compile(r"\b([A-HJR]\d{1,2})\b")
RANGE = re.compile(r"\b([A-HJR])(\d{1,2})-\1?(\d{1,2})\b")
HEAD = re.compile(r"^## ([A-HJR]\d{1,2}) (.+)$", re.MULTILINE)
NOT_RULES = {"A0"}  # a byte, written in hexadecimal


def rules() -> dict[str, str]:
    """Every rule's name and text."""
    found: dict[str, str] = {}
    for page in PAGES:
        parts = HEAD.split(page.read_text())[1:]
        for name, title, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            assert name not in found, f"{name} stands twice"
            found[name] = f"{title}\n{text}"
    return found


def cited(text: str) -> set[str]:
    spans = {f"{letter}{n}" for letter, low, high in RANGE.findall(text) for n in range(int(low), int(high) + 1)}
    return (set(NAME.findall(text)) | spans) - NOT_RULES


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(
    "room",
    sorted(p.name for p in (ROOT / "dsmt").iterdir() if (p.is_dir() and p.name != "__pycache__") or p.suffix == ".py"),
)
def test_every_rule_that_the_code_cites_is_there(room: str) -> None:
    for path in [ROOT / "dsmt" / room, *(ROOT / "dsmt" / room).rglob("*.py")]:
        missing = cited(path.read_text()) - rules().keys() if path.is_file() else None
        assert not missing, f"{path} cites {sorted(missing)}, which docs/rules does not hold"


@pytest.mark.parametrize("name", sorted(rules()))
def test_every_rule_says_what_it_prevents_and_names_tests_that_exist(name: str) -> None:
    text = rules()[name]
    assert "*Without it:*" in text
    held = re.findall(r"(tests/[\w/]+\.py)::(\w+)", text.partition("*Held by:*")[2])
    assert held, f"{name} is held by no test"
    for path, test in held:
        assert test in names_in(ROOT / path), f"{name} names {path}::{test}, which is not there"


def test_every_other_page_cites_rules_that_are_there() -> None:
    for page in (*PAGES, *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/reference").glob("*.md")):
        missing = cited(page.read_text()) - rules().keys()
        assert not missing, f"{page.name} cites {sorted(missing)}"

"""Every file that the documentation names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"`([\w./-]+\.(?:py|md|toml|txt))`|\]\(([\w./-]+)(?:#[\w-]*)?\)")
MODULES = {path.name for path in (ROOT / "dsmt").rglob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(page: Path) -> None:
    missing = []
    for code, link in NAMED.findall(page.read_text()):
        places = [page.parent / link] if link else [ROOT / code, page.parent / code]
        if not any(place.exists() for place in places) and code not in MODULES:
            missing.append(code or link)
    assert missing == []


NAMED_IN = re.compile(r"`([\w./-]+\.py)`|\(((?:`\w+`[^)`]*)+)\)")
"""A file, or names in parentheses behind it."""


def test_every_name_that_the_architecture_says_is_of_a_file_is_there() -> None:
    missing = []
    for row in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        path = code = ""
        for file, names in NAMED_IN.findall(row):
            if file:
                places = sorted(ROOT.glob(file if "/" in file else f"dsmt/**/{file}"))
                path, code = file, "".join(place.read_text() for place in places)
            told = re.findall(r"`(\w+)`", names) if path else []
            missing += [f"{path}: {name}" for name in told if not re.search(rf"\b{name}\b", code)]
    assert missing == []

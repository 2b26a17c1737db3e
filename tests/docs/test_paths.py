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

"""A plugin of pytest: each session begins with empty caches, so that what a cache holds hides no planted mistake."""

from __future__ import annotations

import sys


def pytest_sessionstart() -> None:
    """Forget what functions of dsmt have remembered, in this process or in the one that it was forked from."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "dsmt":
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()

"""A plugin of pytest: each session begins cold, also the second one of a process, or one that was forked from another.

What a cache holds would hide a planted mistake, and ids that pytest has kept of a test are escaped anew by each session, so
that the second one finds no test by the id that the first one told.
"""

from __future__ import annotations

import sys

import pytest


def pytest_sessionstart() -> None:
    """Forget what functions of dsmt have remembered, in this process or in the one that it was forked from."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "dsmt":
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have the ids of a test made from what it says of them."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        if mark._param_ids_from is not None:  # noqa: SLF001 - there is no other way to them
            object.__setattr__(mark._param_ids_from, "_param_ids_generated", None)  # noqa: SLF001

"""The generated references say what the code says."""

from __future__ import annotations

import pytest

from scripts.reference import DIRECTORY, PAGES, pages


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_has_not_drifted_from_the_code(name):
    assert (DIRECTORY / name).read_text() == pages()[name], "run `make docs` and commit what changed"

"""The generated references say what the code says."""

from __future__ import annotations

import pytest

from scripts.reference import DIRECTORY, PAGES, pages


@pytest.fixture(scope="module")
def written():
    return pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_has_not_drifted_from_the_code(name, written):
    assert (DIRECTORY / name).read_text() == written[name], "run `make docs` and commit what changed"


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_names_a_source_that_is_there(name, written):
    sources = [word for word in PAGES[name].source.split() if "/" in word]
    assert sources
    assert [source for source in sources if not (DIRECTORY.parents[1] / source).exists()] == []
    assert all(source in written[name].splitlines()[0] for source in sources)

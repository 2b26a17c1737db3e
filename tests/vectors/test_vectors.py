"""The test vectors for clients in other languages say what the code says."""

from __future__ import annotations

import pytest

from scripts.vectors import FILES, ROOT, texts


@pytest.mark.parametrize("path", FILES)
def test_the_vectors_have_not_drifted_from_the_code(path):
    assert (ROOT / path).read_text() == texts()[path], "the wire has changed: other clients cannot read this"

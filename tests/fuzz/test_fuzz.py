"""Any bytes whatever: parsers raise nothing but what they document, and what they take they write again as it was.

`make fuzz` looks for more with atheris, and keeps what it finds in `corpus`.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, edited, seeds

EXAMPLES = {"codec": 150, "frames": 150, "certificates": 150, "store": 40}


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once_is_taken_or_refused_as_it_must_be(target):
    found = seeds(target)
    assert found
    for one in found:
        TARGETS[target](one)


edits = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "cut", "copy"]), st.integers(0, 2**16), st.integers(0, 255)), max_size=6
)


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_and_any_that_are_nearly_right_are_taken_or_refused_as_they_must_be(target):
    nearly = st.builds(edited, st.sampled_from(seeds(target)), edits)

    @settings(max_examples=EXAMPLES[target])
    @given(st.binary(max_size=200) | nearly | nearly)
    def holds(data):
        TARGETS[target](data)

    holds()

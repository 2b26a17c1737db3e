"""The threat model: what it says that a key writes is what that key writes, and each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsmt.event.registry import TOPICS
from dsmt.trust.grants import NAME_LEVELS
from tests.docs.test_rules import names_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text()
PARTS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
HEADS = {
    "joining": "A token's line",
    "agent": "An agent's key",
    "monitor": "A monitor's key",
    "node": "A node's key",
    "controller": "A controller's key",
    "broker": "A broker's key",
    "issuer": "An issuer's key",
    "operator": "An operator's key",
    "root": "The root key",
}
EVERYBODYS = {"source/<source/>", "trust/revoked/<key>/<source/>"}
"""Each source says that it has started, and ends keys below its own: told once for all, in docs/rules/trust.md."""


def test_every_kind_of_key_has_its_part() -> None:
    assert HEADS.keys() == NAME_LEVELS.keys()
    assert set(HEADS.values()) <= PARTS.keys()


@pytest.mark.parametrize("role", sorted(HEADS))
def test_what_is_said_to_be_written_with_a_key_is_what_is(role: str) -> None:
    said = re.search(r"^\*Writes:\*(.*?)\n\n", PARTS[HEADS[role]], re.MULTILINE | re.DOTALL)
    assert said is not None
    may = {row.template for row in TOPICS if role in row.roles or (row.owner or "").split("/")[0] == role}
    assert set(re.findall(r"`(.+?)`", said[1])) == may - EVERYBODYS


@pytest.mark.parametrize("part", sorted(PARTS))
def test_every_sentence_names_tests_that_are_there(part: str) -> None:
    held = re.findall(r"(tests/[\w/]+\.py)::(\w+)", PARTS[part])
    assert held, f"{part} is held by no test"
    for path, test in held:
        assert test in names_in(ROOT / path), f"{part} names {path}::{test}, which is not there"

"""The page of the protocol, for who writes a client in another language, says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsmt.bus.rules.outbox import WINDOW_EVENTS
from dsmt.bus.wire.frames import PROTOCOL
from dsmt.bus.wire.framing import MAX_HEAD, MAX_PARTS
from dsmt.bus.zeromq.listener import MAX_FRAME
from dsmt.event.burst import PATH_LABEL, RUN_BYTES, RUN_EVENTS
from dsmt.event.codec import EDDSA
from dsmt.event.kinds.broker import SILENT_S
from dsmt.event.payload import MAX_DEPTH, _Wire
from dsmt.trust import certificate
from dsmt.trust.grants import NAME_LEVELS
from scripts.vectors import FILES

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "reference" / "protocol.md").read_text().split())
SAID = [
    f"`protocol` is {PROTOCOL},",
    f"At most {MAX_HEAD // 1024} KiB of map, {MAX_PARTS} parts, and {MAX_FRAME // 1024} KiB in all",
    f"the map `{{1: {EDDSA}, 4: key id}}`",
    f"`{{{PATH_LABEL}: path}}`",
    f"2 to {RUN_EVENTS} events, of at most {RUN_BYTES // 1024} KiB of payloads",
    f"of at most {certificate.MAX_BYTES} bytes, signed by its issuer",
    f"| {certificate.PUBLISH}, {certificate.READ} |",
    f"| {certificate.DEPTH}, {certificate.QUOTA} |",
    f"silent for {SILENT_S:g} seconds though asked",
    f"At most {WINDOW_EVENTS} events",
    f"at most {MAX_DEPTH} levels |",
]


@pytest.mark.parametrize("sentence", SAID)
def test_a_number_of_the_page_is_that_of_the_code(sentence):
    assert sentence in PAGE


def test_each_key_of_an_event_is_on_the_page_and_no_other():
    table = PAGE.partition("## Events")[2].partition("The first eight keys")[0]
    named = {name for row in re.findall(r"\| ((?:`\w+`(?:, )?)+) \|", table) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(_Wire.__struct_fields__)


def test_each_kind_of_name_is_on_the_page():
    assert [kind for kind in NAME_LEVELS if f"`{kind}/" not in PAGE and f"`{kind}`" not in PAGE] == []


def test_each_file_of_vectors_is_on_the_page_and_no_other():
    listed = set(re.findall(r"\| `(\w+)` \|", PAGE.partition("## Test vectors")[2]))
    assert listed == {Path(path).stem for path in FILES if path.startswith("tests/")}

"""Reason codes: the closed list, and messages that are sentences."""

import re
from typing import get_args

import pytest

from dsmt.errors import InputError
from dsmt.event.payload import is_plain
from dsmt.event.reason import REASONS, Who, failed, happened, reason
from dsmt.event.records import to_data

WHO_ACTS = {
    "place.no_match": "you", "place.no_room": "world", "place.port_taken": "you", "place.refused": "you",
    "place.empty_set": "you", "place.unenforceable": "you",
    "wait.after": "dsmt", "wait.barrier": "dsmt", "wait.fence": "dsmt", "wait.pinned": "you", "wait.node": "you",
    "wait.word": "dsmt", "wait.copy": "dsmt", "wait.no_majority": "you",
    "wait.spec": "you", "wait.brake": "you",
    "hold.operator": "you", "hold.local": "you", "hold.veto": "you", "hold.rollout": "you",
    "node.lost": "dsmt", "node.drained": "dsmt", "node.reclaimed": "dsmt", "node.rebooted": "dsmt",
    "node.stale": "world", "node.clock": "you", "node.files": "you",
    "fetch.unreachable": "world", "fetch.not_found": "you", "fetch.denied": "you", "fetch.mismatch": "you",
    "fetch.no_space": "you", "fetch.read_only": "you",
    "install.unpack": "you", "install.command": "you", "install.cut": "you", "install.secret": "you", "install.user": "you",
    "start.cannot_exec": "you", "start.port_in_use": "world", "start.port_denied": "you",
    "start.timeout": "dsmt", "start.exited": "dsmt",
    "start.driver": "you", "start.unheard": "you",
    "run.exited": "dsmt", "run.signal": "dsmt", "run.out_of_memory": "dsmt", "run.limit": "dsmt",
    "run.watchdog": "dsmt", "run.unheard": "dsmt", "run.vanished": "dsmt", "run.unseen": "dsmt", "run.flapping": "you",
    "health.not_ready": "dsmt", "health.not_live": "dsmt", "health.check_broken": "you", "health.braked": "you",
    "stop.killed": "dsmt", "stop.stuck": "you", "stop.leftover": "you",
    "rollout.failed": "you", "rollout.held": "you", "rollout.rolled_back": "you",
    "lease.lost": "dsmt", "lease.ended": "you", "trust.expired": "you", "trust.revoked": "you", "trust.denied": "you",
    "job.done": "dsmt", "job.gave_up": "you", "job.aborted": "you",
    "dsmt.bug": "dsmt",
}  # fmt: skip
"""The contract, word for word. A code is built or not; a built one is one of these, and the same one acts."""

_FIELD = re.compile(r"<([^>]*)>")


@pytest.mark.parametrize("code", REASONS)
def test_a_code_is_of_the_closed_list_and_the_same_one_acts(code):
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", code)
    assert REASONS[code].who == WHO_ACTS[code]
    assert REASONS[code].who in get_args(Who)


@pytest.mark.parametrize("code", REASONS)
def test_a_message_does_not_repeat_its_code_and_its_fields_can_be_filled(code):
    template = REASONS[code]
    assert template.message
    assert code not in template.message
    for name in _FIELD.findall(template.message + template.next):
        assert re.fullmatch(r"[a-z_]+", name), f"<{name}> cannot be a keyword"


@pytest.mark.parametrize("code", REASONS)
def test_what_a_person_must_do_is_named(code):
    if REASONS[code].who == "you":
        assert REASONS[code].next


@pytest.mark.parametrize("code", REASONS)
def test_a_filled_reason_has_no_field_left_and_fits_into_an_event(code):
    names = set(_FIELD.findall(REASONS[code].message + REASONS[code].next)) - {"code", "signal", "step"}
    filled = reason(
        code, step="build", signal="SIGSEGV", exit_code=3, last_output="x\n" * 9999, **dict.fromkeys(names, "y" * 99_999)
    )
    assert not _FIELD.search(filled.message + filled.next)
    assert len(filled.message) < 4096
    assert is_plain(to_data(filled))


def test_a_code_that_is_not_in_the_list_is_refused():
    with pytest.raises(InputError, match=r"run\.tired is no reason code") as caught:
        reason("run.tired")
    assert caught.value.code == "reason.code"
    assert caught.value.next


def test_a_reason_carries_what_it_was_given_and_who_acts():
    told = {"step": "build", "command": "make all", "exit_code": 3, "signal": "SIGSEGV", "last_output": "boom"}
    filled = reason("install.command", **told, time="2 s", target="web/app/0")
    assert {name: getattr(filled, name) for name in told} == told
    assert (filled.code, filled.who) == ("install.command", "you")
    assert (filled.message, filled.next) == ("build command ended with 3 after 2 s", "dsmt logs web/app/0 --step build")
    bare = reason("run.exited")
    assert {getattr(bare, name) for name in told} == {None}


def test_a_field_that_is_not_known_stands_by_its_name():
    assert reason("run.exited", exit_code=3).message == "exited with code 3 after <time>"


def test_a_field_adds_no_more_than_its_share():
    assert reason("fetch.unreachable", host="h", error="x" * 501).message == "cannot reach h: " + "x" * 500


def test_a_value_that_looks_like_a_field_stays_as_it_is():
    filled = reason("fetch.unreachable", host="<error>", error="<host>")
    assert filled.message == "cannot reach <error>: <host>"


def test_a_run_that_a_signal_ended_names_the_signal_where_a_code_would_stand():
    assert reason("start.exited", signal="SIGSEGV", time="0.2 s").message.startswith("exited with SIGSEGV 0.2 s")
    assert reason("start.exited", exit_code=0, signal=None, time="0.2 s").message.startswith("exited with 0 ")


@pytest.mark.parametrize("output", ["é" * 5000, "\n".join(map(str, range(100))), "a\udcffb", ""])
def test_last_output_is_at_most_twenty_lines_and_four_kibibytes_of_its_end(output):
    kept = reason("run.exited", last_output=output).last_output
    assert len(kept.splitlines()) <= 20
    assert len(kept.encode()) <= 4096
    assert kept[-1:] == output[-1:]


def test_last_output_keeps_its_last_lines_as_they_were():
    assert reason("run.exited", last_output="\n".join(map(str, range(25)))).last_output == "\n".join(map(str, range(5, 25)))


@pytest.mark.parametrize("size", [4095, 4096, 4097])
def test_of_a_line_longer_than_four_kibibytes_the_end_is_kept(size):
    assert reason("run.exited", last_output="<" + "x" * (size - 1)).last_output == ("<" + "x" * (size - 1))[-4096:]
    wide = reason("run.exited", last_output="é" * size).last_output
    assert wide == "é" * 2048
    assert reason("run.exited", last_output="é" * size + "x").last_output == "é" * 2047 + "x"


def test_an_error_of_a_reason_says_what_is_to_be_done_about_it_unless_more_is_known() -> None:
    told = reason("node.clock", node="n1", offset="9 s")
    error, advised = (failed("node.clock", advice=advice, node="n1", offset="9 s") for advice in ("", "set it"))
    assert (error.code, error.message, error.next) == ("node.clock", told.message, "fix time there")
    assert (error.fields, advised.next) == ({"node": "n1", "offset": "9 s"}, "set it")


def test_what_has_happened_is_told_without_the_try_that_was_announced_where_there_is_none_any_more() -> None:
    told = reason("run.flapping", n=3, time="9 s", last="exited; code 1", pause="10 m", cause="its revision")
    assert happened(told) == "failed 3 times in 9 s, the last time: exited; code 1"
    once = reason("run.exited", exit_code=1, time="2 s")
    assert happened(once) == once.message

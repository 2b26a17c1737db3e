"""Expressions over events: what they hold of, what they do not, and what is said of those that mean nothing."""

import builtins
from typing import Any

import pytest

from dsmt.errors import InputError
from dsmt.event.envelope import Event
from dsmt.operations.words.expression import LONGEST, NAMES, compiled
from tests.operations.recorded import Recording


def event() -> Event:
    recording = Recording()
    recording.source("operator/alice.0abc")
    data = {"n": 3, "state": "failed", "raw": b"ab", "deep": {"list": [1, 2]}, "none": None}
    return recording.say("operator/alice.0abc", "user/x", data).event


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("true", True),
        ('topic == "user/x" && source.startsWith("operator/")', True),
        ('data.state == "failed" && data.n > 2', True),
        ("data.n > 3", False),
        ("2 in data.deep.list", True),
        ("data.deep.list.all(one, one > 1)", False),
        ('data.raw == b"ab"', True),
        ("data.none == null", True),
        ("data.absent > 2", False),
        ("has(data.absent)", False),
        ("!has(data.absent)", True),
        ("data.state > 2", False),
        ("data.n / 0 == 1", False),
        ("data.n.deeper", False),
        ("size(cause) == 0 && size(to) == 0 && version == null", True),
        ('time >= timestamp("2023-01-01T00:00:00Z")', True),
        ('type.matches("^user")', False),
    ],
)
def test_an_expression_holds_of_an_event_or_does_not(text: str, holds: bool) -> None:
    assert compiled(text)(event()) is holds


@pytest.mark.parametrize("name", NAMES)
def test_an_event_has_each_name_that_is_told_where_one_is_used_that_it_has_not(name: str) -> None:
    assert compiled(f"{name} == {name}")(event())


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("data.n >", "where.form", "cannot be read as an expression: <input>:1:9: Syntax error"),
        ("x" * (LONGEST + 1), "where.form", "4097 characters, 4096 are allowed"),
        ("kind == 1", "where.name", "an event has id, source, type"),
        ("data.n + 1", "where.answer", "is neither true nor false but '4'"),
        ("nothing(1)", "where.name", "Undefined variable or function: 'nothing'"),
    ],
)
def test_an_expression_that_means_nothing_is_refused_with_what_there_is(text: str, code: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        compiled(text)(event())
    assert caught.value.code == code
    assert says in str(caught.value)
    assert " expecting {" not in str(caught.value)
    assert caught.value.next
    assert len(str(caught.value)) < 350


def test_an_expression_sees_what_an_event_follows_from_and_whom_it_is_for() -> None:
    recording = Recording()
    recording.source("operator/alice.0abc")
    first = recording.say("operator/alice.0abc", "user/x", {})
    then = recording.say("operator/alice.0abc", "user/x", {}, cause=(first.id,), to=("node/n1",)).event
    assert compiled(f'cause == ["{first.id}"] && to == ["node/n1"]')(then)
    assert compiled(f'id == "{then.incarnation}-{then.sequence}"'.ljust(LONGEST))(then)


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def missing(name: str, *args: Any, **more: Any) -> Any:
        if name == "cel":
            raise ImportError(name)
        return there(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match="not installed here") as caught:
        compiled("true")
    assert caught.value.code == "where.missing"
    assert caught.value.next == "in dsmt's source, as README.md installs it: pip install '.[cel]'"

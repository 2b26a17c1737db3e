"""What is said to a key that is not ours: the neighbour's word, the hyphen, the typing mistake, the wrong place."""

import pytest

from dsmt.spec.keys import GROUPS, NEIGHBOURS
from dsmt.spec.words import PLACES, unknown_key

STOP = "keys here: signal, grace, delay, command"
CHECK = "keys here: http, tcp, exec, notify, interval, timeout, passes, failures, deadline"


@pytest.mark.parametrize(
    ("name", "group", "suggestion"),
    [
        # another spelling of a key of this place
        ("Max-Parallel", "update", "here it is `max_parallel`"),
        ("maxParallel", "update", "here it is `max_parallel`"),
        ("HTTP", "check", "here it is `http`"),
        # a neighbour's word, as it is written from here
        ("replicas", "component", "here it is `instances`"),
        ("stopSignal", "component", "here it is `stop.signal`"),
        ("stop_signal", "stop", "here it is `signal`"),
        ("timeout", "stop", "here it is `grace`"),
        ("parallelism", "update", "here it is `max_parallel`"),
        ("resources", "component", "here it is `limits` and `reserve`"),
        ("services", "service", "here it is `components`"),
        ("readinessProbe", "component", "here it is `health.readiness`"),
        ("readiness_probe", "health", "here it is `readiness`"),
        ("initialDelaySeconds", "health", "here it is `startup`"),
        ("periodSeconds", "check", "here it is `interval`"),
        ("periodSeconds", "component", "here it is `health.interval`"),
        ("failure_threshold", "check", "here it is `failures`"),
        ("success-threshold", "check", "here it is `passes`"),
        # a typing mistake
        ("instnaces", "component", "did you mean `instances`?"),
        ("rnu", "component", "did you mean `run`?"),
        ("Pots", "component", "did you mean `ports`?"),
        # a key of another place
        ("grace", "component", "`grace` belongs under `stop`"),
        ("maxParallel", "component", "here it is `update.max_parallel`"),
        ("path", "artifact", "here it is `url`"),
        ("watchdog", "http", "`watchdog` belongs under `health.notify`"),
        ("instances", "service", "`instances` belongs under `components.NAME`"),
        ("Barriers", "component", "`barriers` belongs to the top level"),
        # a neighbour's word for a key of another place
        ("replicas", "service", "here it is `instances`, under components.NAME"),
        ("stop_signal", "service", "here it is `stop.signal`, under components.NAME"),
        ("resources", "service", "here it is `limits` and `reserve`, under components.NAME"),
        ("periodSeconds", "service", "here it is `health.interval`, under components.NAME"),
        ("services", "component", "here it is `components`, at the top level"),
        ("name", "component", "here it is `service`, at the top level"),
        # nothing is near: a short list of what there is, or where it stands
        ("replicas", "stop", STOP),
        ("zzzz", "stop", STOP),
        ("periodSeconds", "health", "keys here: startup, readiness, liveness"),
        ("args", "check", CHECK),
        ("zzzz", "component", "`dsmt explain` lists every key"),
        # words of many places say nothing about one
        ("to", "component", "`dsmt explain` lists every key"),
        ("from", "component", "`dsmt explain` lists every key"),
        ("by", "component", "`dsmt explain` lists every key"),
        ("min", "component", "`dsmt explain` lists every key"),
        ("max", "component", "`dsmt explain` lists every key"),
        ("after", "stop", STOP),
    ],
)
def test_a_key_that_is_not_ours_is_answered_with_what_was_meant(name, group, suggestion):
    where = f" in `{PLACES[group]}`" if group != "service" else ""
    assert unknown_key(name, group) == (f"there is no key `{name}`{where}", suggestion)


def test_a_long_name_is_shown_cut():
    assert unknown_key("z" * 61, "stop")[0] == f"there is no key `{'z' * 60}` in `stop`"


def test_a_placeholder_without_quotes_is_shown_with_them():
    assert unknown_key("port.http", "http", placeholder=True) == (
        "`{port.http}` without quotes is a map in YAML",
        "quote it: '{port.http}'",
    )


@pytest.mark.parametrize("word", NEIGHBOURS)
def test_what_is_said_to_a_neighbours_word_can_be_written_where_it_is_said(word):
    """In a component, `here it is X` names a key of a component, and what comes after its point one of that."""
    _, suggestion = unknown_key(word, "component")
    first, _, rest = suggestion.removeprefix("here it is `").split("`")[0].partition(".")
    if suggestion.endswith("at the top level"):
        assert first in GROUPS["service"]
    else:
        assert first in GROUPS["component"]
        inside = GROUPS["health"].keys() | GROUPS["check"].keys() if first == "health" else GROUPS.get(first, {}).keys()
        assert not rest or rest in inside

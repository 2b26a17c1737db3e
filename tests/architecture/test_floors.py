"""The house as it stands: code imports from below and from its own room, never upwards, never in a circle."""

from .floors import ADAPTERS, MIXED, PURE, SHELLS, names_of
from .rules import circle, impure, sources, undocumented, unordered, upwards

SOURCES = sources()


def complaints(rule):
    return "\n".join(wrong for module, text in SOURCES.items() for wrong in rule(module, text))


def test_modules_import_from_below_and_from_their_own_room_only():
    wrong = "\n".join(wrong for module, text in SOURCES.items() for wrong in upwards(module, text, SOURCES))
    assert not wrong, wrong


def test_modules_below_the_line_touch_nothing_outside_and_shells_only_ports():
    wrong = complaints(impure)
    assert not wrong, wrong


def test_no_decision_depends_on_the_order_of_a_set_or_on_an_address():
    wrong = complaints(unordered)
    assert not wrong, wrong


def test_what_is_public_is_documented():
    wrong = complaints(undocumented)
    assert not wrong, wrong


def test_no_modules_import_each_other_in_a_circle():
    assert not circle(SOURCES)


def test_the_sources_are_looked_at():
    assert {"dsmt", "dsmt.errors", "dsmt.event.codec", "dsmt.bus", "dsmt.bus.rules.validator", "dsmt.agents.drivers"} <= set(
        SOURCES
    )


def test_no_module_is_listed_twice():
    listed = [*PURE, *names_of(SHELLS), *names_of(ADAPTERS)]
    assert len(listed) == len(set(listed))
    assert {name.rsplit(".", 1)[0] for name in listed} <= set(MIXED)

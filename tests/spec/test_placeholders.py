"""Placeholders: a closed set, literal braces, one pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.spec import placeholders
from dsmt.spec.mistakes import WrongValueError

ENDPOINTS = {"app": frozenset({"http"}), "db": frozenset({"pg"})}


def wrong(template):
    return placeholders.check(template, ports=frozenset({"http"}), labels=frozenset({"tier"}), endpoints=ENDPOINTS)


@pytest.mark.parametrize(
    "template",
    [
        "{port.http} {address} {service} {component} {index} {instance} {node} {revision} {directory} {data}",
        "{label.tier} {node.label.rack} {endpoints.db.pg}",
        "{{literal}} and {{{port.http}}}",
        "",
    ],
)
def test_every_placeholder_of_the_manual_is_known(template):
    assert wrong(template) == []


@pytest.mark.parametrize(
    ("template", "says", "hint"),
    [
        ("{port.htp}", "names no port", "did you mean http?"),
        ("{prot.http}", "not a placeholder", "did you mean {port.http}?"),
        ("{label.zone}", "names no label", "labels: tier"),
        ("{endpoints.cache.x}", "names no component", "{endpoints.COMPONENT.PORT}"),
        ("{endpoints.db.x}", "names no port of db", "ports: pg"),
        ("${HOME}", "not a placeholder", "{{HOME}}"),
        ("{}", "not a placeholder", "{{}}"),
        ("a { b", "stands alone", "{{"),
        ("a } b", "stands alone", "}}"),
        (
            f"{'a' * 70} {{ {{port.http}} }}}} {'b' * 70}",
            f"a `{{` stands alone: `{'a' * 29} {{ {{port.http}} }}}} {'b' * 13}`",
            "{{",
        ),
        ("http {{\n  server {{\n    listen {port.http};\n  }\n}}\n", "a `}` stands alone in line 4 of it: `}`", "}}"),
        ("global: {x: {{1}}\n", "a `{` stands alone: `global: {x: {{1}}`", "{{"),
        ("{node.label.}", "not a placeholder", "braces"),
    ],
)
def test_an_unknown_placeholder_is_answered(template, says, hint):
    ((message, suggestion),) = wrong(template)
    assert says in message
    assert hint in suggestion


def test_all_unknown_placeholders_of_one_text_are_told():
    assert len(wrong("{a} {port.http} {b}")) == 2


def test_a_value_is_never_expanded_again():
    assert placeholders.expand("{label.a} {{x}}", {"label.a": "{label.a} {{"}) == "{label.a} {{ {x}"


def test_a_placeholder_without_a_value_is_an_error_that_names_it():
    with pytest.raises(WrongValueError, match=r"\{port.http\}"):
        placeholders.expand("{port.http}", {"port.https": "1"})


@given(st.text(max_size=30))
def test_an_escaped_text_expands_to_itself(text):
    assert placeholders.expand(text.replace("{", "{{").replace("}", "}}"), {}) == text


@given(st.text(alphabet="{}ab.", max_size=15))
def test_any_template_expands_or_is_refused_with_the_one_error(template):
    try:
        expanded = placeholders.expand(template, {"a": "1", "b": "2"})
    except WrongValueError:
        return
    assert "{a}" not in expanded or "{{" in template

"""What others ask of a health check without knowing its kind: its port, and its command with placeholders filled in."""

from __future__ import annotations

import pytest

from dsmt.spec.health import Check, ExecCheck, How, HttpCheck, NotifyCheck, TcpCheck, filled, has_port, port_of

HTTP = HttpCheck(port="web", path="/", scheme="http", method="GET", status=(), headers={}, contains=None)


def check(how: How) -> Check:
    return Check(how=how, interval_s=1.0, timeout_s=2.0, passes=1, failures=3, deadline_s=None)


@pytest.mark.parametrize(
    ("how", "port"),
    [(HTTP, "web"), (TcpCheck(port="db"), "db"), (ExecCheck(command=("x",)), None), (NotifyCheck(watchdog_s=None), None)],
)
def test_a_check_that_asks_a_port_names_it(how: How, port: str | None) -> None:
    assert port_of(how) == port
    assert has_port(str(how.__struct_config__.tag)) == (port is not None)


def test_the_words_of_a_command_are_filled_in_and_nothing_else_changes() -> None:
    asked = check(ExecCheck(command=("probe", "{port.http}")))
    assert filled(asked, str.upper) == check(ExecCheck(command=("PROBE", "{PORT.HTTP}")))
    assert filled(check(HTTP), str.upper) == check(HTTP)

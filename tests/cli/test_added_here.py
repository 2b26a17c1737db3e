"""What is added on this machine: what cannot be, for its name or its address, is told before anybody is asked."""

from pathlib import Path

import pytest

from tests.cli.in_process import WRONG, Run

ROWS = [
    (["broker", "add", "B 2"], "'B 2' is not a name for a broker"),
    (["broker", "add", "10.0.0.5"], "10.0.0.5 names a machine, and this adds a broker on the one where you type it"),
    (["broker", "add", "root@web-1"], "on that one: dsmt node add root@web-1 --roles broker,node; here: a name like b2"),
    (["broker", "add", "b2", "--listen", "x"], "'x' is not an address to listen at"),
    (["controller", "add", "C 2"], "'C 2' is not a name for a controller"),
    (["controller", "add", "10.0.0.5"], "on that one: dsmt node add 10.0.0.5 --roles controller,node; here: a name like"),
    (["controller", "add", "a@"], "a@ names a machine, and this adds a controller on the one where you type it"),
]


@pytest.mark.parametrize(("arguments", "said"), ROWS, ids=[" ".join(row[0]) for row in ROWS])
def test_what_cannot_be_added(run: Run, made: Path, arguments: list[str], said: str) -> None:
    code, told = run(*arguments, home=made, attached=False)
    assert said in told
    assert code == WRONG


@pytest.mark.parametrize("name", ["2", "1.5e", "web-1.example.org"])
def test_what_may_be_a_name_is_asked_for(run: Run, made: Path, name: str) -> None:
    code, told = run("broker", "add", name, home=made, attached=False)
    assert "names a machine" not in told
    assert code != WRONG

"""Every command that takes a service, a component or an instance takes each of them, in both of its forms."""

import json

import pytest

from dsmt.cli import COMMANDS, HIDDEN, Entry
from dsmt.cli.names import TARGET
from dsmt.cli.root import LazyGroup, root
from tests.cli.operating import Operator

pytestmark = [pytest.mark.real, pytest.mark.timeout(180), pytest.mark.xdist_group("cli-targets")]

LOOKING = {"ps", "endpoints", "status", "why", "why-not"}
OF_SERVICES = {"get", "history"}
OTHERS = {"stop", "start", "restart", "retry", "scale", "move", "rollback", "remove", "wait", "logs", "nodeset use"}
"""Those that act, wait or print line by line: tests of their own type them."""


@pytest.mark.parametrize("target", ["web", "web/app", "web/app/0"])
def test_what_only_looks_takes_each(operator: Operator, target: str) -> None:
    for verb in sorted(LOOKING | (OF_SERVICES if target == "web" else set())):
        assert operator.ok(verb, target)
        assert json.loads(operator.ok(verb, target, "--json"))


def test_no_other_command_takes_one() -> None:
    def of(group: LazyGroup, table: dict[str, object], above: str = "") -> set[str]:
        found = set()
        for name, entry in table.items():
            command = group.get_command(None, name)  # type: ignore[arg-type]
            assert command is not None
            if isinstance(entry, Entry):
                found |= {f"{above}{name}"} if any(one.type is TARGET for one in command.params) else set()
            else:
                found |= of(command, dict(entry.commands), f"{above}{name} ")  # type: ignore[arg-type, attr-defined]
        return found

    whole = root()
    assert isinstance(whole, LazyGroup)
    listed = {name: entry for name, entry in COMMANDS.items() if name not in HIDDEN}
    assert of(whole, listed) == LOOKING | OF_SERVICES | OTHERS

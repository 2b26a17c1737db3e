"""Why an agent has ended: what it has said itself, where it could not go on."""

from __future__ import annotations

import json

import pytest

from dsmt.agents.node.ended_agents import CANNOT_GO_ON, LOG, why_ended
from dsmt.errors import FailedError
from dsmt.event.reason import failed
from dsmt.ports.processes import Exit
from dsmt.programs.running import CONFIG_EXIT
from tests.agents.memory_machine import MemoryFiles

PLACE = "/c/instance.json cannot be read: permission denied"


def line(error: FailedError) -> bytes:
    """What a program writes that cannot go on (`dsmt.programs.running`)."""
    return json.dumps({"event": "cannot go on", "code": error.code, "reason": str(error)}).encode() + b"\n"


@pytest.mark.parametrize(
    ("code", "log", "told"),
    [
        (
            CANNOT_GO_ON,
            b"{}\n" + line(failed("node.files", path="/c/instance.json", done="read", error="permission denied")),
            PLACE,
        ),
        (CANNOT_GO_ON, line(FailedError("unheard.of", "x")), ""),
        (CANNOT_GO_ON, b"not JSON\xff\n", ""),
        (CANNOT_GO_ON, b"7\n", ""),
        (CANNOT_GO_ON, b"", ""),
        (1, line(failed("node.files", path="/c/x", done="read", error="permission denied")), ""),
    ],
    ids=["its word", "no reason of ours", "no line of it", "no object", "nothing", "a crash after it"],
)
def test_an_agent_that_cannot_go_on_is_told_in_its_own_words_and_all_else_is_a_defect(
    code: int, log: bytes, told: str
) -> None:
    """A file that root has taken was told as an internal error, which dsmt would mend."""
    files = MemoryFiles()
    files.write(LOG, log)
    why = why_ended(Exit(code, None), 0.5, files, watched=True, target="web/app/0", node="n1")
    assert CONFIG_EXIT == CANNOT_GO_ON
    assert (why.code, why.who) == (("node.files", "you") if told else ("dsmt.bug", "dsmt"))
    assert (why.message, why.next) == (told, "see to it on n1") if told else LOG in f"{why.message} {why.next}"

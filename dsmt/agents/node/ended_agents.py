"""Ended agents: why the agent of a container has ended, as its manager tells it.

Rule 1: an agent that cannot go on says why in the last line of its log, which nobody else may know: a file of its own that
    it cannot read. It ends with a code that says so; what else it ends with is a defect of ours.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from dsmt.agents.rules.container import EXIT_STOPPED
from dsmt.agents.rules.endings import ending
from dsmt.errors import UNDECODABLE, FailedError
from dsmt.event.reason import REASONS, Reason, reason
from dsmt.ports.files import Files
from dsmt.ports.processes import Exit

LOG: Final = "deployment_agent.log"
CANNOT_GO_ON: Final = 2


def why_ended(ended: Exit, lived_s: float, files: Files, *, watched: bool, target: str, node: str) -> Reason:
    """Why it has ended, of its own or killed; `files` are its container's."""
    if ended.code is None or ended.code == EXIT_STOPPED:
        code, fields = ending(ended, lived_s, started=True, watched=watched)
        return reason(code, target=target, node=node, **fields)
    told = _told(files, target, node) if ended.code == CANNOT_GO_ON else None
    return told or reason("dsmt.bug", id=f"{files.root}/{LOG}", module="the deployment agent")


def _told(files: Files, target: str, node: str) -> Reason | None:
    """What it has said last, if that is in the list of reasons (rule 1)."""
    try:
        last: dict[str, Any] = json.loads((files.read(LOG) or b"").splitlines()[-1])
        code, said = str(last["code"]), str(last["reason"])
    except (*UNDECODABLE, FailedError, LookupError, TypeError, ValueError):
        return None
    if code not in REASONS:
        return None
    advice = f". {REASONS[code].next}"  # with names that it does not fill in
    return msgspec.structs.replace(reason(code, target=target, node=node), message=said.removesuffix(advice))

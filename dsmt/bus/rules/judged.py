"""Judged: which sessions must attach anew, because a verdict, or the end of another one, stands on their attachment (F4).

Rule 1: a verdict is undone by a greater attachment and by nothing else. A node that was only stopped speaks again under the
    attachment that was judged: it would stay dead for ever while everybody hears it.
Rule 2: so the broker ends each session that a verdict of death judged, when it stores the verdict, whatever the session's
    state: who lives attaches anew, gets a greater number, and is alive; who does not has lost nothing.
Rule 3: it gets a number above the one that was judged, also where the verdict named one that is yet to come.
Rule 4: `left` is an operator's will: it ends no session, for a new attachment would undo it.
Rule 5: so must who is here while a greater attachment of its name elsewhere is open no more: that was a copy of it, and its
    end would count for good (A11).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from contextlib import suppress

from dsmt.errors import UnusableEventError
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.node import NodeVerdict
from dsmt.event.records import from_data
from dsmt.ports.store import Row

NODE_ROLES = ("node", "monitor", "agent")


def judged(rows: Iterable[Row]) -> list[tuple[str, NodeVerdict]]:
    """The verdicts of death among stored rows: (node, verdict)."""
    found = []
    for row in rows:
        kind, _, rest = row.topic.partition("/")
        node, _, word = rest.partition("/")
        if kind != "node" or word != "verdict":
            continue
        try:
            record = from_data(NodeVerdict, row.read().event.data)
        except UnusableEventError:
            continue  # of another version: nobody can obey it
        if record.state == "dead":
            found.append((node, record))
    return found


def outlived(rows: Iterable[Row], here: Container[str]) -> list[tuple[str, int]]:
    """The attachments of sources that are `here` which other brokers say are open no more, among stored rows."""
    found = []
    for row in rows:
        broker, _, source = row.topic.partition("/session/")
        if source not in here or not broker.startswith("broker/") or not row.brought:
            continue
        with suppress(UnusableEventError):  # of another version
            record = from_data(SessionFact, row.read().event.data)
            if record.state != "open":
                found.append((source, record.attachment))
    return found


def judged_of(source: str, held: Callable[[str], Row | None]) -> int:
    """The attachment of a source that a verdict has judged, by what stands on the topics of a store; 0 for none."""
    role, _, name = source.partition("/")
    row = held(f"node/{name.split('/')[0]}/verdict") if role in NODE_ROLES else None
    try:
        return 0 if row is None else from_data(NodeVerdict, row.read().event.data).attachments.get(source, 0)
    except UnusableEventError:
        return 0


def must_attach_anew(node: str, verdict: NodeVerdict, source: str, attachment: int) -> bool:
    """Whether a source's session is one that the verdict on `node` judged."""
    role, _, name = source.partition("/")
    if role not in NODE_ROLES or name.split("/")[0] != node:
        return False
    return attachment <= verdict.attachments.get(source, 0)

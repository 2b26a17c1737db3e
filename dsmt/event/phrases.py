"""Phrases: parts of the sentences that operators read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from dsmt.event.reason import Reason

_SILENT: Final = re.compile(r" has been silent for ([0-9.]+ s)\b")


def speaker(source: str) -> str:
    """Who said it, in short: `agent m2`, `c1`, `broker/b1`, `alice`."""
    role, _, rest = source.partition("/")
    if role == "agent":
        return f"agent {rest.split('/')[0]}"
    if role == "operator":
        return person(rest)
    return rest if role in ("controller", "node") else source


def person(name: str) -> str:
    """An operator's name, without the part that tells apart what runs in several terminals."""
    return name.removeprefix("operator/").split(".", 1)[0]


def whose(by: str, source: str, reason: str | None = None) -> str:
    """Whose word it is: whom it names and, where another operator has signed it, that one as well; and why they said it."""
    named, signer = person(by), person(source)
    signed = f", signed by {signer}" if named != signer and source.startswith("operator/") else ""
    return f"{named}{signed}{quoted(reason)}"


def another_certificate(who: str) -> str:
    """What an operator does so that somebody has a certificate again: who is in this home, or on another machine."""
    if who.startswith("operator/"):
        own = person(who)
        return f"dsmt cert rotate operator/{own}; of a home without root.key: dsmt operator add {own}, where that key is"
    role, _, rest = who.partition("/")
    if role == "joining":  # a token's
        return "another token: dsmt token create"
    if role in ("agent", "monitor"):  # theirs is by their node
        return another_certificate(f"node/{rest.partition('/')[0]}")
    if role == "node":
        return f"dsmt cert rotate {who}; on a host: dsmt node add it again, or dsmt join TOKEN, there"
    return f"dsmt cert rotate {who}; on an added host: its dsmt node add again"


def another_name(node: str) -> str:
    """What is typed on a machine whose name as a node is another machine's by now, so that it is a node again, or none."""
    joins = "dsmt join TOKEN --name NAME makes it a node under another name"
    return f"on a machine that is not {node} any more: {joins}; or dsmt down, and remove its home"


def another_key(who: str, key: str) -> str:
    """What an operator does so that somebody is let in again whose `key`, by its id, two processes have used."""
    role, _, rest = who.partition("/")
    if role == "node":
        by_token = f"dsmt cert revoke {key} here and dsmt join TOKEN there"
        return f"dsmt cert rotate {who}; on a host: dsmt node add it again, or {by_token}"
    if role in ("agent", "monitor"):
        return f"dsmt why node/{rest.partition('/')[0]}"
    return another_certificate(who)


def quoted(reason: str | None) -> str:
    """What somebody gave as a reason, as it stands behind what they did; nothing for none."""
    return f': "{reason}"' if reason else ""


def why(reason: Reason | None) -> str:
    """Why something is so, as it stands behind it; nothing where no reason is known."""
    return "" if reason is None else f": {reason.message}"


def in_retrospect(evidence: str) -> str:
    """The evidence of a verdict, as it is told later: how long a silence was then."""
    return _SILENT.sub(r" had been silent for \1 when that was judged", evidence, count=1)


def stepped(name: str) -> str:
    """What an agent is at before or after a program runs: a fetch, or a command of the spec by its key."""
    return "its fetch" if name == "fetch" else f"its `{name}` command"


def cut(text: str, most: int) -> str:
    """A text of at most so many characters: what is cut off shows as `...`."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def size_in_words(size_bytes: int) -> str:
    """Return a size as people read it, rounded: `512 B`, `5.1 GiB`, `8 GiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1023.95:  # what would be rounded to 1024 is one of the next unit
            return f"{size:.1f}".removesuffix(".0") + f" {unit}"
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + " TiB"


def some(names: Sequence[str], most: int = 3) -> str:
    """`n1, n2`; `n1, n2, n3 and 297 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, thing: str) -> str:
    """`1 node`, `3 nodes`, `2 processes`."""
    plural = "es" if thing.endswith("s") else "s"
    return f"{number} {thing}{'' if number == 1 else plural}"

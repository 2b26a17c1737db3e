"""Clearing: removing a container's directory, whatever its program has left in it.

Rule 1: what makes it a container goes first, and what its program has left last: where something cannot be removed all else
    has gone, so it is no container any more, and what is placed there later begins beside it.
Rule 2: the directories above go with the last container in them.
Rule 3: what stands in the place of a container's directory, as a link to elsewhere, goes, and nothing that it leads to.
"""

from __future__ import annotations

from dsmt.agents.rules.container import CONFIG, FILES
from dsmt.errors import FailedError
from dsmt.event.slots import SlotKey
from dsmt.ports.files import Files


def clear_place(files: Files, slot: SlotKey) -> None:
    """Remove what stands in the place of a container's directory (rule 3). Raises `FailedError` where that cannot be."""
    try:
        files.below(slot.directory, made=False).names("")
    except FailedError as error:
        if error.fields.get("other"):
            files.remove(slot.directory)


def clear(files: Files, slot: SlotKey) -> FailedError | None:
    """Remove the directory of a container, below the node's own; why something of it is left, if it is."""
    try:
        names = files.names(slot.directory)
    except FailedError as error:
        return error
    failure = None
    for name in sorted(names, key=lambda name: (name == FILES, name != CONFIG, name)):
        try:
            files.remove(f"{slot.directory}/{name}")
        except FailedError as error:
            failure = failure or error
    here = slot.directory
    try:
        while "/" in here and not files.names(here):
            files.remove(here)
            here = here.rpartition("/")[0]
    except FailedError as error:
        return failure or error
    return failure

"""The table of floors: where each module of dsmt stands, and what that lets it do.

To add a module: a module of a room that stands on one floor needs nothing. A module of a mixed room (`agents`, `bus`,
`controllers`, `monitors`) takes one word in `PURE`, `SHELLS` or `ADAPTERS`, whichever it is:

- pure: values in, values out; no I/O, no `await`, no clock, no randomness (floor 3; 5 if it speaks in records of ports);
- shell: async code that touches the outside through ports only, and so runs under the simulator as it is (floor 5);
- adapter: fulfils a port, and touches the outside (floor 5).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
GROUND = -1

ROOMS = {
    "dsmt.errors": GROUND, "dsmt.version": GROUND,
    "dsmt.event": 0, "dsmt.trust": 1, "dsmt.spec": 1, "dsmt.view": 2,
    "dsmt.ports": 4, "dsmt.logs": 4, "dsmt.system": 5,
    "dsmt.programs": 6, "dsmt.operations": 7, "dsmt.simulator": 8, "dsmt.console": 9, "dsmt.sdk": 9,
    "dsmt.cli": 10, "dsmt.__main__": 11,
}  # fmt: skip
"""Rooms on one floor."""

MIXED = {
    "dsmt.agents": {
        3: "reconcile supervision container greatest keeping",
        5: "delegation endings launching output",
    },
    "dsmt.bus": {
        3: "authority backoff door early marks outbox presence quota realm_time shares speaker",
        5: "admission broker_time delivery depot ended_keys frames handshake ingest judged outgoing passed reader receipts"
        " requests routing timekeeping turns wholeness witness",
    },
    "dsmt.controllers": {
        3: "agenda brake case completeness decide endings evidence intents named offering pinning placement ranking"
        " replacing replay resaying roads service timing wants",
    },
    "dsmt.monitors": {
        3: "health install silence",
    },
}
PURE = {
    f"{room}.{name}": floor for room, floors in MIXED.items() for floor, names in floors.items() for name in names.split()
}
"""Modules of mixed rooms that are held to the rules below the line."""

SHELLS = {
    "dsmt.agents": "commanding container_keeper container_manager data_key deployment_agent facts handover installing kept"
                   " memory reporting run running serving steps stopping surroundings voice watching",
    "dsmt.bus": "asking attaching broker client emission publisher readings subscription uplink",
    "dsmt.controllers": "runner",
    "dsmt.monitors": "node probe",
}  # fmt: skip
ADAPTERS = {
    "dsmt.agents": "archive artifacts drivers node_artifacts",
    "dsmt.bus": "blobs memory named sqlite tables trimming zeromq",
    "dsmt.monitors": "checks exec http tcp",
}

OUTSIDE = {"dsmt.system": "every adapter may stand on it"}
"""Rooms on floor 5 on which adapters of other rooms may stand."""

PURE_IMPORTS = frozenset({
    "__future__", "abc", "ast", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses",
    "datetime", "decimal", "difflib", "enum", "errno", "fnmatch", "fractions", "functools", "graphlib", "hashlib",
    "heapq", "hmac", "ipaddress", "itertools", "json", "keyword", "math", "numbers", "operator", "re", "shlex",
    "statistics", "string", "struct", "textwrap", "types", "typing", "unicodedata", "urllib.parse", "warnings", "zlib",
    "cbor2", "celpy", "common_expression_language", "msgspec", "nacl.bindings", "nacl.exceptions", "ruamel",
})  # fmt: skip
"""What pure modules may import besides dsmt: it neither asks the world nor tells it."""
PURE_PARTS = {"io": ("StringIO", "BytesIO"), "signal": ("Signals", "SIG")}
"""Of these modules only the parts that begin so."""
SHELL_IMPORTS = PURE_IMPORTS | {"asyncio"}
IMPURE_CALLS = {"open", "input", "print", "exec", "eval", "__import__"}
IMPURE_ATTRIBUTES = {"now", "utcnow", "today", "randombytes", "as_completed"}
NO_ORDER = {
    "dsmt.bus.rules.routing": "who owns a subscription is a part of its key in a map that keeps the order of insertion"
}
"""Pure modules that may call `id()`, because it decides no order."""
IN_ANY_ORDER = {"sorted", "set", "frozenset", "any", "all", "len"}
"""Functions whose result does not tell the order of what they were given."""


class Place(NamedTuple):
    """Where a module stands."""

    floor: int
    room: str
    kind: str


def names_of(table: Mapping[str, str]) -> set[str]:
    return {f"{room}.{name}" for room, names in table.items() for name in names.split()}


PLACES: dict[str, Place] = {
    **{room: Place(floor, room, "pure" if floor <= 3 else "any") for room, floor in ROOMS.items()},
    **{name: Place(floor, name.rsplit(".", 1)[0], "pure") for name, floor in PURE.items()},
    **{name: Place(5, name.rsplit(".", 1)[0], "shell") for name in names_of(SHELLS)},
    **{name: Place(5, name.rsplit(".", 1)[0], "any") for name in names_of(ADAPTERS)},
    "dsmt.ports": Place(4, "dsmt.ports", "shell"),
}


def place(module: str) -> Place | None:
    """Where a module stands: by the longest listed prefix. The bare package of a mixed room stands on the ground."""
    if module == "dsmt":
        return Place(9, "dsmt", "any")
    if module in MIXED:
        return Place(GROUND, module, "pure")
    parts = module.split(".")
    found = (PLACES.get(".".join(parts[:n])) for n in range(len(parts), 0, -1))
    return next((one for one in found if one is not None), None)

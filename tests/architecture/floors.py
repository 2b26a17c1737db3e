"""The table of floors: each room of dsmt is a folder, which says on which floor it stands and what that lets it do.

To add a module, put it into the room of its kind: nothing is listed here but rooms, and modules that differ from their room.

- pure: values in, values out; no I/O, no `await`, no clock, no randomness; of ports it knows records, and no interface;
- machine: the same, but it may hold a port that answers at once (a store);
- shell: async code that touches the outside through ports only, and so runs under the simulator as it is;
- adapter: fulfils a port, and touches the outside;
- any: above all that: programs, operations, command line.
"""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Place(NamedTuple):
    """Where a module stands. `room`: modules of one room may import each other."""

    floor: int
    room: str
    kind: str


ROOMS: dict[str, tuple[int, str]] = {
    "dsmt.backoff": (-1, "pure"),
    "dsmt.errors": (-1, "pure"),
    "dsmt.newest": (-1, "pure"),
    "dsmt.together": (-1, "shell"),
    "dsmt.version": (-1, "pure"),
    "dsmt.event": (0, "pure"),
    "dsmt.trust": (1, "pure"),
    "dsmt.spec": (1, "pure"),
    "dsmt.view": (2, "pure"),
    "dsmt.ports": (3, "shell"),
    "dsmt.view.following": (4, "pure"),
    "dsmt.logs": (3, "any"),
    "dsmt.bus.wire": (4, "pure"),
    "dsmt.bus.rules": (5, "pure"),
    "dsmt.agents.rules": (5, "pure"),
    "dsmt.monitors.rules": (5, "pure"),
    "dsmt.controllers": (5, "pure"),
    "dsmt.controllers.loop.runner": (6, "shell"),
    "dsmt.bus.broker": (6, "machine"),
    "dsmt.bus.broker.broker": (6, "shell"),
    "dsmt.bus.broker.others": (6, "shell"),
    "dsmt.bus.client": (6, "shell"),
    "dsmt.bus.store": (6, "adapter"),
    "dsmt.bus.zeromq": (6, "adapter"),
    "dsmt.bus.nats": (6, "adapter"),
    "dsmt.bus.memory": (6, "adapter"),
    "dsmt.agents.shared": (6, "shell"),
    "dsmt.agents.instance": (6, "shell"),
    "dsmt.agents.node": (6, "shell"),
    "dsmt.agents.fetch": (6, "adapter"),
    "dsmt.agents.drivers": (6, "adapter"),
    "dsmt.issuers": (6, "shell"),
    "dsmt.monitors": (6, "shell"),
    "dsmt.monitors.checks": (6, "adapter"),
    "dsmt.system": (6, "adapter"),
    "dsmt.programs": (7, "any"),
    "dsmt.operations.words": (7, "pure"),
    "dsmt.operations": (8, "any"),
    "dsmt.simulator.engine": (8, "any"),
    "dsmt.simulator": (9, "any"),
    "dsmt.demo": (9, "any"),
    "dsmt.cli": (10, "any"),
    "dsmt.__main__": (11, "any"),
}
"""A room holds its sub-rooms, unless they stand here themselves. Bare packages of rooms hold a docstring only."""

BESIDE = {
    "pure": {"pure"},
    "machine": {"pure", "machine"},
    "shell": {"pure", "machine", "shell"},
    "adapter": {"pure", "machine", "adapter"},
    "any": {"pure", "machine", "shell", "adapter", "any"},
}
"""What a module may import, by its kind: who is given its ports does not choose them."""

PORTS = {
    "dsmt.ports": {"pure", "machine", "shell", "adapter"},
    "dsmt.logs": {"machine", "shell", "adapter"},
    "dsmt.together": {"adapter"},
}
"""Rooms that these kinds may import too: interfaces and their records, a way out that never answers, and how tasks end."""

BEHIND_A_PORT = {
    "dsmt.bus": {
        "dsmt.programs.bus": "gives every program and operator its bus",
        "dsmt.programs.broker": "runs a broker",
        "dsmt.programs.birth": "makes a broker's store",
        "dsmt.programs.damage": "sets a broker's store aside",
        "dsmt.programs.nats_server": "makes and configures NATS servers",
        "dsmt.programs.nats_gate": "runs the gate of one",
        "dsmt.programs.bridge_copies": "reads a broker's store for the bridge, and fills NATS servers",
        "dsmt.programs.returning": "reads NATS servers for the bridge, and fills brokers' stores",
        "dsmt.simulator": "runs brokers and clients on its own network, clocks and disks",
    },
}
"""Rooms of which nobody outside of them knows more than their port in `dsmt.ports`; and who puts them together."""

OUTSIDE = {
    "dsmt.system": "every adapter may stand on it",
    "dsmt.agents.shared": "what both kinds of agent stand on",
}
"""Rooms on which others of their own floor may stand."""

PURE_IMPORTS = frozenset({
    "__future__", "abc", "array", "ast", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses",
    "datetime", "decimal", "difflib", "enum", "errno", "fnmatch", "fractions", "functools", "graphlib", "hashlib",
    "heapq", "hmac", "ipaddress", "itertools", "json", "keyword", "math", "numbers", "operator", "re", "shlex",
    "statistics", "string", "struct", "textwrap", "types", "typing", "unicodedata", "urllib.parse", "warnings", "zlib",
    "cbor2", "cel", "msgspec", "nacl.bindings", "nacl.exceptions", "ruamel",
})  # fmt: skip
"""What pure modules may import besides dsmt: it neither asks the world nor tells it."""
PURE_PARTS = {"io": ("StringIO", "BytesIO"), "signal": ("Signals", "SIG")}
"""Of these modules only the parts that begin so."""
SHELL_IMPORTS = PURE_IMPORTS | {"asyncio"}
IMPURE_CALLS = {"open", "input", "print", "exec", "eval", "__import__"}
IMPURE_ATTRIBUTES = {"now", "utcnow", "today", "randombytes"}
"""Not to be called of anything that comes from a module, whatever it is called here."""
LOOP_ONLY = {
    "as_completed", "create_subprocess_exec", "create_subprocess_shell", "open_connection", "open_unix_connection",
    "start_server", "start_unix_server", "to_thread", "run",
}  # fmt: skip
"""Of asyncio: what touches the outside, or is no part of a shell."""
NO_ORDER = {"dsmt.bus.rules.routing": "the owner of a subscription is a key of a map that keeps the order of insertion"}
"""Pure modules that may call `id()`, because it decides no order."""
IN_ANY_ORDER = {"sorted", "set", "frozenset", "any", "all", "len"}
"""Functions whose result does not tell the order of what they were given."""


def place(module: str) -> Place | None:
    """Where a module stands: in the room of the longest listed prefix. A bare package of rooms stands on the ground."""
    if module == "dsmt":
        return Place(9, "dsmt", "any")
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        room = ".".join(parts[:n])
        if room in ROOMS:
            floor, kind = ROOMS[room]
            around = room.rpartition(".")[0]
            return Place(floor, around if ROOMS.get(around, (None,))[0] == floor else room, kind)
    if any(room.startswith(f"{module}.") for room in ROOMS):
        return Place(-1, module, "pure")
    return None

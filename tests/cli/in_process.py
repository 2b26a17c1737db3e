"""Command lines run in this process: what is put in the place of a realm, and the codes with which they end."""

# ruff: noqa: E501 - a row of a table stays one line

from collections.abc import Callable

Run = Callable[..., tuple[int, str]]

LOOKS = (
    "operations.write.applying", "operations.write.controlling", "operations.write.node_control", "operations.write.nodesets",
    "operations.read.realm.sight", "operations.read.why.explaining", "operations.write.asking_logs",
    "operations.write.revoking", "cli.nodeset", "cli.why", "cli.status", "cli.listing", "cli.node",
)  # fmt: skip
"""Who looks at the realm: they see the one that the test knows."""
NO_YES = "nothing was done, for nobody said yes to this"
WRONG, NO, DENIED, MISSING, AWAY = 2, 1, 4, 5, 7


class Stub:
    """A bus that knows the time, and nothing else: who gets further than the checks fails."""

    source = "operator/alice"
    broker = "broker/b1"

    def now_ms(self) -> int:
        return 1_700_000_000_000

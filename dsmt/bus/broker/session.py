"""A session: a connected client, as a broker holds it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dsmt.bus.rules.presence import How
from dsmt.ports.network import Peer
from dsmt.ports.store import Row
from dsmt.trust.certificate import Certificate
from dsmt.trust.store import Signer


@dataclass(slots=True, eq=False)
class Session:
    """A connected client, as the broker holds it. `nonce` is what its attach statement must sign."""

    peer: Peer
    key: bytes
    since: float = 0.0
    name: str = ""
    certificate: Certificate | None = None
    incarnation: int = 0
    claimed: int = 0
    """The incarnation that its hello said."""
    follows: int | None = None
    """The number of its attachment before, as its hello said; 0 where there was none."""
    attachment: int = 0
    nonce: bytes = b""
    attached: bool = False
    reads: bool = False
    """It only reads: it is no source (D2)."""
    displaced: bool = False
    """Of a broker that was removed, or whose name another key has by the newest word: it is a reader as any other (R8)."""
    stored: int = 0
    """Of a broker that keeps a copy: up to which row of ours it has said to hold everything (D1)."""
    refused: bool = False
    """It has been told to go: nothing of it is listened to any more."""
    blameless: bool = False
    """It has been told to go for what is wrong with the broker."""
    pid: int | None = None
    version: str = ""
    address: str = ""
    payer: str = ""
    """Who pays for its work: the ancestor of its certificate (rule D2)."""
    gone: bool = False
    """Its connection has ended; what it had sent is still looked at."""
    heard: float = 0.0
    asked: float = 0.0
    """When it was last asked whether it is there (rule F3)."""
    answered: float = 0.0
    """When it last said no more than that it is there, or asked no more than that."""
    served: int = 0
    """When a page was last read for it, in pages."""
    untold: deque[Row] = field(default_factory=deque)
    """Revocations that it has yet to be told; until then nothing more of it is looked at."""
    known: dict[Signer, tuple[bytes, ...]] = field(default_factory=dict)
    """Which certificates it has been sent of whom."""

    def closed_by(self, how: str) -> How:
        """How its connection ended, by what the socket says: who had to leave for our own fault has not left by itself."""
        return "peer" if how == "peer" and not self.blameless else "local"

    @property
    def granted(self) -> tuple[str, ...]:
        """What its certificate lets it read; nothing until it has shown one."""
        return () if self.certificate is None else self.certificate.read

    @property
    def by_broker(self) -> bool:
        """Whether a broker's process reads by it, also one that is no broker of the realm."""
        return self.reads and self.name.startswith("broker/")

    @property
    def is_broker(self) -> bool:
        """Whether it is another broker's, that keeps a copy."""
        return self.by_broker and not self.displaced

    @property
    def is_told(self) -> bool:
        """Whether its coming and going is said: a source's is, and another broker's (F1)."""
        return self.attached and (not self.reads or self.is_broker)

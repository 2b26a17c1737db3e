"""Verify: a history file, or a recorded stream of signed events (a CBOR sequence, RFC 8742), checked offline.

Rule 1: every item must be an event whose signature, certificate and grant are good at its own time, and that its topic's row
    takes (`opened`, B9): so a heartbeat is its source's own, and a notice is a broker's.
Rule 2: chains and sequences are followed (`followed`); a file that holds brokers' heartbeats was recorded whole
    (`dsmt tail --raw`), and only there are sequences followed too.
Rule 3: an event that comes twice in a stream is nothing; two different ones with one number are an equivocation, as is
    an event that links to another than the one before it.
Rule 4: an event of a revoked key in a stream is not believed, whatever time it bears (rule J3), wherever in it the
    revocation stands: a stolen key signs with any time, and a stream of events witnesses no order.
Rule 5: what a file can prove, and what not, is said with it: a stream cannot show that its last events, or a whole topic or
    source of which it holds nothing, are missing. A history (`proving`) can.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode, open_envelope
from dsmt.operations.offline.followed import Followed, Gap
from dsmt.operations.offline.items import items
from dsmt.operations.words.telling import Tell
from dsmt.operations.words.times import time_or_null
from dsmt.trust.opening import opened
from dsmt.trust.store import TrustStore

STRANGER: Final = "trust.stranger"
UNWITNESSED: Final = "trust.unwitnessed"
MAX_FAULTS: Final = 100


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: its error code, the event (as far as it can be told) and a sentence."""

    code: str
    event: str | None
    message: str


class HistoryHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a history file is besides its events: whose store, up to which row and when; how many rows are not in it.

    `trimmed` rows were let go by their broker, which says so; `lost` are gone without a word. `left_out` were not wanted, as
    who wrote the file says and nobody has signed; `wanted` are the topic patterns that it names for that, none: everything.
    `never_came` are the events of which it says that their sources could not give them: as many as each source has numbered,
    which is that source's own word; `never_came_of` says whose, the most first. `before` is how many rows it had before the
    first that is claimed, none for a whole history; `begins` is when the first row here arrived there.
    """

    store: str
    broker: str
    rows: int
    signed_at: str | None
    trimmed: int
    left_out: int
    wanted: tuple[str, ...]
    lost: int
    never_came: int
    never_came_of: dict[str, int]
    heads: int
    """How many signed heads within it were found right, the last one included."""
    head_hash: str
    before: int
    begins: str | None


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is worth. `first` and `last` are the times of its first and last event.

    `events` are those that are believed; `unwitnessed` are those of revoked keys. `proves` and `cannot_prove` are sentences.
    `history` is null for a stream.
    """

    ok: bool
    events: int
    signers: int
    bad_signatures: int
    gaps: list[Gap]
    equivocations: int
    unknown_signers: int
    unwitnessed: int
    first: str | None
    last: str | None
    duplicates: int
    faults: list[Fault]
    proves: list[str]
    cannot_prove: list[str]
    history: HistoryHead | None = None


class Faults:
    """What is wrong with a file: all are counted, the first `MAX_FAULTS` kept."""

    def __init__(self) -> None:
        self.kept: list[Fault] = []
        self.bad = self.equivocations = self.unwitnessed = 0
        self._strangers: set[bytes] = set()

    @property
    def strangers(self) -> int:
        """How many signers nobody knows."""
        return len(self._strangers)

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.bad or self._strangers or self.equivocations or self.unwitnessed)

    def _keep(self, code: str, event: object, message: str) -> None:
        if len(self.kept) < MAX_FAULTS:
            self.kept.append(Fault(code=code, event=None if event is None else str(event), message=message))

    def wrong(self, code: str, message: str, event: object = None) -> None:
        """Something that is not as it must be."""
        self.bad += 1
        self._keep(code, event, message)

    def unusable(self, error: UnusableEventError, raw: bytes) -> None:
        """An event that cannot be believed."""
        if error.code == "trust.revoked":
            self.unwitness(_claimed(raw))
        elif error.code == STRANGER:
            self._strangers.add(open_envelope(raw).key_id)
            self._keep(error.code, _claimed(raw), error.message)
        else:
            self.wrong(error.code, error.message, _claimed(raw))

    def unwitness(self, event: object) -> None:
        """An event of a revoked key."""
        self.unwitnessed += 1
        self._keep(UNWITNESSED, event, "its key was revoked, and nobody witnesses that it was signed before")

    def equivocation(self, event: object, message: str) -> None:
        """A source said two things, of which it can mean only one."""
        self.equivocations += 1
        self._keep("event.equivocation", event, message)


def is_recording(raw: bytes) -> bool:
    """Whether these bytes begin with an event: a tagged COSE_Sign1 (RFC 9052, section 2)."""
    return raw[:1] == b"\xd2"


def verify_stream(raw: bytes, trust: TrustStore, tell: Tell) -> Verified:
    """Check a recorded stream."""
    followed, faults = Followed(), Faults()
    try:
        for item in items(raw, tell):
            try:
                signed, _ = opened(trust, item)
            except UnusableEventError as error:
                faults.unusable(error, item)
                continue
            followed.add(signed)
            trust.revoke(signed)
    except UnusableEventError as error:
        faults.wrong(error.code, error.message)
    revoked = {signer for signer in followed.who_signed if trust.is_revoked(*signer)}
    for identity in followed.ids_of(revoked):
        faults.unwitness(identity)
    followed.forget(revoked)
    chains = [missing.gap for missing in followed.chains()]
    whole = followed.has_brokers_heartbeats()
    sequences = followed.sequences() if whole else ()
    return verified(followed, faults, sorted({*chains, *sequences}, key=_place), _worth(whole=whole))


def verified(
    followed: Followed,
    faults: Faults,
    gaps: list[Gap],
    worth: tuple[list[str], list[str]],
    history: HistoryHead | None = None,
) -> Verified:
    """All that was found."""
    for event, message in followed.equivocations:
        faults.equivocation(event, message)
    first, last = followed.span
    return Verified(
        ok=not (faults.any or gaps),
        events=followed.events,
        signers=followed.signers,
        bad_signatures=faults.bad,
        gaps=gaps,
        equivocations=faults.equivocations,
        unknown_signers=faults.strangers,
        unwitnessed=faults.unwitnessed,
        first=time_or_null(first),
        last=time_or_null(last),
        duplicates=followed.duplicates,
        faults=faults.kept,
        proves=worth[0],
        cannot_prove=worth[1],
        history=history,
    )


def _worth(*, whole: bool) -> tuple[list[str], list[str]]:
    """Rule 5."""
    proves = ["of each topic of each source: everything between its first and its last event here"]
    if whole:
        proves.append("of each source with heartbeats: everything between its first and its last one here")
    cannot = [
        "that nothing was said after a source's last event here",
        "that no topic, and no source, is missing altogether" if not whole else "that no source is missing altogether",
        "which of two sources spoke first",
    ]
    return proves, cannot


def _place(gap: Gap) -> tuple[str, str, int]:
    return gap.source, gap.topic or "", gap.first


def _claimed(item: bytes) -> str | None:
    try:
        return str(decode(item).id)
    except UnusableEventError:
        return None

"""Subjects: what topics and sources are called on NATS, and which stream holds what; pure, and exact both ways.

Rule 1: a subject is `d.<realm>.<kind>.<publisher>...`, in which a source's name is one token: who may publish what is said
    by the subject alone, and no source can write over another's retained fact.
Rule 2: a level of a topic is a token. What NATS gives a meaning to, and whatever is not plain ASCII, is percent-encoded.
Rule 3: `f` facts, `s` signals, `o` facts that somebody re-offers, `i` and `n` copies for an addressee (of signals, of
    facts), `c` certificates, `m`
    marks at which a subscription begins, `t` tokens of a reader. Stream H takes them all, stream F the last of each
    subject of those that are retained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from dsmt.errors import UnusableEventError
from dsmt.event.topic import covers

_PLAIN: Final = re.compile(r"[^A-Za-z0-9_\-]")
RETAINED: Final = "focmn"
"""The kinds that stream F is sourced with: of each subject the last one is what a late reader needs."""
SPOKEN: Final = "focn"
"""Those of them that hold somebody's words, or the certificates of who has said them: a mark holds nothing."""
FACTS: Final = "F-"
"""With this the name of a stream F begins, and no other."""
_FILTERED: Final = ("f.*", "s.*", "o.*.*")


class SubjectParts(NamedTuple):
    """What a subject says of its message: its kind, who sent it; of an event whose word it is, on which topic, for whom."""

    kind: str
    publisher: str
    author: str
    topic: str
    addressee: str = ""


@lru_cache(maxsize=65536)
def token(text: str) -> str:
    """A name, or a level of a topic, as one token of a subject."""
    return _PLAIN.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text) or "%"


def _tokens(pattern: str) -> str:
    """A topic, or a pattern of topics, as the end of a subject."""
    if pattern == "/":
        return ">"
    levels = ["*" if level == "+" else token(level) for level in pattern.removesuffix("/").split("/")]
    return ".".join([*levels, ">"] if pattern.endswith("/") else levels)


def smallest(patterns: Iterable[str]) -> list[str]:
    """The patterns without those that another one covers: NATS refuses a consumer whose filters contain each other."""
    known = list(dict.fromkeys(patterns))
    return [one for one in known if not any(other != one and covers(other, one) for other in known)]


class Question(NamedTuple):
    """What somebody asks of JetStream through a gate: who it is, what its certificate lets it read, and what it asks."""

    name: str
    read: tuple[str, ...]
    asked: str


class Subjects:
    """The subjects and streams of one realm."""

    def __init__(self, realm: str) -> None:
        self._prefix = f"d.{token(realm)}"
        self.history = f"H-{token(realm)}"
        """The stream of everything that is said."""
        self.facts = f"{FACTS}{token(realm)}"
        """The stream of what is retained."""
        self.everything = f"{self._prefix}.>"
        self.signals = f"{self._prefix}.s.>"
        self._asked, self._answered = f"a.{token(realm)}", f"k.{token(realm)}"
        self.asked_all = f"{self._asked}.*"
        """Where who is quiet is asked."""
        self.answers = f"{self._answered}.*"
        """Who was quiet and was asked says that it is there; no stream has it."""
        self._questions = f"q.{token(realm)}"
        self.questions = f"{self._questions}.>"
        """What is asked through a gate; no stream has it."""
        self._depot = f"b.{token(realm)}"
        self.blobs = f"B-{token(realm)}"
        """The stream of the depot."""
        self.pieces = f"{self._depot}.>"

    def asked(self, source: str) -> str:
        """Where a source that is quiet is asked whether it is there."""
        return f"{self._asked}.{token(source)}"

    def answer(self, source: str) -> str:
        """Where it says so."""
        return f"{self._answered}.{token(source)}"

    def asking(self, name: str, read: Iterable[str]) -> str:
        """Where a source of this grant asks through a gate: what it asks follows. Nobody else may publish there."""
        return f"{self._questions}.{token(name)}.{token(' '.join(read))}"

    def question(self, subject: str) -> Question:
        """Read such a subject."""
        _, _, name, read, asked = subject.split(".", 4)
        return Question(unquote(name), tuple(unquote(read).split()), asked)

    def filtered(self, subject: str) -> tuple[str, list[str]]:
        """The kind of a filter (`b` of pieces of blobs) and its tokens behind that. Raises `UnusableEventError`."""
        kind, _, rest = subject.removeprefix(f"{self._prefix}.").partition(".")
        if subject.startswith(f"{self._depot}."):
            kind, rest = "b", subject.removeprefix(f"{self._depot}.")
        elif not subject.startswith(f"{self._prefix}."):
            raise UnusableEventError("event.subject", f"{subject[:200]} is no subject of this realm")
        return kind, rest.split(".")

    def publisher(self, subject: str) -> str:
        """Who has sent something on a subject of this realm: an answer, or anything of its streams."""
        has_no_kind = subject.startswith((f"{self._answered}.", f"{self._depot}."))
        return unquote(subject.split(".")[2 if has_no_kind else 3])

    def retained(self, kinds: str = RETAINED) -> list[str]:
        """What stream F takes from stream H, of these kinds."""
        return [f"{self._prefix}.{kind}.>" for kind in kinds]

    def said_by(self, publisher: str) -> list[str]:
        """All words that stand under the name of who has sent them; and what was answered there."""
        return [f"{self._prefix}.{kind}.{token(publisher)}.>" for kind in SPOKEN]

    def event(self, author: str, topic: str, *, fact: bool) -> str:
        """What a source says itself."""
        return f"{self._prefix}.{'f' if fact else 's'}.{token(author)}.{_tokens(topic)}"

    def offered(self, publisher: str, author: str, topic: str) -> str:
        """A fact of anybody that a source re-offers."""
        return f"{self._prefix}.o.{token(publisher)}.{token(author)}.{_tokens(topic)}"

    def copy(self, publisher: str, addressee: str, topic: str, *, fact: bool) -> str:
        """A copy for an addressee, of what stands on its topic too."""
        return f"{self._prefix}.{'n' if fact else 'i'}.{token(publisher)}.{token(addressee)}.{_tokens(topic)}"

    def certificate(self, publisher: str, source: str, key_id: bytes) -> str:
        """The certificates of one key of a source, brought by itself or by who re-offers its word."""
        return f"{self._prefix}.c.{token(publisher)}.{token(source)}.{key_id.hex()}"

    def brought_by(self, publisher: str, subject: str) -> str:
        """Where somebody else would bring the certificates that stand on a subject."""
        return ".".join([self._prefix, "c", token(publisher), *subject.split(".")[4:]])

    def certificates(self, source: str, key_id: bytes = b"") -> str:
        """The same, whoever has brought them; those of all keys where none is named."""
        return f"{self._prefix}.c.*.{token(source)}.{key_id.hex() or '*'}"

    def mark(self, publisher: str, number: str, *, begins: bool) -> str:
        """A mark of one subscription: where it begins, or a token of its reader."""
        return f"{self._prefix}.{'m' if begins else 't'}.{token(publisher)}.{number}"

    def marks(self, publisher: str = "") -> str:
        """All marks at which subscriptions of one source begin, or of all sources."""
        return f"{self._prefix}.m.{token(publisher)}.>" if publisher else f"{self._prefix}.m.>"

    def is_mark(self, subject: str) -> bool:
        """Whether a subject is one of these."""
        return subject.startswith(f"{self._prefix}.m.")

    def mailbox(self, addressee: str) -> list[str]:
        """All copies for one addressee."""
        return [f"{self._prefix}.{kind}.*.{token(addressee)}.>" for kind in "in"]

    def noted(self, addressee: str) -> str:
        """Those of facts: on which topics something was addressed to it."""
        return f"{self._prefix}.n.*.{token(addressee)}.>"

    def on(self, topic: str) -> str:
        """The facts that all sources say themselves on one topic: what a shared fact is compared with."""
        return f"{self._prefix}.f.*.{_tokens(topic)}"

    def offered_on(self, topic: str) -> str:
        """The facts that were re-offered on one topic."""
        return f"{self._prefix}.o.*.*.{_tokens(topic)}"

    def of(self, source: str, pattern: str = "/") -> tuple[str, str]:
        """What a source says itself on a pattern of topics: its facts, its signals."""
        own = f"{token(source)}.{_tokens(pattern)}"
        return f"{self._prefix}.f.{own}", f"{self._prefix}.s.{own}"

    def retained_of(self, source: str, pattern: str = "/") -> tuple[str, str]:
        """What is retained of a source's facts on a pattern of topics, and what others have re-offered of them."""
        own = f"{token(source)}.{_tokens(pattern)}"
        return f"{self._prefix}.f.{own}", f"{self._prefix}.o.*.{own}"

    def piece(self, publisher: str, digest: bytes, name: str) -> str:
        """A piece of a blob; the one called `count` says how many there are."""
        return f"{self._depot}.{token(publisher)}.{digest.hex()}.{name}"

    def counts(self, digest: bytes) -> str:
        """Who has put a blob, and in how many pieces."""
        return f"{self._depot}.*.{digest.hex()}.count"

    @property
    def all_counts(self) -> str:
        """All blobs that were put, by anybody."""
        return f"{self._depot}.*.*.count"

    def blob(self, digest: bytes, publisher: str = "") -> str:
        """All pieces of a blob, of one who has put it or of all."""
        return f"{self._depot}.{token(publisher) if publisher else '*'}.{digest.hex()}.>"

    @staticmethod
    def digest(subject: str) -> bytes:
        """The blob of which a piece is one. Raises `ValueError` for what is none."""
        return bytes.fromhex(subject.split(".")[3])

    def taken_by(self, patterns: Iterable[str], *, signals: bool) -> list[str]:
        """The filters of a subscription to these patterns."""
        kept = smallest(patterns)
        kinds = [kind for kind in _FILTERED if signals or kind != "s.*"]
        return [f"{self._prefix}.{kind}.{_tokens(one)}" for one in kept for kind in kinds]

    def grants(self, name: str, patterns: Iterable[str]) -> list[str]:
        """The subjects on which a source of these grants may publish: its own, what it re-offers, an operator's blobs."""
        own = token(name)
        said = [f"{self._prefix}.{kind}.{own}.{_tokens(one)}" for one in smallest(patterns) for kind in "fs"]
        beside = [f"{self._prefix}.{kind}.{own}.>" for kind in "oincmt"]
        return [*said, *beside, *([f"{self._depot}.{own}.>"] if name.startswith("operator/") else [])]

    def said(self, subject: str) -> SubjectParts:
        """Read a subject. Raises `UnusableEventError` for one that is none."""
        tokens = subject.split(".")
        kind = tokens[2] if len(tokens) > 3 and subject.startswith(f"{self._prefix}.") else ""
        names = {"f": 1, "s": 1, "o": 2, "i": 2, "n": 2, "c": 2, "m": 1, "t": 1}.get(kind)
        if names is None or len(tokens) <= 3 + names:
            raise UnusableEventError("event.subject", f"{subject[:200]} is no subject of this realm")
        first, second, topic = unquote(tokens[3]), unquote(tokens[2 + names]), "/".join(map(unquote, tokens[3 + names :]))
        return SubjectParts(kind, first, first, topic, second) if kind in "in" else SubjectParts(kind, first, second, topic)

"""Node sets: a live algebra over the nodes of a realm, parsed from `limit(minus(all_nodes, failed), 10)`.

    expression := NAME | minus(expression, expression) | union(expression, ...) | intersect(expression, ...)
                | limit(expression, N)

Rule 1: `all_nodes` and `failed` are given; another NAME is a named set or, when there is none, the node so called.
Rule 2: a name that is neither selects nothing: nodes and sets come and go, and an evaluation must not fail for it;
        `unknown_names` tells them to whoever declares an expression.
Rule 3: `limit` takes the first N in rendezvous order, so a node that comes or goes changes at most one member. Who evaluates
        may prefer other nodes, but not within what a `minus` takes away: there nothing may follow from what runs where.
Rule 4: named sets that lead back to themselves are an error that names the cycle.
Rule 5: how many named sets lead from one to another is not bounded: whatever facts say, an evaluation ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from dsmt.errors import InputError

ALL_NODES: Final = "all_nodes"
FAILED: Final = "failed"
OPERATORS: Final = ("minus", "union", "intersect", "limit")
RESERVED: Final = frozenset({ALL_NODES, FAILED, *OPERATORS})

_TOKEN: Final = re.compile(r"\s*(?:([A-Za-z0-9][A-Za-z0-9._-]*)|([(),])|(\S)|$)")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?|all_nodes")
_DEEPEST: Final = 32
_LONGEST: Final = 4096
_LARGEST_LIMIT: Final = 1_000_000


class NodeSetError(InputError):
    """A node set expression is wrong; `column` counts from 1 (0: not a matter of one place)."""

    def __init__(self, message: str, *, column: int = 0, suggestion: str) -> None:
        super().__init__("bad_nodeset", message, next=suggestion, column=column)
        self.column = column


class NamedNodes(msgspec.Struct, frozen=True, tag="named"):
    """`all_nodes`, `failed`, a named set, or a single node."""

    name: str


class Minus(msgspec.Struct, frozen=True, tag="minus"):
    """What is in `left` and not in `right`."""

    left: Expression
    right: Expression


class Union(msgspec.Struct, frozen=True, tag="union"):
    """What is in any part."""

    parts: tuple[Expression, ...]


class Intersect(msgspec.Struct, frozen=True, tag="intersect"):
    """What is in every part."""

    parts: tuple[Expression, ...]


class Limit(msgspec.Struct, frozen=True, tag="limit"):
    """At most `count` of `of`, the first in rendezvous order."""

    of: Expression
    count: int


Expression = NamedNodes | Minus | Union | Intersect | Limit


def parse(text: str) -> Expression:
    """Return the expression of a text; raise `NodeSetError` with the column of the first mistake."""
    if len(text) > _LONGEST:
        raise NodeSetError(f"a node set has at most {_LONGEST} characters", column=1, suggestion="name parts of it as sets")
    parser = _Parser(text)
    expression = parser.expression(0)
    parser.end()
    return expression


class _Parser:
    """Recursive descent over tokens `(text, column)`; the last token is empty."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def expression(self, depth: int) -> Expression:
        word, column = self._next()
        if depth > _DEEPEST:
            raise NodeSetError(f"nested deeper than {_DEEPEST}", column=column, suggestion="name parts of it as sets")
        if not word or word in "(),":
            raise NodeSetError(f"a set is missing{f' before `{word}`' if word else ''}", column=column,
                               suggestion="write all_nodes, a name, or minus(a, b)")  # fmt: skip
        if self._tokens[self._at][0] == "(":
            return self._call(word, column, depth)
        if word in OPERATORS:
            raise NodeSetError(f"`{word}` needs its parts", column=column, suggestion=_usage(word))
        if not _NAME.fullmatch(word):
            suggestion = f"names are 1-63 of a-z 0-9 - . _{as_lower_case(word)}"
            raise NodeSetError(f"`{word}` is not a name of a set or node", column=column, suggestion=suggestion)
        return NamedNodes(word)

    def _call(self, word: str, column: int, depth: int) -> Expression:
        if word not in OPERATORS:
            raise NodeSetError(f"there is no operator `{word}`", column=column,
                               suggestion=f"operators are {', '.join(OPERATORS)}")  # fmt: skip
        self._next()
        parts = [self.expression(depth + 1)]
        while self._tokens[self._at][0] == ",":
            self._next()
            if word == "limit":
                return self._limit(parts[0])
            parts.append(self.expression(depth + 1))
        self._close()
        if word == "limit":
            raise NodeSetError("`limit` needs a number", column=column, suggestion=_usage(word))
        if word == "minus":
            if len(parts) != 2:
                raise NodeSetError(f"`minus` takes 2 parts, not {len(parts)}", column=column, suggestion=_usage(word))
            return Minus(parts[0], parts[1])
        return Union(tuple(parts)) if word == "union" else Intersect(tuple(parts))

    def _limit(self, of: Expression) -> Expression:
        word, column = self._next()
        if not word.isascii() or not word.isdigit() or len(word) > 7 or int(word) > _LARGEST_LIMIT:
            raise NodeSetError(f"`{word}` is not a number of nodes", column=column, suggestion=_usage("limit"))
        self._close()
        return Limit(of, int(word))

    def _close(self) -> None:
        word, column = self._next()
        if word != ")":
            missing = f"`)` or `,` is missing{f' before `{word}`' if word else ' at the end'}"
            raise NodeSetError(missing, column=column, suggestion="write it as in minus(a, b)")

    def end(self) -> None:
        word, column = self._next()
        if word:
            message = f"`{word}` stands after a whole expression"
            raise NodeSetError(message, column=column, suggestion="write one expression, as in union(a, b)")

    def _next(self) -> tuple[str, int]:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastindex is None:
            break
        column = match.start(match.lastindex) + 1
        if match[3]:
            raise NodeSetError(f"`{match[3]}` has no meaning here", column=column,
                               suggestion="write minus(a, b), union(a, b), intersect(a, b), limit(a, 3)")  # fmt: skip
        yield match[match.lastindex], column
        at = match.end()
    yield "", len(text) + 1


def as_lower_case(word: str) -> str:
    """What to add to what names are made of, where a word is one but for its upper case."""
    return f", as in {word.lower()}" if _NAME.fullmatch(word.lower()) else ""


def _usage(word: str) -> str:
    return {"minus": "minus(a, b)", "limit": "limit(a, 3)"}.get(word, f"{word}(a, b, ...)")


def format_expression(expression: Expression) -> str:
    """Return the canonical text, which `parse` reads back as the same expression."""
    match expression:
        case NamedNodes(name):
            return name
        case Minus(left, right):
            return f"minus({format_expression(left)}, {format_expression(right)})"
        case Union(parts):
            return f"union({', '.join(map(format_expression, parts))})"
        case Intersect(parts):
            return f"intersect({', '.join(map(format_expression, parts))})"
        case Limit(of, count):
            return f"limit({format_expression(of)}, {count})"


def rendezvous_rank(key: str, node: str) -> int:
    """Return the rank of a node for a set (lower is first): blake2b of the set's canonical text and the node."""
    return int.from_bytes(hashlib.blake2b(f"{key}\0{node}".encode(), digest_size=8).digest())


def evaluate(
    expression: Expression,
    *,
    universe: Sequence[str],
    failed: frozenset[str],
    named: Mapping[str, Expression],
    rank: Callable[[str, str], int] = rendezvous_rank,
) -> tuple[str, ...]:
    """Return the nodes selected, sorted by name.

    `universe` is every node of the realm, `failed` those that are dead or where this component is parked, `named`
    the realm's sets. `rank(set key, node)` orders `limit`, but within what a `minus` takes away (rule 3). Raises
    `NodeSetError` only for a cycle of named sets.
    """
    return tuple(sorted(_Evaluation(frozenset(universe), failed, named, rank).of(expression)))


Use = tuple[str, bool]
"""A name in an expression, and whether it is taken away from others there."""


class _Evaluation:
    """One evaluation; a named set is evaluated once, and once more where it is taken away."""

    def __init__(
        self,
        universe: frozenset[str],
        failed: frozenset[str],
        named: Mapping[str, Expression],
        rank: Callable[[str, str], int],
    ) -> None:
        self._universe = universe
        self._failed = failed & universe
        self._named = named
        self._rank = rank
        self._known: dict[Use, frozenset[str]] = {}

    def of(self, expression: Expression, *, taken: bool = False) -> frozenset[str]:
        """The nodes that it selects; `taken`: they are taken away from others."""
        match expression:
            case NamedNodes(name):
                return self._name(name, taken)
            case Minus(left, right):
                return self.of(left, taken=taken) - self.of(right, taken=True)
            case Union(parts):
                return frozenset[str]().union(*(self.of(part, taken=taken) for part in parts))
            case Intersect(parts):
                return frozenset.intersection(*(self.of(part, taken=taken) for part in parts))
            case Limit(of, count):
                key, rank = format_expression(of), rendezvous_rank if taken else self._rank
                return frozenset(sorted(self.of(of, taken=taken), key=lambda node: (rank(key, node), node))[:count])

    def _name(self, name: str, taken: bool) -> frozenset[str]:
        if name == ALL_NODES:
            return self._universe
        if name == FAILED:
            return self._failed
        if name not in self._named:
            return frozenset({name}) & self._universe
        if (name, taken) not in self._known:
            self._find((name, taken))
        return self._known[name, taken]

    def _find(self, wanted: Use) -> None:
        """Evaluate a named set after those that it names: so a chain of them may be of any length (rule 5)."""
        begun = {wanted: iter(_used(self._named[wanted[0]], taken=wanted[1]))}
        while begun:
            at = next(reversed(begun))
            used = next(begun[at], None)
            if used is None:
                self._known[at] = self.of(self._named[at[0]], taken=at[1])
                del begun[at]
            elif used[0] in self._named and used not in self._known:
                if not begun.keys().isdisjoint({(used[0], False), (used[0], True)}):
                    raise _cycle([name for name, _ in begun], used[0])
                begun[used] = iter(_used(self._named[used[0]], taken=used[1]))


def _used(expression: Expression, *, taken: bool) -> tuple[Use, ...]:
    """The names in an expression, in their order."""
    match expression:
        case NamedNodes(name):
            return () if name in (ALL_NODES, FAILED) else ((name, taken),)
        case Minus(left, right):
            return (*_used(left, taken=taken), *_used(right, taken=True))
        case Union(parts) | Intersect(parts):
            return tuple(one for part in parts for one in _used(part, taken=taken))
        case Limit(of, _):
            return _used(of, taken=taken)


def _cycle(begun: list[str], name: str) -> NodeSetError:
    cycle = " -> ".join([*begun[begun.index(name) :], name])
    return NodeSetError(f"the named sets form a cycle: {cycle}", suggestion="break the cycle")


def mentioned(expression: Expression) -> frozenset[str]:
    """Return every name in an expression but `all_nodes` and `failed`."""
    return frozenset(name for name, _ in _used(expression, taken=False))


def unknown_names(expression: Expression, *, universe: Sequence[str], named: Mapping[str, Expression]) -> tuple[str, ...]:
    """Return the names that are neither a set nor a node now, sorted: most likely typing mistakes."""
    return tuple(sorted(mentioned(expression) - set(universe) - set(named)))


def most(expression: Expression) -> int | None:
    """Return how many nodes an expression can select at most, whatever the realm; None when there is no bound."""
    match expression:
        case NamedNodes():
            return None
        case Minus(left, _):
            return most(left)
        case Union(parts):
            bounds = [most(part) for part in parts]
            return None if None in bounds else sum(bound for bound in bounds if bound is not None)
        case Intersect(parts):
            return min((bound for part in parts if (bound := most(part)) is not None), default=None)
        case Limit(of, count):
            inner = most(of)
            return count if inner is None else min(inner, count)

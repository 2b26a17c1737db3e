"""Do the tests notice? `make mutants ROOM=event` plants small mistakes one at a time (mutmut) and runs a room's tests.

Each function is tried with those tests alone that call it. A mistake that no test calls counts as one that nobody noticed.
Not tried is what nobody can notice: what only imports call, for it has run before any mistake is planted; a line of the
log; SQL in other case, but where it quotes.
The work is done in a copy of the tree. Exit code 1 when less is noticed than the room's floor.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

ROOT: Final = Path(__file__).parents[1]
COPIED: Final = ("dsmt", "tests", "docs", "scripts", "deploy", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
UNNOTICED: Final = {0: "survived", 33: "called by no test"}
"""mutmut's exit codes (its README, "status"); all others are mistakes that were noticed."""
LOGGED: Final = r'\b_?log(\.(debug|info|warning|error))?\("'
"""A line that writes to the log."""
SQL: Final = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "CREATE", "PRAGMA", "BEGIN", "COMMIT", "ROLLBACK"))
"""The words by which a statement begins."""
PLANT_ONLY: Final = "nothing"
"""A name that no mistake has: mutmut plants all, and finds none to try."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is mutated and which tests are to notice; `floor`: the share (percent) that must be.

    `real`: those on real processes and sockets, too. What is pure needs none of these, of which a busy machine fails some.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    floor: int = 90
    real: bool = False


def _tests(room: str, *without: str) -> tuple[str, ...]:
    """The tests of a room, not of those below it, but for those with these words in their names.

    What forks is left out, for mutmut would be told of its end; what takes minutes, or a quiet machine; and what reads the
    code as a text, in which all mistakes stand.
    """
    found = (path for path in (ROOT / room).glob("test_*.py") if not any(word in path.name for word in without))
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found))


OF_AGENTS: Final = _tests("tests/agents")
ROOMS: Final[Mapping[str, Room]] = {
    "event": Room(("dsmt/event/*",), ("tests/event",)),
    "trust": Room(("dsmt/trust/*",), ("tests/trust",)),
    "spec": Room(("dsmt/spec/*",), ("tests/spec",)),
    "view": Room(
        ("dsmt/view/*",),
        (
            "tests/view",
            "tests/operations/test_sight.py",
            "tests/controllers/test_brake.py",
            "tests/controllers/test_decide.py",
            "tests/controllers/test_draining.py",
            "tests/controllers/test_each_node.py",
            "tests/controllers/test_holding.py",
            "tests/controllers/test_moving.py",
            "tests/controllers/test_not_returned.py",
            "tests/controllers/test_overruled.py",
            "tests/controllers/test_parked.py",
            "tests/controllers/test_repair.py",
        ),
    ),
    "controllers": Room(("dsmt/controllers/*",), (*_tests("tests/controllers", "many"), "tests/operations/test_braked.py")),
    "bus-rules": Room(("dsmt/bus/rules/[!n]*", "dsmt/bus/rules/nats_[!c]*", "dsmt/bus/wire/*"), _tests("tests/bus")),
    "agents-rules": Room(("dsmt/agents/rules/*",), OF_AGENTS),
    "monitors-rules": Room(("dsmt/monitors/rules/*",), ("tests/monitors",)),
    "words": Room(("dsmt/operations/words/*",), ("tests/operations", *_tests("tests/cli", "exit_codes"))),
    "bus": Room(
        (
            *(f"dsmt/bus/{room}/*" for room in ("broker", "broker/others", "client", "store", "zeromq", "memory", "nats")),
            "dsmt/bus/rules/nats_config.py",  # whether it is right a server says
        ),
        (*_tests("tests/bus", "kills", "hostile"), "tests/operations/test_trimmed_elsewhere.py"),
        80,
        real=True,
    ),
    "agents": Room(
        ("dsmt/agents/instance/*", "dsmt/agents/node/*", "dsmt/agents/fetch/*"),
        (*OF_AGENTS, "tests/issuers"),
        80,
        real=True,
    ),
    "faults": Room(
        tuple(
            f"dsmt/simulator/{name}.py"
            for name in ("engine/network", "faults", "engine/disk", "engine/datagrams", "contention", "engine/refusals")
        ),
        tuple(
            f"tests/simulator/test_{name}.py" for name in ("network", "datagrams", "faults", "disk", "contention", "caught")
        ),
        80,
    ),
}


def main() -> int:
    """Plant, run, and say what was not noticed."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--module", help="only what this pattern names, such as dsmt/event/fold.py")
    parser.add_argument("--tests", nargs="+", help="only these tests, such as tests/event/test_fold.py")
    parser.add_argument("--sample", type=int, help="only so many mistakes, drawn at random, the same ones each time")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="show each mistake that was not noticed")
    told = parser.parse_args()
    room = ROOMS[told.room]
    with tempfile.TemporaryDirectory(prefix="dsmt-mutants-") as place:
        tree = Path(place)
        _copy(tree, (told.module,) if told.module else room.modules, told.tests or room.tests, real=room.real)
        ran = _run(tree, told.jobs, [] if told.sample is None else [PLANT_ONLY])
        if told.sample is not None and (planted := sorted(name for name, _ in _outcomes(tree))):
            ran = _run(tree, told.jobs, _sampled(planted, told.sample))
        outcomes = {name: code for name, code in _outcomes(tree) if code is not None}
        if not outcomes or ran.returncode:
            sys.stderr.write(ran.stdout.decode(errors="replace")[-4000:])
            return 2
        return _told(told.room, room, outcomes, tree if told.show else None)


def _sampled(names: Sequence[str], most: int) -> list[str]:
    return Random(most).sample(names, min(most, len(names)))  # noqa: S311 - the same ones each time


def _run(tree: Path, jobs: int, names: list[str]) -> subprocess.CompletedProcess[bytes]:
    command = ["mutmut", "run", "--max-children", str(jobs), *names]
    return subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def _copy(tree: Path, modules: Sequence[str], tests: Sequence[str], *, real: bool) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    settings = {
        "source_paths": ["dsmt"],
        "only_mutate": list(modules),
        "do_not_mutate_patterns": [LOGGED],
        "pytest_add_cli_args_test_selection": list(tests),
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "scripts.cold", *(() if real else ("-m", "not real"))],
        "also_copy": [name for name in COPIED if name not in ("dsmt", "tests")],
    }
    with (tree / "pyproject.toml").open("a") as written:
        written.write("\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))


def _outcomes(tree: Path) -> Iterator[tuple[str, int | None]]:
    """Each mistake by name, with how its tests ended, None when it was not tried; those that cannot be are left out."""
    for path in sorted((tree / "mutants").rglob("*.meta")):
        told = json.loads(path.read_text())["exit_code_by_key"]
        same = _same_sql(ast.parse(path.with_suffix("").read_text())) if told else set()
        for name, code in told.items():
            module, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
            is_early = f"{module}.{function.removeprefix('x_')}" in _at_import(tree)
            if not is_early and name.rpartition(".")[2] not in same:
                yield name, code


def _same_sql(planted: ast.Module) -> set[str]:
    """The mistakes of a module that write a statement of SQL in other case, which does the same but for what it quotes."""
    functions = [one for one in ast.walk(planted) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    texts = {one.name: Counter(_texts(one)) for one in functions if "__mutmut_" in one.name}
    same = set()
    for name, said in texts.items():
        was = texts[f"{name.rpartition('__mutmut_')[0]}__mutmut_orig"]
        match list(was - said), list(said - was):
            case [before], [after] if before.lower() == after.lower() and _is_sql(before):
                same.add(name)
    return same


def _texts(function: ast.AST) -> list[str]:
    return [node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _is_sql(text: str) -> bool:
    return not SQL.isdisjoint(text.split()[:1]) and "'" not in text.replace("''", "")


@cache
def _at_import(tree: Path) -> set[str]:
    """The functions that only imports call: statements of modules, or functions that those alone call."""
    users: dict[str, set[str]] = {}
    for path in (tree / "dsmt").rglob("*.py"):
        for function, user in _uses(".".join(path.relative_to(tree).with_suffix("").parts), ast.parse(path.read_text())):
            users.setdefault(function, set()).add(user)
    early, before = set[str](), None
    while early != before:
        before, early = early, {one for one, by in users.items() if by <= {"", *early}}
    return early


def _uses(module: str, parsed: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module uses, and by whom: "" calls it while it is imported, a function once that is called; or "later"."""
    froms = [node for node in parsed.body if isinstance(node, ast.ImportFrom)]
    taken = {name.asname or name.name: f"{one.module}.{name.name}" for one in froms for name in one.names}
    for top in parsed.body:
        function = isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef)
        at_once = f"{module}.{top.name}" if isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef) else ""
        inner = [one for one in ast.walk(top) if one is not top and isinstance(one, ast.FunctionDef | ast.Lambda)]
        late = {node for one in inner for node in ast.walk(one)}
        calls = {node.func for node in ast.walk(top) if isinstance(node, ast.Call) and node not in late}
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                is_now = node in calls and (function or not isinstance(top, ast.ClassDef | ast.If))
                yield taken.get(node.id, f"{module}.{node.id}"), at_once if is_now else "later"
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield f"{taken.get(node.value.id)}.{node.attr}", "later"


def _told(name: str, room: Room, outcomes: Mapping[str, int], tree: Path | None) -> int:
    missed = {mutant: code for mutant, code in outcomes.items() if code in UNNOTICED}
    by_module = Counter(mutant.rpartition(".")[0] for mutant in outcomes)
    missed_by = Counter(mutant.rpartition(".")[0] for mutant in missed)
    for module, count in sorted(by_module.items()):
        sys.stdout.write(f"{module:50} {count - missed_by[module]:5} of {count}\n")
    for mutant, code in sorted(missed.items()):
        sys.stdout.write(f"{UNNOTICED[code]}: {mutant}\n")
        if tree is not None:
            shown = subprocess.run(["mutmut", "show", mutant], cwd=tree, capture_output=True, text=True, check=False)
            sys.stdout.write("".join(line for line in shown.stdout.splitlines(keepends=True) if line[:1] in "+-"))
    share = 100 * (len(outcomes) - len(missed)) / len(outcomes)
    sys.stdout.write(
        f"{name}: {len(outcomes) - len(missed)} of {len(outcomes)} noticed, {share:.1f} %; the floor is {room.floor}\n"
    )
    return 0 if share >= room.floor else 1


if __name__ == "__main__":
    sys.exit(main())

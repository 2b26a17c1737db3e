"""Files of a program that are none, or somebody else's: it says which in one sentence, and ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_controller, ensure_node, init
from dsmt.operations.local.members.brokers import made_ms, note_announced
from dsmt.programs.kept import keep_keeper
from dsmt.programs.running import CONFIG_EXIT

PROGRAMS = {
    "nodes/n1/identity": "container_manager",
    "nodes/n1/node.cbor": "node_monitor",
    "controllers/c1/identity": "controller",
    "brokers/b1/identity": "broker",
    "brokers/b1/broker.cbor": "broker",
}
GATES = ["identity", "gate.cbor", "broker.cbor"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    init(home, name="test")
    ensure_node(home, "n1")
    ensure_controller(home, "c1")
    return home


@pytest.mark.parametrize("made", ["a directory", "missing"])
@pytest.mark.parametrize("file", PROGRAMS)
def test_it_is_named_in_one_line(home: Home, file: str, made: str) -> None:
    """A traceback named no file and no way out, each 5 s; that of a broker, where its file was lost, was a bug's."""
    assert_named(home.root / file, PROGRAMS[file], made)


@pytest.mark.parametrize("made", ["a directory", "missing"])
@pytest.mark.parametrize("file", GATES)
def test_it_is_named_in_one_line_by_the_gate_of_a_nats_server(tmp_path: Path, file: str, made: str) -> None:
    pytest.importorskip("nats")
    home = Home(tmp_path / "home")
    init(home, name="test", nats=True)
    assert_named(home.root / "brokers/b1" / file, "nats_gate", made)


def assert_named(file: Path, program: str, made: str) -> None:
    """A program whose file is missing, or a directory, ends, and names it in one line."""
    file.unlink()
    if made == "a directory":
        file.mkdir()
    script = f"import sys; from dsmt.programs.{program} import main; sys.exit(main(sys.argv[1]))"
    argv = [sys.executable, "-c", script, str(file.parent)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    (line,) = ended.stderr.splitlines()
    told = json.loads(line)
    words = "cannot be read: is a directory. see to its owner and mode" if made == "a directory" else "is missing"
    assert (ended.returncode, told["event"]) == (CONFIG_EXIT, "cannot go on")
    assert told["reason"].startswith(f"{file} {words}")


def test_what_is_in_the_place_of_the_keepers_file_ends_nobody_that_it_keeps(home: Home) -> None:
    """Brokers and controllers ended as they began, again and again."""
    said = list[Any]()
    (home.root / "keeper/keeper.cbor").mkdir(parents=True)
    asyncio.run(asyncio.wait_for(keep_keeper("broker", home.root / "brokers/b1", said.append), 10))
    assert said == []


def test_what_is_in_the_place_of_the_note_that_a_broker_was_announced_notes_nothing(home: Home) -> None:
    """`up` had started everything, and failed."""
    (home.root / "brokers/b1/announced").mkdir()
    assert made_ms(home)["b1"] > 0
    note_announced(home, ["b1"])

"""What `down` leaves of a container: what nobody else may know."""

import errno
from pathlib import Path

import pytest

from dsmt.agents.rules.container import CONFIG, FILES, HELD, RECORD, SLOT, SPEC, TOLD
from dsmt.agents.rules.record import InstanceRecord, dump_record, load_record
from dsmt.event.kinds.slot import Good
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes import parts
from dsmt.operations.local.processes.parts import Parts

GOOD = Good(spec="operator/alice#1-2", revision=3)


def container(home: Home, name: str, **files: bytes) -> Path:
    made = home.part("nodes", "n1") / "containers" / name
    (made / "logs").mkdir(parents=True)
    (made / "logs/stdout.log").write_bytes(b"all is well")
    for file, content in files.items():
        (made / file).write_bytes(content)
    return made


def left(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def test_down_leaves_what_a_node_is_to_bring_back_and_what_was_good_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    facts = {SLOT: b"slot", TOLD: b"told", SPEC: b"spec", HELD: b"held"}
    good = dump_record(InstanceRecord(boot="b", generation=7, good=GOOD, good_key="k", installed=("i",)))
    kept = container(home, "web/app/0", **facts, **{RECORD: good, CONFIG: b"config", "identity": b"key"})
    never = container(home, "web/app/1", **facts, **{RECORD: dump_record(InstanceRecord(boot="b", generation=7))})
    container(home, "old/app/0", **{CONFIG: b"config"})
    for made in (kept, never):
        (made / FILES / "i").mkdir(parents=True)
        (made / FILES / "i/program").write_bytes(b"runs")
    data = home.part("nodes", "n1") / "data/web/app/0"
    data.mkdir(parents=True)
    Parts(home).clear()
    installed = [FILES, f"{FILES}/i", f"{FILES}/i/program"]
    assert left(kept) == sorted([*facts, RECORD, *installed])
    assert {file: (kept / file).read_bytes() for file in facts} == facts
    assert load_record((kept / RECORD).read_bytes()) == InstanceRecord(boot="b", good=GOOD, good_key="k", installed=("i",))
    assert left(never) == sorted(facts), "what was not installed to its end goes"
    assert not (home.part("nodes", "n1") / "containers/old").exists()
    assert data.is_dir()
    Parts(home).clear()
    assert left(kept) == sorted([*facts, RECORD, *installed]), "it may be repeated"


def test_where_down_cannot_write_what_it_leaves_of_a_record_the_record_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    whole = InstanceRecord(boot="b", generation=7, good=GOOD, good_key="k", installed=("i",))
    kept = container(home, "web/app/0", **{RECORD: dump_record(whole), CONFIG: b"config"})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts, "dump_record", full)
    Parts(home).clear()
    assert load_record((kept / RECORD).read_bytes()) == whole
    monkeypatch.undo()
    Parts(home).clear()
    assert load_record((kept / RECORD).read_bytes()) == InstanceRecord(boot="b", good=GOOD, good_key="k", installed=("i",))

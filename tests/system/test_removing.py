"""Removing what a program has made of our directories: however deep it is, and nothing that is elsewhere."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dsmt.agents.node.clearing import clear_place
from dsmt.errors import FailedError
from dsmt.event.slots import SlotKey
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.parts import Parts
from dsmt.system import removing
from dsmt.system.files import DiskFiles
from dsmt.system.logs import DiskLogs
from dsmt.system.removing import remove_tree, take_back_way

SLOT = SlotKey("web", "app", 0)
DEEP = 3000


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory that is not ours, with all that could be removed of it."""
    place = tmp_path / "elsewhere"
    (place / "0" / "files").mkdir(parents=True)
    (place / "stdout.log").mkdir()
    for name in ("instance.json", "0/config.json", "0/files/kept", "stdout.log/kept"):
        (place / name).write_bytes(b"precious")
    return place


def all_of(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def make_deep(top: Path) -> None:
    """Directories that no path can name any more, with a file in each hundredth."""
    here = os.open(top, os.O_RDONLY)
    for depth in range(DEEP):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.dup2(below, here)
        os.close(below)
        if depth % 100 == 0:
            os.close(os.open("f", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_a_tree_may_be_deeper_than_a_stack_and_than_a_path_is_long(tmp_path: Path) -> None:
    top = tmp_path / "container" / "files"
    top.mkdir(parents=True)
    make_deep(top)
    (top / "beside").mkdir()
    (top / "link").symlink_to(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    DiskFiles(str(tmp_path)).remove("container")
    assert all_of(tmp_path) == set()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_who_is_moved_elsewhere_while_it_is_removed_takes_nobody_along(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "container" / "a" / "b").mkdir(parents=True)
    emptied, looked = removing._emptied, list[int]()

    def moved(here: int) -> str | None:
        looked.append(here)
        if len(looked) == 3:  # in b
            (tmp_path / "container" / "a" / "b").rename(elsewhere / "b")
        return emptied(here)

    monkeypatch.setattr(removing, "_emptied", moved)
    before = all_of(elsewhere)
    with pytest.raises(OSError, match="moved while it was removed"):
        remove_tree(str(tmp_path / "container"))
    assert all_of(elsewhere) == before | {"b"}


@pytest.mark.parametrize("level", [1, 2, 3], ids=["service", "component", "container"])
def test_nothing_is_read_written_or_removed_through_a_link_in_the_place_of_a_directory(
    level: int, tmp_path: Path, elsewhere: Path
) -> None:
    place = tmp_path.joinpath("node", "containers", *SLOT.directory.split("/")[1:][:level])
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    before, node = all_of(elsewhere), DiskFiles(str(tmp_path / "node"))
    files = node.below(SLOT.directory, made=False)
    for act in (lambda: files.read("instance.json"), lambda: files.write("outcome", b"gone"), lambda: files.remove("files")):
        with pytest.raises(FailedError, match="a link on its way leads out"):
            act()
    clear_place(node, SLOT) if level == 3 else place.unlink()
    assert not place.is_symlink()
    files.write("outcome", b"gone")
    assert (files.read("outcome"), all_of(elsewhere)) == (b"gone", before)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).write_bytes(b"")], ids=["pipe", "file"])
def test_what_is_in_the_place_of_a_container_goes(make: Callable[[str], None], tmp_path: Path) -> None:
    node = DiskFiles(str(tmp_path))
    place = tmp_path / SLOT.directory
    place.parent.mkdir(parents=True)
    make(str(place))
    clear_place(node, SLOT)
    node.below(SLOT.directory).write("outcome", b"gone")
    assert (place / "outcome").read_bytes() == b"gone"


@pytest.mark.parametrize("level", [1, 2, 3], ids=["service", "component", "container"])
def test_down_clears_nothing_that_a_link_leads_to_nor_what_an_operator_has_copied(
    level: int, tmp_path: Path, elsewhere: Path
) -> None:
    home = Home(tmp_path / "home")
    containers = home.part("nodes", "n1") / "containers"
    copied = containers / "other" / "app" / "0.bak"
    copied.mkdir(parents=True)
    place = containers.joinpath(*SLOT.directory.split("/")[1:][:level])
    place.parent.mkdir(parents=True, exist_ok=True)
    if level < 3:
        (elsewhere / "app").mkdir()
        (elsewhere / "app" / "0").mkdir()
        (elsewhere / "app" / "0" / "kept").write_bytes(b"precious")
    place.symlink_to(elsewhere)
    before = all_of(elsewhere)
    Parts(home).clear()
    assert (all_of(elsewhere), copied.is_dir()) == (before, True)


def test_our_rights_are_taken_back_below_a_home_that_is_a_link_and_nowhere_beyond_another_link(
    tmp_path: Path, elsewhere: Path
) -> None:
    (tmp_path / "disk" / "node" / "own").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "node" / "link").symlink_to(elsewhere)
    closed = (tmp_path / "disk" / "node" / "own", elsewhere / "0", elsewhere)
    for place in closed:
        place.chmod(0o500)
    home = str(tmp_path / "home")
    assert take_back_way(home, f"{home}/node/own/f")
    assert not take_back_way(home, f"{home}/node/link/0")
    assert [place.stat().st_mode & 0o777 for place in closed] == [0o700, 0o500, 0o500]
    elsewhere.chmod(0o700)


def test_no_log_is_made_way_for_where_a_link_leads(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "logs").symlink_to(elsewhere)
    before = all_of(elsewhere)
    DiskLogs(str(tmp_path / "logs")).begin("stdout", size_bytes=100, keep=1)
    assert (all_of(elsewhere), (tmp_path / "logs").is_symlink()) == (before, False)


def test_what_cannot_be_removed_may_have_any_name_and_is_told_in_words(tmp_path: Path) -> None:
    files = DiskFiles(str(tmp_path))
    with pytest.raises(FailedError) as told:
        files.read(os.fsdecode(b"a\xff" + b"b" * 300))
    told.value.message.encode()

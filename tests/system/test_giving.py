"""Trees that belong to a service's user: what he reaches, and the traps that he lays for us, by real users."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsmt.errors import FailedError, InputError
from dsmt.system import users
from dsmt.system.files import DiskFiles
from dsmt.system.giving import write
from dsmt.system.users import account_of, becoming, check_way

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]
TREE = "containers/web/app/1/files/abc"


@pytest.fixture
def node() -> Iterator[Path]:
    """A node's directory at a place which everybody can enter, with secrets in it and a tree for `www-data`."""
    with tempfile.TemporaryDirectory(prefix="dsmt-giving-", ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o711)
        directory = Path(place) / "n1"
        files = DiskFiles(str(directory))
        files.write("identity", b"secret")
        files.write("containers/web/app/1/identity", b"secret")
        files.write("containers/other/app/1/files/abc/content", b"other's", mode=0o644)
        files.write(f"{TREE}/content", b"mine")
        files.below("data/other/app/1")
        files.give("data/other/app/1", "nobody")
        files.give("containers/other/app/1/files/abc", "nobody")
        files.give(TREE, "www-data")
        yield directory


def run_as(user: str, code: str, directory: Path) -> str:
    account = account_of(user)
    assert account is not None
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", f"import os\n{code}"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        **becoming(account),
    )
    return (done.stdout or done.stderr).strip().rpartition("\n")[2]


def test_a_user_reads_and_writes_its_own_tree(node: Path) -> None:
    tree = node / TREE
    assert run_as("www-data", "print(open('content').read(), os.getuid(), os.getgroups())", tree) == "mine 33 [33]"
    assert run_as("www-data", "open('new', 'w').write('x'); print(sorted(os.listdir('.')))", tree) == "['content', 'new']"


@pytest.mark.parametrize(
    "wrong",
    [
        "open({node!r} + '/identity')",
        "open({node!r} + '/containers/web/app/1/identity')",
        "os.listdir({node!r})",
        "os.listdir({node!r} + '/containers')",
        "os.listdir({node!r} + '/containers/web/app/1')",
        "open({node!r} + '/containers/other/app/1/files/abc/content')",
        "os.listdir({node!r} + '/data/other/app/1')",
        "open({node!r} + '/containers/web/app/1/files/mine', 'w')",
        "os.rename({node!r} + '/containers/web/app/1/files/abc', {node!r} + '/containers/web/app/1/files/abd')",
    ],
)
def test_a_user_reaches_nothing_but_its_own_tree(node: Path, wrong: str) -> None:
    assert run_as("www-data", wrong.format(node=str(node)), node / TREE).startswith("PermissionError")


def test_no_link_in_a_given_tree_is_followed_when_we_write_there(node: Path) -> None:
    tree, files = node / TREE, DiskFiles(str(node))
    run_as("www-data", "os.symlink('../..', 'conf'); os.symlink('/etc', 'etc'); os.symlink('../../identity', 'site')", tree)
    for name in ("conf/identity", "etc/passwd.new"):
        with pytest.raises(FailedError, match="in its way"):
            files.write_given(TREE, name, b"planted", user="www-data", mode=0o644)
    files.write_given(TREE, "site", b"planted", user="www-data", mode=0o644)  # the link itself is replaced
    assert not (tree / "site").is_symlink()
    assert (node / "containers/web/app/1/identity").read_bytes() == b"secret"
    assert (node / "identity").read_bytes() == b"secret"


def test_what_we_write_in_a_given_tree_belongs_to_its_user(node: Path) -> None:
    DiskFiles(str(node)).write_given(TREE, "conf/d/app.conf", b"x = 1", user="www-data", mode=0o640)
    for name, mode in (("conf", 0o700), ("conf/d", 0o700), ("conf/d/app.conf", 0o640)):
        seen = (node / TREE / name).stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (33, 33, mode)


def test_a_hard_link_in_a_given_tree_is_never_given(node: Path) -> None:
    """A kernel with protected_hardlinks refuses to make one; others do not."""
    secret, trap = node / "identity", node / TREE / "trap"
    os.link(secret, trap)
    DiskFiles(str(node)).give(TREE, "www-data")
    assert secret.stat().st_uid == 0
    DiskFiles(str(node)).write_given(TREE, "trap", b"new", user="www-data", mode=0o644)
    assert (secret.read_bytes(), secret.stat().st_uid) == (b"secret", 0)


def test_a_tree_full_of_links_is_removed_without_following_one(node: Path) -> None:
    outside = node / "kept"
    outside.mkdir()
    (outside / "file").write_text("kept")
    run_as("www-data", f"os.mkdir('d'); os.symlink({str(outside)!r}, 'd/link')", node / TREE)
    DiskFiles(str(node)).remove(TREE)
    assert not (node / TREE).exists()
    assert (outside / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["../identity", "/etc/x", "a/../../x", "..", "."])
def test_a_name_that_leaves_the_tree_is_refused(node: Path, name: str) -> None:
    account = account_of("www-data")
    assert account is not None
    with pytest.raises((InputError, FailedError)):
        write(str(node / TREE), name, b"", account, 0o600)


def test_a_way_that_a_user_cannot_go_is_named(node: Path) -> None:
    account = account_of("www-data")
    assert account is not None
    check_way(str(node / TREE), account)
    node.chmod(0o700)
    with pytest.raises(FailedError, match=rf"cannot become www-data: it cannot enter {node}, on the way to .*DSMT_HOME"):
        check_way(str(node / TREE), account)


def test_users_are_names_or_numbers_with_or_without_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert account_of("") is None
    assert account_of("root") is None
    found = [account_of(user) for user in ("33", "33:100", "4711")]
    assert [one and one[:4] for one in found] == [
        ("www-data", 33, 33, (33,)),
        ("www-data", 33, 100, ()),
        ("4711", 4711, 4711, ()),
    ]
    with pytest.raises(FailedError, match="no user xyzzy"):
        account_of("xyzzy")
    assert users.users_here() == ("any",)
    monkeypatch.setattr(os, "geteuid", lambda: 33)
    assert users.users_here() == ("www-data", "33")
    with pytest.raises(FailedError, match="cannot become nobody: only root can, ") as told:
        account_of("nobody")
    assert (told.value.code, told.value.next) == ("install.user", "run <node> as root, or leave `user` out")


@pytest.mark.parametrize("user", ["4294967295", "99999999999999999999", "1000:4294967295"])
def test_who_is_nobody_is_no_user(user: str) -> None:
    with pytest.raises(FailedError, match="there is no user"):
        account_of(user)


def test_what_is_given_is_on_the_disk_before_it_takes_the_place_of_the_one_before(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, sync, rename, account = list[str](), os.fsync, os.replace, account_of("www-data")

    def synced(descriptor: int) -> None:
        done.append("content")
        sync(descriptor)

    def renamed(source: str, target: str, **where: int) -> None:
        done.append("renamed")
        rename(source, target, **where)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    assert account is not None
    write(str(node / TREE), "conf", b"x", account, 0o600)
    assert done == ["content", "renamed"]

"""Staging: what a service file names on this disk is put into the depot, before its spec is said."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.depot import Depot
from dsmt.errors import FailedError, InputError
from dsmt.operations.read.realm.patience import SLOW
from dsmt.operations.write import declaring
from dsmt.spec.mistakes import SpecErrors
from dsmt.spec.parsing import parse
from tests.bus.idle import run_alone
from tests.bus.meshes import at, mesh
from tests.bus.realm import memory_network, realm
from tests.controllers.build import web
from tests.waiting import until


def test_an_artifact_is_put_from_its_beginning_at_another_broker_when_the_first_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 8000
    (tmp_path / "a.tar").write_bytes(content)
    text = web(1, component="artifact: {url: a.tar}\n")
    declared = declaring.Declared(spec=parse(text, file="t")[0], directory=tmp_path, warnings=(), file="web.yaml")
    whole, begun = declaring._chunks, []

    async def main() -> None:
        async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
            one, two = await mesh(made, "b1", "b2")
            alice = await made.client("operator/alice", brokers=at(one) + at(two))
            await until(lambda: alice.attached)
            first = one if alice.broker == one._identity.name else two

            async def lost_in_the_middle(path: Path) -> AsyncIterator[bytes]:
                begun.append(path)
                async for chunk in whole(path):
                    yield chunk
                    if len(begun) == 1 and alice.broker == first._identity.name:
                        await made.stop(first)
                        await until(lambda: alice.attached and alice.broker != first._identity.name)

            monkeypatch.setattr(declaring, "_chunks", lost_in_the_middle)
            await declaring.stage(declared, alice)
            assert b"".join([piece async for piece in alice.get_blob(sha256(content).digest())]) == content
            assert len(begun) == 2

    run_alone(main())


def test_who_puts_a_large_archive_is_told_what_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(b"large")
    text = web(1, component="artifact: {url: a.tar}\n")
    declared = declaring.Declared(spec=parse(text, file="t")[0], directory=tmp_path, warnings=(), file="web.yaml")
    monkeypatch.setattr("dsmt.operations.read.realm.patience.SLOW_S", 0)

    async def main() -> None:
        told = asyncio.Event()

        async def put_blob(_chunks: AsyncIterator[bytes], _digest: bytes) -> None:
            await asyncio.wait_for(told.wait(), 10)

        def tell(what: str) -> None:
            assert what == "the depot, which takes a.tar"
            told.set()

        SLOW.set(tell)
        bus: Any = SimpleNamespace(put_blob=put_blob)
        await declaring.stage(declared, bus)

    asyncio.run(main())


def test_an_archive_that_changes_while_it_is_put_is_named_and_not_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"as it was read first")
    text = web(1, component="artifact: {url: a.tar}\n")
    declared = declaring.Declared(spec=parse(text, file="t")[0], directory=tmp_path, warnings=(), file="web.yaml")

    async def main() -> None:
        async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
            await made.broker()
            alice = await made.client("operator/alice")
            put = alice.put_blob

            async def changing(chunks: AsyncIterator[bytes], digest: bytes) -> None:
                path.write_bytes(b"as somebody writes it")
                await put(chunks, digest)

            alice.put_blob = changing  # type: ignore[method-assign]
            with pytest.raises(FailedError, match=f"{path} changed while it was put into the depot") as caught:
                await declaring.stage(declared, alice)
            assert caught.value.code == "depot.mismatch"

    run_alone(main())


def test_what_a_broker_is_busy_with_is_put_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has put it, and it is being checked: the next answer says that it is there."""
    content = bytes(range(256)) * 8000
    (tmp_path / "a.tar").write_bytes(content)
    text = web(1, component="artifact: {url: a.tar}\n")
    declared = declaring.Declared(spec=parse(text, file="t")[0], directory=tmp_path, warnings=(), file="web.yaml")
    digest, checks, busy = sha256(content).digest(), Depot.step, []

    async def main() -> None:
        async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
            broker = await made.broker()
            alice, bob = [await made.client(f"operator/{name}") for name in ("alice", "bob")]
            monkeypatch.setattr(Depot, "step", lambda _: False)
            first = asyncio.create_task(declaring.stage(declared, alice))
            put = bob.put_blob

            async def once(chunks: AsyncIterator[bytes], digest: bytes) -> None:
                try:
                    await put(chunks, digest)
                except FailedError as error:
                    busy.append((error.code, error.next))
                    monkeypatch.setattr(Depot, "step", checks)
                    broker._to_step.set()
                    raise

            monkeypatch.setattr(bob, "put_blob", once)
            await until(lambda: broker._depot._checks)
            await declaring.stage(declared, bob)
            await first
            assert b"".join([piece async for piece in bob.get_blob(digest)]) == content
        assert busy[0] == ("depot.busy", "put it again")

    run_alone(main())


def _file(tmp_path: Path) -> str:
    """The content with which `a.txt` of a directory travels in a spec."""
    text = web(1, component="files: [{from: a.txt, to: a.txt}]\n")
    declared = declaring.Declared(spec=parse(text, file="t")[0], directory=tmp_path, warnings=(), file="web.yaml")
    (file,) = asyncio.run(declaring.stage(declared, None)).components["app"].files
    assert file.content is not None
    return file.content


def test_a_text_travels_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("ends as on Windows\r\nändert nichts\r\n".encode())
    assert _file(tmp_path) == "ends as on Windows\r\nändert nichts\r\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("é".encode("latin-1"), "is not text in UTF-8"),
        (b"a" * 16_385, "has over 16384 characters"),
        (b"a" + "é".encode() * 500_000, "has over 16384 characters"),
    ],
    ids=["latin-1", "long", "cut within a character"],
)
def test_what_is_no_small_text_is_to_be_an_artifact(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path}/a.txt {said}") as caught:
        _file(tmp_path)
    assert caught.value.next == "make it an artifact"


def test_the_longest_text_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("é" * 16_384)
    assert len(_file(tmp_path)) == 16_384


def test_a_text_that_the_machine_does_not_give_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match=r"a\.txt cannot be read: Input/output error") as caught:
        _file(tmp_path)
    assert caught.value.next == "name another file"


def test_what_this_user_may_not_read_is_a_mistake_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All mistakes are told at once, and root may read everything: so it is asked, and not tried."""
    for name in ("a.txt", "b.tar"):
        (tmp_path / name).write_text("secret")
    (tmp_path / "web.yaml").write_text(web(1, component="files: [{from: a.txt, to: a}]\nartifact: {url: b.tar}\n"))
    monkeypatch.setattr("os.access", lambda path, _mode: path.name == "web.yaml")
    with pytest.raises(SpecErrors) as caught:
        declaring.read_files([str(tmp_path / "web.yaml")])
    assert [(one.message.partition(": ")[2], one.suggestion) for one in caught.value.mistakes] == [
        (f"{tmp_path}/{name} cannot be read: Permission denied", "check its owner and mode") for name in ("a.txt", "b.tar")
    ]


def test_a_directory_stands_for_the_service_files_in_it_in_their_order(tmp_path: Path) -> None:
    for name, service in (("b.yaml", "beta"), ("a.yml", "alpha"), ("c.txt", "gamma")):
        (tmp_path / name).write_text(web(1, service=service))
    found = declaring.read_files([str(tmp_path)])
    assert [(one.spec.service, one.directory, one.file) for one in found] == [
        ("alpha", tmp_path, f"{tmp_path}/a.yml"),
        ("beta", tmp_path, f"{tmp_path}/b.yaml"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no service file in"):
        declaring.read_files([str(tmp_path / "empty")])


def test_what_is_no_path_is_looked_for_on_no_disk_and_a_text_in_the_file_stays(tmp_path: Path) -> None:
    """Of an artifact from elsewhere, and a text that the file holds, nothing is to be read here."""
    sha = "0" * 64
    more = f"artifact: {{url: 'https://example.com/a.tar', sha256: '{sha}'}}\nfiles: [{{content: text, to: a}}]\n"
    (tmp_path / "web.yaml").write_text(web(1, component=more))
    (declared,) = declaring.read_files([str(tmp_path / "web.yaml")])
    assert asyncio.run(declaring.stage(declared, None)) == declared.spec


@pytest.mark.parametrize("declared_as", ["right", "wrong"])
def test_an_artifact_is_put_only_if_it_is_the_one_that_is_declared(tmp_path: Path, declared_as: str) -> None:
    digest = sha256(b"content").hexdigest()
    (tmp_path / "a.tar").write_bytes(b"content" if declared_as == "right" else b"another")
    text = web(1, component=f"artifact: {{url: a.tar, sha256: '{digest}'}}\n")
    declared = declaring.Declared(spec=parse(text, file="t")[0], directory=tmp_path, warnings=(), file="web.yaml")
    if declared_as == "right":
        (artifact,) = asyncio.run(declaring.stage(declared, None)).components["app"].artifacts
        assert (artifact.url, artifact.sha256) == ("depot:a.tar", digest)
        return
    with pytest.raises(InputError, match=f"declared {digest}; not used") as caught:
        asyncio.run(declaring.stage(declared, None))
    assert caught.value.code == "fetch.mismatch"


@pytest.mark.parametrize(("code", "tries"), [("depot.full", 1), ("depot.busy", 0), ("depot.moved", 8)])
def test_who_refuses_an_artifact_is_asked_again_only_while_that_may_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, tries: int
) -> None:
    """One that is busy for as long as anybody waits, and one that moves again and again, are given up."""
    (tmp_path / "a.tar").write_bytes(b"content")
    declared = declaring.Declared(
        spec=parse(web(1, component="artifact: {url: a.tar}\n"), file="t")[0], directory=tmp_path, warnings=()
    )
    tried: list[str] = []

    async def put_blob(_chunks: Any, _digest: bytes) -> None:
        tried.append(code)
        raise FailedError(code, "no", next="")

    monkeypatch.setattr(declaring, "BUSY_S", 2.0)
    bus: Any = SimpleNamespace(put_blob=put_blob)
    with pytest.raises(FailedError) as caught:
        asyncio.run(declaring.stage(declared, bus))
    assert caught.value.code == code
    assert len(tried) == tries if code != "depot.busy" else 2 <= len(tried) <= 11

"""Artifacts of a service file: from the depot into the instance's directory."""

import asyncio
import hashlib
import io
import tarfile

import pytest

from dsmt.agents.fetch.node_artifacts import NodeArtifacts, file_name
from dsmt.errors import FailedError, NotFoundError
from dsmt.ports.artifacts import Artifacts
from dsmt.spec.records import Artifact

PROGRAM = b"#!/bin/sh\n"


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("pkg-1/server")
        member.size, member.mode = len(PROGRAM), 0o755
        archive.addfile(member, io.BytesIO(PROGRAM))
    return stream.getvalue()


def artifact(content=None, **changes):
    fields = {
        "url": "build/server",
        "sha256": None if content is None else hashlib.sha256(content).hexdigest(),
        "signature": None,
        "unpack": "auto",
        "strip": 0,
        "to": ".",
        "mode": "0755",
    }
    return Artifact(**(fields | changes))


def install(depot, what, directory, progress=lambda *_: None):
    async def get_blob(digest):
        if digest not in depot:
            raise NotFoundError("blob", "it is not there")
        for start in range(0, len(depot[digest]), 10):
            yield depot[digest][start : start + 10]

    artifacts: Artifacts = NodeArtifacts(get_blob)
    asyncio.run(artifacts.install(what, str(directory), progress))


def depot_of(*contents):
    return {hashlib.sha256(content).digest(): content for content in contents}


def test_a_plain_program_is_put_where_it_was_said(tmp_path):
    told = []
    install(depot_of(PROGRAM), artifact(PROGRAM, to="bin"), tmp_path, lambda *now: told.append(now))
    assert (tmp_path / "bin" / "server").read_bytes() == PROGRAM
    assert (tmp_path / "bin" / "server").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]
    assert told == [("fetch", 10, None), ("unpack", 0, 10), ("unpack", 10, 10)]


def test_an_archive_is_unpacked_again_and_again(tmp_path):
    content = tar()
    for _ in range(2):
        install(depot_of(content), artifact(content, url="depot:whatever", strip=1), tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["server"]


@pytest.mark.parametrize(
    ("depot", "what", "code"),
    [
        ({}, artifact(PROGRAM), "fetch.not_found"),
        ({}, artifact(None), "fetch.not_found"),
        ({hashlib.sha256(PROGRAM).digest(): b"another"}, artifact(PROGRAM), "fetch.mismatch"),
        (depot_of(PROGRAM), artifact(PROGRAM, unpack="zip"), "install.unpack"),
        (depot_of(PROGRAM), artifact(PROGRAM, to="link"), "install.unpack"),
    ],
)
def test_what_goes_wrong_has_its_code_and_leaves_nothing(tmp_path, depot, what, code):
    place = tmp_path / "instance"
    place.mkdir()
    (place / "link").symlink_to(tmp_path)
    with pytest.raises(FailedError) as caught:
        install(depot, what, place)
    assert caught.value.code == code
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["instance", "link"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/a/server-1.0?x=/y", "server-1.0"),
        ("https://example.org/a%20b", "a b"),
        ("https://example.org/", "artifact"),
        ("./build/server", "server"),
        ("depot:00ff", "00ff"),
    ],
)
def test_a_plain_file_is_called_by_the_end_of_its_url(url, name):
    assert file_name(url) == name

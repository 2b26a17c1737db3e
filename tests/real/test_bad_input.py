"""What is wrong is told with its place and what to do, and nothing else is lost: files, artifacts, ports, programs, callers.

All of these share one realm, in which a bystander runs: after each test its processes are the same, never restarted.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import socket
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init
from dsmt.programs.configuration import write_config
from dsmt.system.records import process_of
from dsmt.system.removing import mounted_in
from tests.loops import in_real_time
from tests.real.bystander import NODES, beside
from tests.real.fleet import Fleet, end, processes_of, redis_spec
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("bad_input")]
SLOW = "restart: {first: 20s}"
"""The first failure is shown for so long; `dsmt retry` need not wait for it."""


async def failed(made: Fleet, service: str, code: str) -> dict[str, Any]:
    """The reason that `dsmt ps` shows between two tries, once a node has told it."""

    def told() -> bool:
        entry = made.watch.view.services.get(service)
        slots = () if entry is None else entry.slots.values()
        said = [i.application.record.reason for slot in slots for i in slot.instances.values() if i.application is not None]
        return any(reason is not None and reason.code == code for reason in said)

    await made.watch.until(f"{code} of {service}", told, 60)
    async with asyncio.timeout(30):
        while True:
            (row,) = (await dsmt(made.home.root, "ps", service, "--json")).json
            if row["state"] == "backoff":  # else the next try is under way
                break
    assert row["reason"]["code"] == code, row
    found: dict[str, Any] = row["reason"]
    assert code not in found["message"]  # the message never repeats the code
    return found


def names_below(directory: Path) -> set[str]:
    """What files and directories are called there. What an earlier test has removed may go meanwhile."""
    return {name for _, directories, files in os.walk(directory) for name in (*directories, *files)}


def declare(directory: Path, text: str) -> Path:
    path = directory / "service.yaml"
    path.write_text(text)
    return path


# --- service files ------------------------------------------------------------------------------------------------------

BROKEN = """\
service: Broken!
replicas: 2
components:
  app:
    run: ./server --port {port.web}
    command: ./server
    ports: {http: auto}
    health: {http: {port: web}, interval: 5}
    limits: {memory: 512M}
  other:
    instances: -1
"""
MISTAKES = {
    1: ["is not a name"],
    2: ["`replicas`", "`instances`"],
    5: ["`{port.web}` names no port"],
    6: ["`command`", "`run`"],
    8: ["`5` is not a duration", "5s"],
    9: ["`512M`", "MiB or MB?"],
    11: ["-1 is too small"],
}


def test_all_mistakes_of_a_file_are_told_at_once_with_their_lines_and_nothing_is_done(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        (tmp_path / "good.yaml").write_text(redis_spec(1, "good"))
        (tmp_path / "wrong.yaml").write_text(BROKEN)
        said = await dsmt(made.home.root, "apply", str(tmp_path), code=2)
        for line, words in MISTAKES.items():
            told = [one for one in said.err.splitlines() if one.startswith(f"{tmp_path}/wrong.yaml:{line}:")]
            assert told, (line, said.err)
            assert all(any(word in one for one in told) for word in words), told
        assert "nothing was done" in said.err
        error = (await dsmt(made.home.root, "apply", str(tmp_path), "--json", code=2)).error
        assert {mistake["line"] for mistake in error["mistakes"]} >= MISTAKES.keys()
        for command in ("plan", "diff"):
            await dsmt(made.home.root, command, str(tmp_path), code=2)
        await dsmt(made.home.root, "apply", str(tmp_path / "none.yaml"), code=5)
        assert {row["service"] for row in (await dsmt(made.home.root, "services", "--json")).json} == {"bystander"}

    beside(shared, scenario)


# --- artifacts ----------------------------------------------------------------------------------------------------------


def archive(**members: bytes) -> bytes:
    """A tar archive of files."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


PROGRAM = archive(**{"bin/serve": b"#!/bin/sh\nexec redis-server --port $PORT --save '' --bind 127.0.0.1\n"})
FETCHED = """\
service: fetched
components:
  app:
    artifact: {{url: "{url}", sha256: {sha256}}}
    run: bin/serve
    ports: {{redis: auto}}
    health: {{tcp: {{port: redis}}}}
    {slow}
"""


def test_content_with_another_sha256_is_not_used_and_the_declared_one_is_when_it_comes(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        wanted, other = sha256(PROGRAM).hexdigest(), archive(**{"bin/serve": b"#!/bin/sh\ntouch /tmp/dsmt-was-run\n"})
        shared.server.files["/app.tar.gz"] = other
        url = shared.server.url("/app.tar.gz")
        path = declare(tmp_path, FETCHED.format(url=url, sha256=wanted, slow=SLOW))
        await dsmt(made.home.root, "apply", str(path))
        reason = await failed(made, "fetched", "fetch.mismatch")
        assert reason["message"] == f"{url} has sha256 {sha256(other).hexdigest()}, declared {wanted}; not used"
        assert (reason["next"], reason["who"]) == ("find out who changed it", "you")
        assert not names_below(made.home.root) & {"serve"}
        alerts = (await dsmt(made.home.root, "status", "--json")).json["alerts"]
        told = {key: reason[key] for key in ("code", "message", "next", "who")}
        assert {"target": "fetched/app/0", **told, "owner": None} in alerts
        shared.server.files["/app.tar.gz"] = PROGRAM
        await dsmt(made.home.root, "retry", "fetched")
        await made.ready("fetched", 1)

    beside(shared, scenario)


def test_a_path_whose_content_is_not_the_declared_one_is_refused_before_anything_is_said(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        (tmp_path / "app.tar.gz").write_bytes(PROGRAM)
        text = FETCHED.format(url="app.tar.gz", sha256="0" * 64, slow=SLOW).replace("service: fetched", "service: declared")
        path = declare(tmp_path, text)
        error = (await dsmt(made.home.root, "apply", str(path), "--json", code=2)).error
        assert error["code"] == "fetch.mismatch"
        assert str(tmp_path / "app.tar.gz") in error["message"]
        assert error["next"]
        await dsmt(made.home.root, "ps", "declared", code=5)

    beside(shared, scenario)


def escaping(directory: Path) -> dict[str, tuple[str, bytes]]:
    """Archives that would write outside, by name: the member that does, and the archive."""
    outside = directory / "outside"
    outside.mkdir()
    through = io.BytesIO()
    with tarfile.open(fileobj=through, mode="w") as tar:
        link = tarfile.TarInfo("inner")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        entry = tarfile.TarInfo("inner/escaped")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    up_and_out = "../" * 4 + "escaped"
    absolute = str(outside / "escaped")
    return {
        "dots": (up_and_out, archive(**{"fine": b"x", up_and_out: b"x"})),
        "absolute": (absolute, archive(**{"fine": b"x", absolute: b"x"})),
        "link": ("inner", through.getvalue()),
    }


def test_an_archive_that_leaves_its_directory_is_refused_by_name_and_writes_nothing_there(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        found = escaping(tmp_path)
        for name, (_, content) in found.items():
            (tmp_path / f"{name}.tar").write_bytes(content)
            text = f"service: {name}\ncomponents:\n  app:\n    artifact: {name}.tar\n    run: ./fine\n    {SLOW}\n"
            (tmp_path / f"{name}.yaml").write_text(text)
        await dsmt(made.home.root, "apply", *(str(tmp_path / f"{name}.yaml") for name in found))
        for name, (member, _) in found.items():
            reason = await failed(made, name, "install.unpack")
            assert f"{member} cannot be unpacked: " in reason["message"]
            assert (reason["next"], reason["who"]) == ("check the archive", "you")
        assert list(tmp_path.rglob("escaped")) == []
        assert not names_below(made.home.root) & {"escaped", "fine", "inner"}

    beside(shared, scenario)


# --- programs and ports -------------------------------------------------------------------------------------------------


def test_a_program_that_cannot_be_executed_is_named_with_its_directory(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as tar:
            entry = tarfile.TarInfo("plain.txt")
            entry.mode = 0o644
            tar.addfile(entry)
        (tmp_path / "plain.tar").write_bytes(whole.getvalue())
        common = f"components:\n  app:\n    {SLOW}\n    artifact: plain.tar\n    run: "
        path = declare(tmp_path, f"service: absent\n{common}./no-such --flag\n---\nservice: plain\n{common}./plain.txt\n")
        await dsmt(made.home.root, "apply", str(path))
        for service, program, why in (("absent", "./no-such", "not found"), ("plain", "./plain.txt", "not executable")):
            reason = await failed(made, service, "start.cannot_exec")
            assert reason["message"].startswith(f"{program} in {made.home.root}/nodes/n")
            assert reason["message"].endswith(f": {why}")
            assert reason["next"] == "correct `run` or `directory`, or `chmod +x`"

    beside(shared, scenario)


def test_a_port_in_use_is_told_with_its_holder_and_taken_when_it_is_free(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            port = held.getsockname()[1]
            text = redis_spec(1, "fixed").replace("{redis: auto}", f"{{redis: {port}}}")
            await dsmt(made.home.root, "apply", str(declare(tmp_path, f"{text}    restart: {{first: 3s}}\n")))
            reason = await failed(made, "fixed", "start.port_in_use")
            assert reason["message"].startswith(f"port {port} is held by pid {os.getpid()} ")
            assert reason["who"] == "world"
        await made.ready("fixed", 1)  # by itself

    beside(shared, scenario)


@in_real_time
async def test_a_broker_whose_port_is_taken_says_so_at_once_and_leaves_nothing(tmp_path):
    home = Home(tmp_path / "home")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        holder = f"pid {os.getpid()} "
        error = (await dsmt(home.root, "up", "--port", str(port), "--detach", "--json", code=1)).error
        assert error["code"] == "start.port_in_use"
        assert f"cannot listen on 127.0.0.1:{port}: port {port} is held by {holder}" in error["message"]
        assert "--port" in error["next"]
        assert not home.exists  # nothing was made that could never be used
        init(home, name="test", listen=f"127.0.0.1:{port}")
        for command in (["up", "--detach"], ["up"], ["broker", "run"]):
            said = await dsmt(home.root, *command, code=1)
            assert f"broker b1 cannot listen on 127.0.0.1:{port}: port {port} is held by {holder}" in said.err
            assert "Next: " in said.err
            assert processes_of(home.root) == {}
    try:
        await dsmt(home.root, "up", "--detach")
    finally:
        await end(home)


# --- what programs leave ------------------------------------------------------------------------------------------------

MOUNTS = """\
service: mounts
components:
  app:
    run: sh -c "mkdir -p m && mount -t tmpfs none m && exit 3"
    nodes: n1
    restart: {first: 100ms, cap: 500ms, escalate: [restart: 1, recreate: 1000]}
"""
READS = """\
service: reads
components:
  app:
    run: sleep 1000
    nodes: n1
    env: {SECRET: {file: PIPE}}
"""


def test_what_cannot_be_removed_and_what_nobody_can_read_keeps_nothing_else_waiting(shared, tmp_path):
    """A container is to be made anew in which something is mounted; an environment is to be read from a pipe."""

    async def scenario(made: Fleet) -> None:
        node = shared.home.part("nodes", "n1")
        manager = process_of(node, "container_manager")
        os.mkfifo(tmp_path / "pipe")
        await made.apply(MOUNTS)
        said = await failed(made, "mounts", "node.files")
        assert "m cannot be removed: something is mounted there" in said["message"]
        await made.apply(READS.replace("PIPE", str(tmp_path / "pipe")))
        said = await failed(made, "reads", "start.driver")
        assert f"read from {tmp_path / 'pipe'}, which cannot be read: it is no file" in said["message"]
        for service in ("mounts", "reads"):
            await dsmt(made.home.root, "remove", service, "--yes", "--wait")
        assert process_of(node, "container_manager") == manager

    try:
        beside(shared, scenario)
    finally:
        while (mounted := mounted_in(str(shared.home.part("nodes", "n1")))) is not None:
            subprocess.run(["umount", mounted], check=True)


# --- callers ------------------------------------------------------------------------------------------------------------


def test_a_caller_who_reaches_no_broker_or_is_nobody_here_hears_one_sentence_and_its_exit_code(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        root, realm = made.home.root, made.home.realm()
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            free = f"127.0.0.1:{nobody.getsockname()[1]}"
        own, liar = Home(tmp_path / "own"), Home(tmp_path / "liar")
        init(own, name="test")
        both = (*realm.roots, *init(liar, name="test").roots)
        write_config(own.root / "realm.cbor", realm)
        write_config(liar.root / "realm.cbor", msgspec.structs.replace(realm, roots=both))
        said = await asyncio.gather(
            dsmt(root, "ps", "--bus", f"dsmt://{free}", "--json", code=7),
            dsmt(own.root, "ps", "--json", code=4),  # its own certificate is nobody's in this realm
            dsmt(liar.root, "ps", "--json", code=4),  # which it denies, but the broker does not
        )
        unreachable, *refused = (one.error for one in said)
        assert (unreachable["code"], free in unreachable["message"]) == ("bus.unreachable", True)
        assert unreachable["next"]
        for error in refused:
            assert (error["code"], "unknown in realm test" in error["message"]) == ("trust.stranger", True)
        for command in ("status", "ps", "down"):
            answer = await dsmt(tmp_path / "empty", command, code=5)
            assert f"there is no realm in {tmp_path / 'empty'}" in answer.err
            assert "Next: " in answer.err
        for arguments in (["ps", "--bus", "http://x"], ["scale", "bystander/kv", "many"], ["frobnicate"], ["ps", "--frob"]):
            answer = await dsmt(root, *arguments, code=2)
            assert answer.err.startswith("dsmt: ")
            assert len(answer.err.splitlines()) == 1, answer.err

    beside(shared, scenario)


def test_without_the_root_key_what_is_there_runs_and_what_would_need_it_says_so(shared, tmp_path):
    async def scenario(made: Fleet) -> None:
        root, kept = made.home.root, tmp_path / "root.key"
        shutil.move(root / "root.key", kept)
        try:
            error = (await dsmt(root, "up", "--nodes", "3", "--detach", "--json", code=5)).error
            assert error["code"] == "trust.root"
            assert str(root / "root.key") in error["message"]
            assert "certificates" in error["next"]
            error = (await dsmt(root, "node", "run", "n3", "--json", code=5)).error
            assert f"{root}/nodes/n3 holds no identity" in error["message"]
            assert error["next"]
            await dsmt(root, "node", "run", "n1")  # it has an identity, and runs already
            await dsmt(root, "up", "--nodes", str(NODES), "--detach")
            assert len((await dsmt(root, "nodes", "--json")).json) == NODES
        finally:
            shutil.move(kept, root / "root.key")

    beside(shared, scenario)

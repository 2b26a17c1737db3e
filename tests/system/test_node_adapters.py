"""What a node's programs need of Linux: ports, log files that stay bounded, a machine's figures, datagrams."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsmt.errors import FailedError, TransportError
from dsmt.operations.local.home.addresses import check_free
from dsmt.ports.sockets import FOR_ROOT
from dsmt.system.datagrams import UdpDatagrams
from dsmt.system.logs import DiskLogs
from dsmt.system.machine import LinuxMachine
from dsmt.system.procfs import boot, identity_of
from dsmt.system.records import record_path, write_record
from dsmt.system.sockets import LinuxSockets
from tests.loops import in_real_time
from tests.waiting import seen, until

pytestmark = pytest.mark.real


def test_a_listening_port_names_its_holder_and_a_free_one_nobody() -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        holder = LinuxSockets().holder(port, "127.0.0.1", "tcp")
        assert holder is not None
        assert f"pid {os.getpid()} " in holder
        assert LinuxSockets().holder(port, "127.0.0.1", "udp") is None
    assert LinuxSockets().holder(port, "127.0.0.1", "tcp") is None


def test_a_port_that_the_kernel_gives_to_root_alone_is_nobodys_and_not_free() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first < 2:
        pytest.skip("here the kernel gives every port to everybody")
    us = os.geteuid()
    if us == 0:
        os.seteuid(65534)
    try:
        assert LinuxSockets().holder(first - 1, "127.0.0.1", "tcp") == FOR_ROOT
        with pytest.raises(FailedError, match=f"only root may listen at port {first - 1}") as raised:
            check_free(f"127.0.0.1:{first - 1}", "broker b1", then="stop it")
    finally:
        os.seteuid(us)
    assert raised.value.code == "start.port_denied"
    assert "stop it" not in (raised.value.next or "")


def test_a_port_that_an_instance_holds_names_it() -> None:
    program = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "DSMT_INSTANCE": "web/app/0"}
    ) as child:
        try:
            assert child.stdout is not None
            holder = LinuxSockets().holder(int(child.stdout.readline()), "127.0.0.1", "tcp")
        finally:
            child.kill()
    assert holder is not None
    assert (holder.startswith(f"pid {child.pid} "), holder.endswith(", of web/app/0")) == (True, True)


def test_a_udp_port_is_held_by_whoever_bound_it() -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        tcp.bind(("127.0.0.1", 0))  # so that nobody else has the number: who is bound and does not listen holds nothing
        port = tcp.getsockname()[1]
        held.bind(("127.0.0.1", port))
        assert LinuxSockets().holder(port, "127.0.0.1", "udp") is not None
        tcp.close()
        assert LinuxSockets().holder(port, "127.0.0.1", "tcp") is None


def test_a_port_whose_connections_only_linger_is_free() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
    assert LinuxSockets().holder(port, "127.0.0.1", "tcp") is None


def test_a_port_that_lingers_after_a_program_that_does_not_share_it_is_told_as_what_it_is() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client.connect(("127.0.0.1", port))
        accepted, _ = server.accept()
        with accepted:
            server.close()
            held = LinuxSockets().holder(port, "127.0.0.1", "tcp")
            assert held is not None
            assert f"pid {os.getpid()} " in held, "who has connections of it holds it, too"
    left = LinuxSockets().holder(port, "127.0.0.1", "tcp")
    assert left is not None
    assert left.endswith("(TIME_WAIT)")


def test_logs_are_renamed_at_a_start_and_only_then(tmp_path: Path) -> None:
    logs = DiskLogs(str(tmp_path / "logs"))
    for number in range(5):
        begun = logs.begin("stdout", size_bytes=10, keep=2)
        assert begun.rotated == (number > 0)
        assert begun.offset == 0
        Path(logs.path("stdout")).write_text(f"run {number} wrote this\n")
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["stdout.log", "stdout.log.1", "stdout.log.2"]
    assert logs.read("stdout", 0, None, back=1) == b"run 3 wrote this\n"
    assert logs.read("stdout", 4, None) == b"4 wrote this\n"


def test_a_small_log_goes_on_where_it_is(tmp_path: Path) -> None:
    logs = DiskLogs(str(tmp_path))
    Path(logs.path("stderr")).write_text("before\n")
    begun = logs.begin("stderr", size_bytes=1000, keep=2)
    assert (begun.offset, begun.rotated) == (7, False)
    with Path(logs.path("stderr")).open("a") as file:
        file.write("after\n")
    assert logs.read("stderr", 7, None) == b"after\n"
    assert logs.read("stderr", 0, 7) == b"before\n"
    assert logs.read("stderr", 0, None, most=3) == b"er\n"
    assert logs.end("none") == 0
    assert logs.read("none", 0, None) == b""


@pytest.mark.parametrize("keep", [0, 2])
def test_a_log_that_cannot_be_put_aside_goes_on_where_it_is(tmp_path: Path, monkeypatch, keep: int) -> None:
    """A program must not fail for that: whether its log can be written is told where it is opened."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    logs = DiskLogs(str(tmp_path))
    Path(logs.path("stdout")).write_text("before\n")
    for call in ("replace", "unlink"):
        monkeypatch.setattr(os, call, refused)
    begun = logs.begin("stdout", size_bytes=3, keep=keep)
    assert (begun.offset, begun.rotated) == (7, False)


WRITER = """
import sys
for number in range(40000):
    sys.stdout.write(f"line {number:08d} of what a program that never stops to write says\\n")
sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write("the last line\\n")
"""


def test_a_log_is_bounded_while_its_program_writes_and_nothing_young_is_lost(tmp_path: Path) -> None:
    logs = DiskLogs(str(tmp_path))
    path = Path(logs.path("stdout"))
    with path.open("ab") as file:
        program = subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=file)
    try:
        whole = 40000 * len("line 00000000 of what a program that never stops to write says\n")
        seen(lambda: logs.end("stdout") >= whole, "that all is written", 30)
        logs.trim("stdout", size_bytes=100_000, keep=1)
        taken = path.stat().st_blocks * 512
        assert taken <= 200_000 + 2 * 4096
        kept = logs.read("stdout", 0, None, most=10_000_000)
        lines = kept.decode().splitlines()
        assert lines[-1].startswith("line 00039999")
        assert len(kept) > 190_000
        assert all(line.startswith("line ") for line in lines[1:])
        program.communicate(b"\n", timeout=90)
        assert logs.read("stdout", 0, None).endswith(b"the last line\n")
    finally:
        program.kill()
        program.communicate()


def test_old_files_go_first_when_all_of_them_are_over_the_bound(tmp_path: Path) -> None:
    logs = DiskLogs(str(tmp_path))
    for name, size in (("", 150_000), (".1", 100_000), (".2", 100_000), (".3", 100_000)):
        Path(logs.path("stdout") + name).write_bytes(b"x" * size)
    logs.trim("stdout", size_bytes=100_000, keep=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["stdout.log", "stdout.log.1", "stdout.log.2"]


def test_a_machine_tells_its_figures_and_its_programs(tmp_path: Path) -> None:
    machine = LinuxMachine(str(tmp_path))
    seen = machine.read()
    assert 1 <= seen.cpus <= 4096
    assert 0 < seen.memory_free_bytes <= seen.memory_bytes
    assert 0 <= seen.disk_free_bytes <= seen.disk_bytes
    assert machine.boot_id == boot()
    assert machine.pid_of("spawner") is None
    own = identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(tmp_path), "spawner"), own)
    assert machine.pid_of("spawner") == os.getpid()


def test_a_disk_has_no_room_that_is_kept_for_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(f_blocks=1000, f_bfree=900, f_bavail=300, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    seen = LinuxMachine(str(tmp_path)).read()
    assert (seen.disk_bytes, seen.disk_free_bytes) == (400 * 4096, 300 * 4096), "a quarter of it is used"


def test_a_name_is_looked_up_before_anything_is_sent_and_nothing_waits_for_that_meanwhile(monkeypatch) -> None:
    looked_up, go_on = threading.Event(), threading.Event()

    def slow(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        looked_up.set()
        assert go_on.wait(20)
        if host == "nobody":
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::7", port, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **more: slow(host, port, **more))

    async def main() -> None:
        udp, came = UdpDatagrams(), asyncio.Event()
        there = await udp.bind("127.0.0.1", 0, lambda *_: came.set())
        finding = asyncio.ensure_future(udp.found("n7:4000"))
        await until(looked_up.is_set)
        there.send(b"to a name", "n7:4000")  # it is no address: nothing is looked up here
        there.send(b"hello", await udp.found(f"127.0.0.1:{there.port}"))
        async with asyncio.timeout(10):
            await came.wait()
        assert not finding.done()
        go_on.set()
        assert await finding == "[2001:db8::7]:4000"
        with pytest.raises(TransportError, match="nobody is not found: "):
            await udp.found("nobody:1")
        there.close()

    asyncio.run(main())


@pytest.mark.parametrize("place", ["127.0.0.1:99999", "127.0.0.1:²", "127.0.0.1:-1", "127.0.0.1:", "999.1.1.1:80", "...:80"])
@in_real_time
async def test_what_is_no_place_is_sent_nothing_and_all_else_is(place: str) -> None:
    """As a node names it that means harm, or of which it was mistyped."""
    came: asyncio.Queue[bytes] = asyncio.Queue()
    udp = UdpDatagrams()
    there = await udp.bind("127.0.0.1", 0, lambda content, _: came.put_nowait(content))
    there.send(b"nowhere", place)
    there.send(b"hello", f"127.0.0.1:{there.port}")
    async with asyncio.timeout(10):
        assert await came.get() == b"hello"
    there.close()


@in_real_time
async def test_datagrams_go_there_and_back() -> None:
    came: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()
    udp = UdpDatagrams()
    here = await udp.bind("127.0.0.1", 0, lambda content, sender: came.put_nowait((content, sender)))
    there = await udp.bind("127.0.0.1", 0, lambda content, sender: there.send(content + b"!", sender))
    here.send(b"hello", f"127.0.0.1:{there.port}")
    async with asyncio.timeout(10):
        content, sender = await came.get()
    assert (content, sender) == (b"hello!", f"127.0.0.1:{there.port}")
    with pytest.raises(TransportError, match="cannot bind"):
        await udp.bind("127.0.0.1", here.port, lambda *_: None)
    here.close()
    there.close()
    here.send(b"too late", sender)
    await asyncio.sleep(0)


@pytest.mark.parametrize("address", ["a..b", "x" * 70])
def test_where_no_machine_can_be_no_port_is_bound(address):
    with pytest.raises(TransportError) as refused:
        asyncio.run(UdpDatagrams().bind(address, 0, lambda *_: None))
    assert refused.value.code == "datagrams.bind"

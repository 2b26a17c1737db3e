"""Checks against real servers and commands."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.monitors.checks import check as checking
from dsmt.monitors.checks import exec as exec_check
from dsmt.monitors.checks.check import RealChecks
from dsmt.monitors.checks.http import BODY_LIMIT
from dsmt.ports.check import Checks
from dsmt.spec.health import Check, ExecCheck, HttpCheck, NotifyCheck, TcpCheck
from dsmt.system.marks import bearing, make_mark
from dsmt.system.procfs import identity_of, is_alive
from tests.waiting import seen, until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]

BODY = b"all is well here"


def check(how, timeout_s=10.0):
    return Check(how=how, interval_s=1.0, timeout_s=timeout_s, passes=1, failures=3, deadline_s=None)


def http(path="/", **changes):
    fields = {
        "port": "http",
        "path": path,
        "scheme": "http",
        "method": "GET",
        "status": ((200, 399),),
        "headers": {},
        "contains": None,
    }
    return HttpCheck(**(fields | changes))


def try_once(how, *, port=0, timeout_s=10.0, directory="/", env=None, address="127.0.0.1"):
    checks: Checks = RealChecks()
    return asyncio.run(
        checks.run(
            check(how, timeout_s),
            address=address,
            ports={"http": port},
            env={"PATH": os.environ["PATH"]} | (env or {}),
            directory=directory,
        )
    )


def against(answer, how, *, timeout_s=10.0, tls=None, address="127.0.0.1", listen="127.0.0.1"):
    """Try a check against a server that says `answer`; the result and the request it got."""
    requests = []
    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(serve, listen, 0, ssl=tls)
        async with server:
            port = server.sockets[0].getsockname()[1]
            result = await RealChecks().run(
                check(how, timeout_s), address=address, ports={"http": port}, env={}, directory="/"
            )
            await asyncio.gather(*serving)
            return result

    return asyncio.run(main()), requests


def reply(status="200 OK", body=BODY, headers=""):
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body


LENGTH = f"Content-Length: {len(BODY)}\r\n"
CHUNKED = b"4;x=y\r\nall \r\nc\r\nis well here\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "changes", "passed", "evidence"),
    [
        (reply(), {}, True, ": 200 OK"),
        (reply("204"), {}, True, ": 204"),
        (reply("302 Found", headers="Location: http://127.0.0.1:1/\r\n"), {}, True, ": 302 Found"),
        (reply("503 Service Unavailable"), {}, False, ": 503 Service Unavailable, 200-399 wanted"),
        (reply("404 Not Found"), {"status": ((404, 404), (410, 419))}, True, "404"),
        (reply("200 OK"), {"status": ((404, 404), (410, 419))}, False, "404, 410-419 wanted"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + reply(), {}, True, ": 200 OK"),
        (reply(), {"contains": "well here"}, True, "200"),
        (reply(headers=LENGTH), {"contains": "well here"}, True, "200"),
        (reply(body=CHUNKED, headers="Transfer-Encoding: chunked\r\n"), {"contains": "all is well"}, True, "200"),
        (reply(body=CHUNKED, headers="Transfer-Encoding: chunked\r\n"), {"contains": "x=y"}, False, "without 'x=y'"),
        (reply(headers=LENGTH), {"contains": "sick"}, False, ": 200, without 'sick'"),
        (reply(body=b"al", headers=LENGTH), {"contains": "all"}, False, "closed the connection before"),
        (reply(body=BODY + bytes(BODY_LIMIT), headers=f"Content-Length: {1 << 30}\r\n"), {"contains": "well"}, True, "200"),
        (b"", {}, False, "closed the connection before"),
        (b"SSH-2.0-server\r\n\r\n", {}, False, "does not speak HTTP/1"),
        (b"HTTP/1.1 abc\r\n\r\n", {}, False, "does not speak HTTP/1"),
        (reply(headers="X: " + "y" * (1 << 17) + "\r\n"), {}, False, "its header is too long"),
        (reply(body=b"zz\r\n", headers="Transfer-Encoding: chunked\r\n"), {"contains": "z"}, False, "invalid literal"),
    ],
)
def test_an_answer_is_judged_by_its_status_and_body(answer, changes, passed, evidence):
    result, _requests = against(answer, http("/healthz", **changes))
    assert result.passed is passed
    assert not result.broken
    assert evidence in result.evidence
    assert result.evidence.startswith("GET http://127.0.0.1:")
    assert 0 < result.took_s < 10


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_request_says_what_was_asked_for(method):
    how = http("/a b?c=d&e=%20", method=method, headers={"host": "web.example", "X-Probe": "yes"})
    result, (request,) = against(reply(), how)
    assert result.passed
    lines = request.split("\r\n")
    assert lines[0] == f"{method} /a%20b?c=d&e=%20 HTTP/1.1"
    assert {"host: web.example", "X-Probe: yes", "Connection: close", "Content-Length: 0"} <= set(lines)
    assert sum(line.lower().startswith("host:") for line in lines) == 1


def test_what_is_said_of_a_header_counts_in_whatever_letters():
    _result, (request,) = against(reply(), http(headers={"user-agent": "probe", "ACCEPT": "text/plain"}))
    said = [line for line in request.split("\r\n") if line.lower().startswith(("user-agent:", "accept:"))]
    assert said == ["user-agent: probe", "ACCEPT: text/plain"]


def test_a_line_break_in_a_header_is_a_broken_check():
    result, requests = against(reply(), http(headers={"X": "a\r\nEvil: b"}))
    assert (result.passed, result.broken, requests) == (False, True, [])


def test_an_https_instance_is_asked_whatever_its_certificate(tmp_path):
    pem = tmp_path / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", tmp_path / "key", "-out", tmp_path / "cert", "-subj", "/CN=elsewhere", "-days", "1"),
        ],
        check=True,
        capture_output=True,
    )
    pem.write_bytes((tmp_path / "key").read_bytes() + (tmp_path / "cert").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    result, _requests = against(reply(), http(scheme="https"), tls=context)
    assert result.passed
    assert result.evidence.startswith("GET https://")
    plain, _requests = against(reply(), http(scheme="https"), timeout_s=0.5)
    assert not plain.passed
    assert not plain.broken


@pytest.mark.parametrize("how", [http("/x"), http("/x", contains="y")])
def test_a_server_that_does_not_answer_fails_in_time(how):
    result, _requests = against(None, how, timeout_s=0.2)
    assert not result.passed
    assert result.evidence.endswith("/x: no answer within 0.2 s")


def test_what_listens_everywhere_is_reached_at_home():
    result, _requests = against(reply(), http(), address="0.0.0.0", listen="0.0.0.0")
    assert result.passed
    assert "127.0.0.1" in result.evidence


def test_a_closed_port_fails_with_the_reason():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for how in (TcpCheck(port="http"), http()):
            result = try_once(how, port=bound.getsockname()[1])
            assert (result.passed, result.broken) == (False, False)
            assert result.evidence.endswith("Connection refused") or "Connect call failed" in result.evidence


def test_an_open_port_passes():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        result = try_once(TcpCheck(port="http"), port=listening.getsockname()[1])
    assert result.passed
    assert result.evidence.endswith("accepts connections")


@pytest.mark.parametrize("how", [TcpCheck(port="metrics"), http(port="metrics"), NotifyCheck(watchdog_s=None)])
def test_a_check_that_cannot_run_is_broken(how):
    result = try_once(how)
    assert (result.passed, result.broken) == (False, True)


@pytest.mark.parametrize(
    ("code", "passed", "evidence"),
    [
        ("print('fine')", True, "exit code 0: fine"),
        ("import sys; print('first', flush=True); sys.exit('the disk is gone')", False, "exit code 1: the disk is gone"),
        ("import os; os.kill(os.getpid(), 15)", False, "killed by signal 15"),
        ("import sys; sys.stdout.write('x' * 300000 + '\\nlast\\n'); sys.exit(3)", False, "exit code 3: last"),
        ("import sys; sys.exit(sys.stdin.read() != '')", True, "exit code 0"),
    ],
)
def test_a_command_is_judged_by_its_exit_code(code, passed, evidence):
    result = try_once(ExecCheck(command=(sys.executable, "-c", code)))
    assert (result.passed, result.broken) == (passed, False)
    assert result.evidence == f"{sys.executable}: {evidence}"


def test_a_command_runs_in_the_directory_and_environment_it_is_given(tmp_path):
    result = try_once(ExecCheck(command=("sh", "-c", 'echo "$NAME in $PWD"')), directory=str(tmp_path), env={"NAME": "me"})
    assert result.evidence == f"sh: exit code 0: me in {tmp_path}"


def test_what_a_service_says_of_its_environment_stands_above_what_its_user_has(monkeypatch):
    monkeypatch.setattr("dsmt.monitors.checks.exec.environment_of", lambda _: {"NAME": "its user", "HOME": "/home"})
    result = try_once(ExecCheck(command=("sh", "-c", 'echo "$NAME at $HOME"')), env={"NAME": "me"})
    assert result.evidence == "sh: exit code 0: me at /home"


def test_a_command_that_cannot_be_run_is_broken(tmp_path):
    for command in (("./nothing",), (str(tmp_path),), ("a\0b",)):
        result = try_once(ExecCheck(command=command), directory=str(tmp_path))
        assert (result.passed, result.broken) == (False, True)


HANGS = """
import os, sys, time
pid = os.fork()
if pid == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
os.waitpid(pid, 0)
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.01)
print("half way", flush=True)
"""


@pytest.mark.parametrize(("rest", "passed"), [("time.sleep(600)", False), ("", True)])
def test_nothing_of_a_command_is_left_after_its_try(tmp_path, rest, passed):
    path = tmp_path / "pid"
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        how = ExecCheck(command=(sys.executable, "-c", HANGS + rest, str(path)))

        async def main(timeout_s):
            run = RealChecks().run(check(how, timeout_s), address="", ports={}, env=dict(os.environ), directory="/")
            task = asyncio.ensure_future(run)
            await until(lambda: (path.exists() and path.read_text()) or task.done())
            escaped = identity_of(int(path.read_text())) if path.exists() and path.read_text() else None
            return await task, escaped

        for timeout_s in (60.0,) if passed else (2.0, 20.0):
            result, escaped = asyncio.run(main(timeout_s))
            if path.exists() and path.read_text():  # else its time was up before it had begun
                break
        assert path.read_text()
        assert result.passed is passed
        name = Path(sys.executable).name[:15]
        left = f"half way; what it left running was ended: {name}"
        assert result.evidence.endswith(left if passed else f"no answer within {timeout_s:g} s")
        assert escaped is None or not is_alive(escaped)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


TRIES = """
import asyncio, os, sys
from dsmt.monitors.checks import check as checking
from dsmt.monitors.checks import exec as exec_check
from dsmt.monitors.checks.check import RealChecks
from tests.monitors.test_checks import ExecCheck, check

how = ExecCheck(command=("sh", "-c", "echo $$ > pid.new; mv pid.new pid; exec sleep 600"))
about = {"address": "", "ports": {}, "env": dict(os.environ), "directory": sys.argv[1]}
asyncio.run(RealChecks(sys.argv[1]).run(check(how, 60.0), **about))
"""


def test_what_is_left_of_a_try_whose_process_was_killed_ends_with_the_next_of_its_owner_and_nobody_elses_does(tmp_path):
    owners = [tmp_path / "one", tmp_path / "two"]
    left = []
    for owner in owners:
        owner.mkdir()
        tries = subprocess.Popen([sys.executable, "-c", TRIES, str(owner)], cwd=Path(__file__).parents[2])
        try:
            seen((owner / "pid").exists, "its pid", 20)
            assert tries.poll() is None
        finally:
            tries.kill()
            tries.wait()
        left.append(identity_of(int((owner / "pid").read_text())))
    with bearing(make_mark(str(owners[0]), 1)) as marked:
        program = subprocess.Popen(["/bin/sleep", "600"], env={**os.environ, **marked})
    try:
        assert all(map(is_alive, left))
        asyncio.run(RealChecks(str(owners[0])).clear())
        assert [*map(is_alive, left)] == [False, True]
        assert program.poll() is None, "its owner's program is no try"
    finally:
        program.kill()
        program.wait()
        asyncio.run(RealChecks(str(owners[1])).clear())


def test_a_cancelled_try_leaves_no_process(tmp_path):
    path = tmp_path / "pid"
    how = ExecCheck(command=(sys.executable, "-c", HANGS + "time.sleep(600)", str(path)))

    async def main():
        run = RealChecks().run(check(how, 60.0), address="", ports={}, env=dict(os.environ), directory="/")
        task = asyncio.ensure_future(run)
        escaped = identity_of(int(await until(lambda: path.exists() and path.read_text())))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return escaped

    gc.collect()  # what earlier tests have left open
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert not is_alive(asyncio.run(main()))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_command_that_closes_its_output_and_goes_on_costs_nothing_meanwhile(monkeypatch, tmp_path):
    """The end of a pipe stays readable: it would be read again and again until the command ends."""
    reads = []
    real = exec_check._Output._take
    monkeypatch.setattr(exec_check._Output, "_take", lambda self: (reads.append(1), real(self))[1])
    told = check(ExecCheck(command=("/bin/sh", "-c", "echo closed; exec >&- 2>&-; sleep 0.5")))
    result = asyncio.run(RealChecks().run(told, address="", ports={}, env={}, directory=str(tmp_path)))
    assert (result.passed, result.evidence) == (True, "/bin/sh: exit code 0: closed")
    assert len(reads) < 10


def test_a_command_whose_end_nobody_could_see_does_not_go_on(tmp_path, monkeypatch):
    pids = []

    def none_left(pid):
        pids.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(exec_check.os, "pidfd_open", none_left)
    result = try_once(ExecCheck(command=("sleep", "600")))
    monkeypatch.undo()
    assert (result.passed, result.broken) == (False, True)
    assert "Too many open files" in result.evidence
    assert identity_of(pids[0]) is None


@pytest.mark.parametrize("how", [TcpCheck(port="http"), http()])
@pytest.mark.parametrize("address", ["a..b", "x" * 70])
def test_an_address_that_can_be_none_fails_and_ends_no_agent(how, address):
    result = try_once(how, port=80, address=address)
    assert (result.passed, result.broken) == (False, False)
    assert "label" in result.evidence


@pytest.mark.parametrize(("number", "broken"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.ECONNREFUSED, False)])
def test_that_who_asks_has_no_descriptor_left_says_nothing_of_the_service(monkeypatch, number, broken):
    async def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checking, "try_tcp", refused)
    result = try_once(TcpCheck(port="http"), port=80)
    assert (result.passed, result.broken) == (False, broken)
    assert result.evidence.endswith(os.strerror(number))

"""Fetching: what arrives is what was declared, or nothing is there."""

import asyncio
import datetime as dt
import errno
import hashlib
import http.client
import http.server
import ipaddress
import os
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dsmt.agents.fetch.artifacts import fetch_blob, fetch_https
from dsmt.errors import FailedError, NotFoundError
from tests.loops import in_real_time
from tests.waiting import until

pytestmark = pytest.mark.real

CONTENT = os.urandom(1 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
STATUSES = {"/missing": 404, "/gone": 410, "/login": 401, "/forbidden": 403, "/broken": 503}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file and many refusals."""

    def do_GET(self):
        target = {"/moved": "/file", "/downgraded": "http://127.0.0.1:1/file"}.get(self.path)
        if target is not None:
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        if self.path == "/late":
            self.server.asked.set()
            self.server.release.wait(30)
        self.send_response(STATUSES.get(self.path, 200))
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/stuck":
            self.wfile.write(CONTENT[:1000])
            self.server.release.wait(30)
        elif self.path == "/short":
            self.wfile.write(CONTENT[:1000])
        elif self.path == "/one-short":
            self.wfile.write(CONTENT[:-1])
        elif self.path not in STATUSES:
            self.wfile.write(CONTENT)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(certificate, monkeypatch):
    """An https server; `url(path)` and the context that trusts it."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.handle_error = lambda *_: None
    serving.asked, serving.release = threading.Event(), threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    serving.socket = context.wrap_socket(serving.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
    thread.start()
    serving.url = lambda path: f"https://127.0.0.1:{serving.server_port}{path}"
    serving.trust = ssl.create_default_context(cafile=str(certificate))
    yield serving
    serving.release.set()
    serving.shutdown()
    serving.server_close()
    thread.join()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("path", ["/file", "/moved"])
def test_a_file_arrives_and_its_progress_is_told(server, tmp_path, path):
    told = []

    async def main():
        to_path = str(tmp_path / "new" / "a")
        got = await fetch_https(
            server.url(path), to_path, sha256=SHA256.upper(), progress=lambda *now: told.append(now), context=server.trust
        )
        await asyncio.sleep(0)
        return got

    assert asyncio.run(main()) == len(CONTENT)
    assert (tmp_path / "new" / "a").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["a"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


def test_another_content_than_declared_is_not_used(server, tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FailedError) as caught:
        asyncio.run(fetch_https(server.url("/file"), str(tmp_path / "a"), sha256="0" * 64, context=server.trust))
    assert caught.value.code == "fetch.mismatch"
    assert (caught.value.fields["got"], caught.value.fields["want"]) == (SHA256, "0" * 64)
    assert "has sha256" in caught.value.message
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/missing", "fetch.not_found"),
        ("/gone", "fetch.not_found"),
        ("/login", "fetch.denied"),
        ("/forbidden", "fetch.denied"),
        ("/broken", "fetch.unreachable"),
        ("/short", "fetch.unreachable"),
        ("/one-short", "fetch.unreachable"),
        ("/downgraded", "fetch.unreachable"),
    ],
)
def test_each_refusal_has_its_code(server, tmp_path, path, code):
    with pytest.raises(FailedError) as caught:
        asyncio.run(fetch_https(server.url(path), str(tmp_path / "a"), sha256=SHA256, context=server.trust))
    assert caught.value.code == code
    assert names(tmp_path) == []


def test_a_server_that_cannot_be_reached_or_trusted_is_unreachable(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"https://127.0.0.1:{free.getsockname()[1]}/file"
        for url, word in ((nobody, "refused"), (server.url("/file"), "certificate"), ("http://127.0.0.1/a", "https")):
            with pytest.raises(FailedError) as caught:
                asyncio.run(fetch_https(url, str(tmp_path / "a"), sha256=SHA256))
            assert caught.value.code == "fetch.unreachable"
            assert word in caught.value.message
            assert caught.value.fields["host"] == "127.0.0.1"


@in_real_time
async def test_a_cancelled_fetch_returns_at_once_and_leaves_nothing(server, tmp_path):
    task = asyncio.ensure_future(fetch_https(server.url("/stuck"), str(tmp_path / "a"), sha256=SHA256, context=server.trust))
    while names(tmp_path) == []:  # noqa: ASYNC110 - a thread makes the file
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.release.set()
    while names(tmp_path) != []:  # noqa: ASYNC110 - a thread removes it
        await asyncio.sleep(0)


def test_a_fetch_that_is_cancelled_before_anything_has_come_makes_nothing_in_what_is_anothers_by_then(server, tmp_path):
    async def main():
        place = tmp_path / "files" / "a"
        task = asyncio.ensure_future(fetch_https(server.url("/late"), str(place), sha256=SHA256, context=server.trust))
        assert await asyncio.to_thread(server.asked.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.release.set()
        await until(lambda: not any(one.name == "dsmt-work" for one in threading.enumerate()))

    asyncio.run(main())
    assert names(tmp_path) == []


def test_a_network_that_is_lost_meanwhile_is_told_as_that(server, tmp_path, monkeypatch):
    def lost(*_):
        raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    monkeypatch.setattr(http.client.HTTPResponse, "read", lost)
    with pytest.raises(FailedError) as caught:
        asyncio.run(fetch_https(server.url("/file"), str(tmp_path / "a"), sha256=SHA256, context=server.trust))
    assert (caught.value.code, "No route to host" in caught.value.message) == ("fetch.unreachable", True)
    assert names(tmp_path) == []


async def chunks(*parts, error=None):
    for part in parts:
        yield part
    if error is not None:
        raise error


def test_a_blob_arrives(tmp_path):
    done = asyncio.run(fetch_blob(chunks(CONTENT[:9], CONTENT[9:]), str(tmp_path / "a"), sha256=SHA256))
    assert done == len(CONTENT)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_wrong_or_broken_blob_leaves_nothing(tmp_path):
    with pytest.raises(FailedError) as caught:
        asyncio.run(fetch_blob(chunks(CONTENT[:-1]), str(tmp_path / "a"), sha256=SHA256, name="depot:web"))
    assert caught.value.code == "fetch.mismatch"
    assert caught.value.message.startswith("depot:web has sha256")
    lost = NotFoundError("blob", "it is not there")
    with pytest.raises(NotFoundError):
        asyncio.run(fetch_blob(chunks(CONTENT[:9], error=lost), str(tmp_path / "a"), sha256=SHA256))
    assert names(tmp_path) == []


def test_a_full_disk_is_told_with_what_was_needed(server, small_disk):
    with pytest.raises(FailedError) as caught:
        asyncio.run(fetch_https(server.url("/file"), str(small_disk / "a"), sha256=SHA256, context=server.trust))
    assert (caught.value.code, caught.value.fields["need"]) == ("fetch.no_space", "1 MiB")
    with pytest.raises(FailedError) as caught:
        asyncio.run(fetch_blob(chunks(*[bytes(65536)] * 20), str(small_disk / "b"), sha256=SHA256))
    assert caught.value.code == "fetch.no_space"
    assert names(small_disk) == []

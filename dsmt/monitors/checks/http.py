"""HTTP check: one request of HTTP/1.1 (RFC 9112), judged by its status and what its body contains.

Rule 1: redirects are not followed, and no proxy is used: it is this instance that is asked.
Rule 2: the certificate of an `https` instance is not judged: a name and an authority for 127.0.0.1 say nothing.
Rule 3: at most 64 KiB of header and 1 MiB of body are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import string
import urllib.parse
from collections.abc import Mapping
from functools import cache
from typing import Final

from dsmt.event.addresses import host_port
from dsmt.ports.check import Result
from dsmt.spec.health import HttpCheck
from dsmt.version import __version__

HEADER_LIMIT: Final = 64 << 10
BODY_LIMIT: Final = 1 << 20


class _AnswerError(Exception):
    """What came back is no answer of HTTP."""


async def try_http(check: HttpCheck, host: str, port: int) -> Result:
    """Send the request and judge the answer. Raises OSError when there is no connection."""
    wrong = next((name for name, value in check.headers.items() if {"\r", "\n"} & set(name + value)), None)
    if wrong is not None:
        return Result(passed=False, evidence=f"header {wrong!r} has a line break", took_s=0.0, broken=True)
    authority = host_port(host, port)
    context = _tls() if check.scheme == "https" else None
    reader, writer = await asyncio.open_connection(host, port, limit=HEADER_LIMIT, ssl=context)
    what = f"{check.method} {check.scheme}://{authority}{check.path}"
    try:
        writer.write(_request(check, authority))
        status, phrase, headers = await _head(reader)
        if not any(low <= status <= high for low, high in check.status):
            wanted = ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in check.status)
            return Result(passed=False, evidence=f"{what}: {status} {phrase}".rstrip() + f", {wanted} wanted", took_s=0.0)
        if check.contains is not None and check.contains.encode() not in await _body(reader, headers):
            return Result(passed=False, evidence=f"{what}: {status}, without {check.contains!r}", took_s=0.0)
        return Result(passed=True, evidence=f"{what}: {status} {phrase}".rstrip(), took_s=0.0)
    except (_AnswerError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        return Result(passed=False, evidence=f"{what}: {_told(error)}", took_s=0.0)
    finally:
        writer.transport.abort()


def _request(check: HttpCheck, authority: str) -> bytes:
    """The request as it goes over the wire."""
    path = urllib.parse.quote(check.path, safe=string.punctuation)
    headers = {"Host": authority, "User-Agent": f"dsmt/{__version__}", "Accept": "*/*", "Connection": "close"}
    if check.method in ("POST", "PUT"):
        headers["Content-Length"] = "0"
    given = {name.lower() for name in check.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in given} | check.headers
    lines = [f"{check.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


async def _head(reader: asyncio.StreamReader) -> tuple[int, str, Mapping[str, str]]:
    """Status, reason phrase and headers of the final response; interim ones are passed over."""
    while True:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _space, rest = lines[0].partition(" ")
        number, _space, phrase = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(number) != 3 or not number.isdigit():
            raise _AnswerError(f"it does not speak HTTP/1: {lines[0][:80]!r}")
        if not 100 <= int(number) < 200:
            pairs = (line.partition(":") for line in lines[1:] if line)
            return int(number), phrase[:80], {name.strip().lower(): value.strip() for name, _colon, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """The body, its first `BODY_LIMIT` bytes."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunked(reader)
    length = headers.get("content-length")
    if length is not None:
        return await reader.readexactly(min(int(length), BODY_LIMIT))
    body = b""
    while len(body) < BODY_LIMIT and (more := await reader.read(BODY_LIMIT - len(body))):
        body += more
    return body


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    """A body in chunks (RFC 9112, 7.1)."""
    body = b""
    while len(body) < BODY_LIMIT:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            break
        body += await reader.readexactly(min(size, BODY_LIMIT - len(body)))
        if len(body) < BODY_LIMIT:
            await reader.readexactly(2)
    return body


def _told(error: Exception) -> str:
    """What was wrong with an answer."""
    if isinstance(error, asyncio.IncompleteReadError):
        return "it closed the connection before it had answered"
    if isinstance(error, asyncio.LimitOverrunError):
        return "its header is too long"
    return str(error)


@cache
def _tls() -> ssl.SSLContext:
    """A context that encrypts and judges nobody (rule 2)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers("ALL")
    return context

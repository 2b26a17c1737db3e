"""An `https` check of who speaks no TLS."""

import asyncio

import pytest

from dsmt.monitors.checks.check import RealChecks
from dsmt.spec.health import Check, HttpCheck

pytestmark = pytest.mark.real

HTTPS = HttpCheck(
    port="http", path="/", scheme="https", method="GET", status=((200, 399),), headers={}, contains=None
)  # fmt: skip


def test_it_is_told_as_that_and_not_as_the_systems_error_of_that_number() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            once = Check(how=HTTPS, interval_s=1.0, timeout_s=10.0, passes=1, failures=3, deadline_s=None)
            result = await RealChecks().run(once, address="127.0.0.1", ports={"http": port}, env={}, directory="/")
        assert (result.passed, result.broken) == (False, False)
        assert result.evidence.endswith("/: no TLS handshake: wrong version number")

    asyncio.run(main())

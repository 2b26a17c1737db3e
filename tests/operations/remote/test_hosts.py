"""Hosts: what an operator is told while one is reached."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from dsmt.errors import TransportError
from dsmt.operations.remote.hosts import address_of, reached


def test_who_loses_a_connection_is_told_so_once_and_of_no_single_write(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            with pytest.raises(TransportError):
                async with reached(address_of(f"127.0.0.1:{nobody.getsockname()[1]}"), for_user=True):
                    pass

    asyncio.run(main())
    for said in ("socket.send() raised exception.", "something else"):
        logging.getLogger("asyncio").warning(said)
    assert [record.message for record in caplog.records if record.name == "asyncio"] == ["something else"]

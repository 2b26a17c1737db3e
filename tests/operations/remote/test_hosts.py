"""Hosts: what an operator is told while one is reached."""

from __future__ import annotations

import asyncio
import logging
import socket

import asyncssh
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
    logger = logging.getLogger("asyncio")
    logger.warning("socket.send() raised exception.")
    lost = (asyncssh.ConnectionLost("lost"), asyncssh.SFTPNoConnection("not open"), asyncssh.SFTPConnectionLost("closed"))
    for error in (*lost, ValueError("something else")):
        logger.error("Task exception was never retrieved", exc_info=error)
    told = [record.exc_info for record in caplog.records if record.name == "asyncio"]
    assert [one[1] and str(one[1]) for one in told if one is not None] == ["something else"]
    assert len(told) == 1

"""TCP check: a connection that opens passes."""

from __future__ import annotations

import asyncio

from dsmt.event.addresses import host_port
from dsmt.ports.check import Result


async def try_tcp(host: str, port: int) -> Result:
    """Open a connection and close it again. Raises OSError when it does not open."""
    _reader, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()
    return Result(passed=True, evidence=f"{host_port(host, port)} accepts connections", took_s=0.0)

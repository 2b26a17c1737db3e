"""Checks: one try of a health check against a real instance.

Rule 1: what the service does is a `Result`, never an exception; a check that cannot run at all is `broken`.
Rule 2: a try takes at most the check's timeout (and for `exec` the 2 s that killing what it started may take).
Rule 3: the arguments of an `exec` check come with their placeholders filled in.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from dsmt.monitors.checks.exec import clear, try_exec
from dsmt.monitors.checks.http import try_http
from dsmt.monitors.checks.tcp import try_tcp
from dsmt.ports.check import Result
from dsmt.spec.health import Check, ExecCheck, HttpCheck, TcpCheck
from dsmt.system.procfs import become_subreaper

_LOOPBACK: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
"""Where to reach what listens everywhere."""
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What says nothing of the service, but of who asks it: no check that failed may restart it for that."""


class RealChecks:
    """The `Checks` port. Makes this process a subreaper, so that nothing an `exec` check forks is lost.

    `owner` is whose tries these are, on the whole machine and over its deaths: an agent's container.
    """

    def __init__(self, owner: str = "") -> None:
        self._owner = owner
        become_subreaper()

    async def clear(self) -> None:
        """End what is left of tries whose process was killed."""
        await clear(self._owner)

    async def run(
        self,
        check: Check,
        *,
        address: str,
        ports: Mapping[str, int],
        env: Mapping[str, str],
        directory: str,
        user: str = "",
    ) -> Result:
        """One try, at most `check.timeout_s` seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(check.timeout_s):
                result = await _try(check, _LOOPBACK.get(address, address), ports, env, (directory, user, self._owner))
        except TimeoutError:
            result = _failed(f"{_target(check, address, ports)}: no answer within {check.timeout_s:g} s")
        except (OSError, UnicodeError) as error:  # the second for a name that none can have
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number) if number and number > 0 else str(error)
            if isinstance(error, ssl.SSLError):  # its numbers are not those of the system
                why = f"no TLS handshake: {(error.reason or str(error)).lower().replace('_', ' ')}"
            result = replace(_failed(f"{_target(check, address, ports)}: {why}"), broken=number in _OURS)
        return replace(result, took_s=loop.time() - began)


async def _try(
    check: Check, host: str, ports: Mapping[str, int], env: Mapping[str, str], where: tuple[str, str, str]
) -> Result:
    """One try by its kind, of a command in a directory, as a user, for an owner. Raises OSError when nobody answers."""
    how = check.how
    if isinstance(how, ExecCheck):
        return await try_exec(how.command, env, *where)
    if isinstance(how, HttpCheck | TcpCheck):
        port = ports.get(how.port)
        if port is None:
            return Result(passed=False, evidence=f"there is no port named {how.port!r}", took_s=0.0, broken=True)
        return await try_http(how, host, port) if isinstance(how, HttpCheck) else await try_tcp(host, port)
    return Result(passed=False, evidence="a notify check is not tried: the service itself reports", took_s=0.0, broken=True)


def _target(check: Check, address: str, ports: Mapping[str, int]) -> str:
    """What was tried, for the evidence."""
    how = check.how
    if isinstance(how, HttpCheck):
        return f"{how.method} {how.scheme}://{address}:{ports.get(how.port)}{how.path}"
    if isinstance(how, TcpCheck):
        return f"{address}:{ports.get(how.port)}"
    return how.command[0] if isinstance(how, ExecCheck) else "notify"


def _failed(evidence: str) -> Result:
    """A try that did not pass."""
    return Result(passed=False, evidence=evidence[:500], took_s=0.0)

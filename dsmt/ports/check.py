"""Check: one try of a health check, as a port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from dsmt.spec.health import Check as CheckSpec


class Result(msgspec.Struct, frozen=True):
    """What one try saw: evidence, not only a verdict.

    `broken` means that the check itself could not run (`health.check_broken`), which says nothing of the service.
    """

    passed: bool
    evidence: str
    took_s: float
    broken: bool = False


class Checks(Protocol):
    """Runs one try of a check against an instance."""

    async def run(
        self,
        check: CheckSpec,
        *,
        address: str,
        ports: Mapping[str, int],
        env: Mapping[str, str],
        directory: str,
        user: str = "",
    ) -> Result:
        """One try, at most `check.timeout_s` seconds; never raises for what the service does."""
        ...

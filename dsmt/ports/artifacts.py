"""Artifacts: fetching what an instance needs and laying it out in its directory, as a port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dsmt.spec.records import Artifact

Progress = Callable[[str, int, int | None], None]
"""Told as it goes on: the step (`fetch`, `unpack`), bytes done, bytes in all if that is known."""


class Artifacts(Protocol):
    """Fetches by path, https or depot; what has arrived is used only with the declared sha256."""

    async def install(self, artifact: Artifact, directory: str, progress: Progress) -> None:
        """Fetch, check and unpack an artifact into `directory`; again and again with the same outcome.

        Raises `FailedError` with a `fetch.` code or `install.unpack`. May be cancelled at any time: what is half
        done is done again by the next call.
        """
        ...

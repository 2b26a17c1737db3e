"""Drivers: the ways to run an instance's program, in one explicit table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dsmt.agents.drivers.process import ProcessDriver
from dsmt.ports.driver import Driver
from dsmt.system.watch import Ask

DRIVERS: Final[Mapping[str, Callable[[str, Ask], Driver]]] = {"process": ProcessDriver}
"""Driver by the word of the service file, made as `DRIVERS[word](owner, ask)`.

`owner` is the name that an instance keeps through all its agents; `ask` tells how an adopted one ended.
"""

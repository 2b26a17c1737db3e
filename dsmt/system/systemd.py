"""Systemd: in which of its units a process is, and whether it keeps that up (cgroups(7), systemctl(1))."""

from __future__ import annotations

import subprocess
from typing import Final

from dsmt.system.procfs import control_groups

SYSTEMCTL_S: Final = 5.0


def unit_of(pid: int) -> str:
    """The service in which a process is, or was started: `NAME.service`; empty when it is in none."""
    names = (name for path in control_groups(pid) for name in reversed(path.split("/")))
    return next((name for name in names if name.endswith(".service")), "")


def is_kept(unit: str) -> bool:
    """Whether systemd keeps a unit up, so that it begins anew what somebody else ends there."""
    argv = ["systemctl", "is-active", "--quiet", unit]
    try:
        return subprocess.run(argv, capture_output=True, check=False, timeout=SYSTEMCTL_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False

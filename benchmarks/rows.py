"""Rows: how figures are made of samples, compared and shown."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Statistic = Callable[[Sequence[float]], float]

BLOCKS = 5
KEYS = ("id", "size", "ours", "peer", "peer_name", "ratio", "unit", "bar", "holds")


def percentile(share: float) -> Statistic:
    """The statistic that `share` of the samples do not exceed, by the nearest rank."""

    def of(samples: Sequence[float]) -> float:
        ordered = sorted(samples)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    return of


median: Statistic = statistics.median


def compare(ours: Sequence[float], peer: Sequence[float], statistic: Statistic) -> tuple[float, str]:
    """The ratio ours / peer of a statistic, and its spread.

    Both were taken in turn, so the run is cut into `BLOCKS` consecutive parts: the ratio is the median of the parts'
    ratios, the spread their least and greatest. What the machine's other load does to both shows in it.
    """
    count = min(len(ours), len(peer))
    size = max(1, count // BLOCKS)
    ratios = [statistic(ours[at : at + size]) / statistic(peer[at : at + size]) for at in range(0, count - size + 1, size)]
    return statistics.median(ratios), f"{min(ratios):.2g}..{max(ratios):.2g}"


def rounded(value: float | None) -> float | None:
    """Three significant figures."""
    return None if value is None else float(f"{value:.3g}")


def row(
    figure: str,
    size: str,
    *,
    unit: str,
    ours: float | None,
    peer: float | None = None,
    peer_name: str | None = None,
    ratio: float | None = None,
    spread: str = "",
    bar: str | None = None,
    holds: bool | None = None,
    note: str = "",
) -> Row:
    """One row. `bar` None: told for comparison only. `note` says what is missing, or how it was taken."""
    return {
        "id": figure,
        "size": size,
        "ours": rounded(ours),
        "peer": rounded(peer),
        "peer_name": peer_name,
        "ratio": rounded(ratio),
        "spread": spread,
        "unit": unit,
        "bar": bar,
        "holds": holds,
        "note": note,
    }


def machine() -> str:
    """What the figures were taken on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = Path("/proc/cpuinfo").read_text(errors="replace").count("processor\t")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    load = Path("/proc/loadavg").read_text().split()[:3]
    return (
        f"{cores} x {model}, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {' '.join(load)}"
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    head = ("figure", "size", "ours", "peer", "ratio", "spread", "unit", "bar", "")
    lines = [head, *(_cells(one) for one in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cells(one: Row) -> tuple[str, ...]:
    peer = "-" if one["peer"] is None else f"{one['peer']:g}"
    if one["peer_name"]:
        peer += f" ({one['peer_name']})"
    verdict = {True: "holds", False: "FALLS SHORT", None: ""}[one["holds"]]
    note = one.get("note", "")
    return (
        one["id"],
        one["size"],
        "-" if one["ours"] is None else f"{one['ours']:g}",
        peer,
        "-" if one["ratio"] is None else f"{one['ratio']:g}",
        one.get("spread", ""),
        one["unit"],
        one["bar"] or "-",
        f"{verdict}{': ' if verdict and note else ''}{note}",
    )

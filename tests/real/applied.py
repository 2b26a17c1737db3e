"""Services that are applied, and the rows that `ps` shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.real.fleet import Fleet
from tests.real.seat import dsmt


async def rows(made: Fleet, target: str) -> dict[str, Any]:
    """`dsmt ps`, by instance."""
    return {row["instance"]: row for row in (await dsmt(made.home.root, "ps", target, "--json")).json}


async def applied(made: Fleet, path: Path, *arguments: str) -> dict[str, Any]:
    """`dsmt apply` that ends with every instance ready."""
    try:
        done: dict[str, Any] = (await dsmt(made.home.root, "apply", str(path), "--wait=60s", "--json", *arguments)).json
    except AssertionError as error:
        error.add_note((await dsmt(made.home.root, "status")).out)
        raise
    assert (done["outcome"], done["ready"]) == ("ready", done["wanted"]), done
    return done

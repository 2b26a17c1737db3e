"""Trial: whether every program of what is installed can be imported, before anything that runs is ended for it (rule C18).

`python -m dsmt.programs.trial keeper|spawner`: all that one of these would import. It says why not on standard error, and
`TRIED` on standard output where all can be: a program that ends this very process by its import has not been tried.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from dsmt.errors import FailedError
from dsmt.programs import keeper, spawner
from dsmt.system.fork import load

TRIED: Final = "tried"
_PROGRAMS: Final[Mapping[str, Mapping[str, str]]] = {"keeper": keeper.PROGRAMS, "spawner": spawner.PROGRAMS}


def main(who: str) -> int:
    """Import what a keeper or a spawner forks; the exit code."""
    try:
        load(_PROGRAMS[who])
    except FailedError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit
    sys.stdout.write(TRIED)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Trial: whether every program of what is installed can be imported, and begins, before any that runs is ended (rule C18).

`python -m dsmt.programs.trial keeper|spawner`: all that one of these would import. It says why not on standard error, and
`TRIED` on standard output where all can be: a program that ends this very process by its import has not been tried.

Rule 1: each is begun once where there is no file, and nothing can be made: one that is whole says that it lacks its files,
    and ends. So a trial connects to nobody, takes nobody's place and leaves nothing. What comes later is not tried.
Rule 2: a spawner would begin its node's programs, whatever is there: it is imported only.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Final

from dsmt.errors import DsmtError, FailedError
from dsmt.programs import keeper, spawner
from dsmt.programs.running import CONFIG_EXIT
from dsmt.system.fork import BUG, Main, load

TRIED: Final = "tried"
NOWHERE: Final = "/proc/self/nowhere"
LONGEST_S: Final = 20
"""How long one may take to find that it lacks its files."""
_KEEPER: Final = {"keeper": "dsmt.programs.keeper:main"}
_PROGRAMS: Final[Mapping[str, Mapping[str, str]]] = {
    "keeper": {**keeper.PROGRAMS, **_KEEPER},
    "spawner": spawner.PROGRAMS,
}
_IMPORTED_ONLY: Final = frozenset({"spawner"})


def main(who: str) -> int:
    """Import what a keeper or a spawner forks, and begin each of it; the exit code."""
    try:
        for name, program in load(_PROGRAMS[who]).items():
            if name not in _IMPORTED_ONLY:
                check_begins(name, program)
    except FailedError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit
    sys.stdout.write(TRIED)
    return 0


def check_begins(name: str, program: Main) -> None:
    """Raise `FailedError` that says how a program ends which does not look for its files (rule 1)."""
    output = os.memfd_create(name)
    pid = os.fork()
    if pid == 0:
        _begin(program, output)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != CONFIG_EXIT:
        lines = os.pread(output, 1 << 20, 0).decode(errors="replace").strip().splitlines()
        how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        why = f": {lines[-1].strip()}" if lines else ""
        raise FailedError("start.cannot_exec", f"the program {name} ends as it begins, {how}{why}", program=name)
    os.close(output)


def _begin(program: Main, output: int) -> None:
    code = BUG
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONGEST_S)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = program(NOWHERE)
    except DsmtError:
        code = CONFIG_EXIT
    except BaseException:  # noqa: BLE001 - the outermost frame of this process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code & 0xFF)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

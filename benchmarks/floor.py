"""The floor of P1 and P2: nothing but pidfd and posix_spawn in a loop. `python floor.py TOLD PROGRAM ARGUMENT...`.

Each death is told by one byte into TOLD, after the next start; nothing is signed, stored or checked.
"""

import os
import select
import sys


def main(told: str, command: list[str]) -> None:
    descriptor = os.open(told, os.O_WRONLY)
    poller = select.poll()
    while True:
        pid = os.posix_spawn(command[0], command, os.environ)
        watched = os.pidfd_open(pid)
        os.write(descriptor, b".")
        poller.register(watched, select.POLLIN)
        poller.poll()
        poller.unregister(watched)
        os.waitid(os.P_PIDFD, watched, os.WEXITED)
        os.close(watched)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""The floor of P1: nothing but pidfd and posix_spawn in a loop. `python floor.py PROGRAM ARGUMENT...`."""

import os
import select
import sys


def main(command: list[str]) -> None:
    poller = select.poll()
    while True:
        pid = os.posix_spawn(command[0], command, os.environ)
        descriptor = os.pidfd_open(pid)
        poller.register(descriptor, select.POLLIN)
        poller.poll()
        poller.unregister(descriptor)
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
        os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])

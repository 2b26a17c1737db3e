"""Serf: a cluster of agents on this machine with the defaults of its LAN profile, and who notices when one dies."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.processes import kill_with_all_below
from benchmarks.stamps import now_ns


class Serf:
    """Agents a0, a1, ...; each one's log is read line by line as it is written."""

    def __init__(self, program: str, size: int) -> None:
        self._program = program
        self._ports = [_free_ports() for _ in range(size)]
        self._agents: list[subprocess.Popen[bytes] | None] = [None] * size
        self._lines: queue.SimpleQueue[tuple[int, int, str]] = queue.SimpleQueue()

    def start(self, number: int, timeout_s: float) -> None:
        """Start an agent and wait until every other one that lives has seen it join."""
        bind, rpc = self._ports[number]
        command = [self._program, "agent", f"-node=a{number}", f"-bind=127.0.0.1:{bind}", f"-rpc-addr=127.0.0.1:{rpc}"]
        others = [at for at, agent in enumerate(self._agents) if agent is not None]
        command += [f"-join=127.0.0.1:{self._ports[at][0]}" for at in others]
        agent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._agents[number] = agent
        threading.Thread(target=self._read, args=(number, agent), daemon=True).start()
        self._await("EventMemberJoin", number, set(others) or {number}, timeout_s)

    def kill(self, number: int) -> int:
        """SIGKILL an agent; when, in ns."""
        agent = self._agents[number]
        if agent is None:
            raise RuntimeError(f"agent a{number} does not run")
        at = now_ns()
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        self._agents[number] = None
        return at

    def failed(self, number: int, timeout_s: float) -> int:
        """Wait until all the others have called an agent failed; when the first of them did, in ns."""
        others = {at for at, agent in enumerate(self._agents) if agent is not None}
        return self._await("EventMemberFailed", number, others, timeout_s)

    def _await(self, word: str, number: int, by: set[int], timeout_s: float) -> int:
        """Wait until each of `by` has logged a word about an agent; when the first of them did."""
        deadline, told, first = time.monotonic() + timeout_s, set[int](), 0
        while not by <= told:
            try:
                at, teller, line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"serf: waited {timeout_s:.0f} s for {word} of a{number}") from None
            if f"{word}: a{number}" in line:
                first = first or at
                told.add(teller)
        return first

    def _read(self, number: int, agent: subprocess.Popen[bytes]) -> None:
        if agent.stdout is not None:
            for line in agent.stdout:
                self._lines.put((now_ns(), number, line.decode(errors="replace")))
            agent.stdout.close()

    def end(self) -> None:
        for agent in self._agents:
            if agent is not None:
                kill_with_all_below(agent.pid)
                agent.wait()


@contextmanager
def serf(program: str, size: int, *, start_s: float) -> Iterator[Serf]:
    """A cluster for the length of a block."""
    cluster = Serf(program, size)
    try:
        for number in range(size):
            cluster.start(number, start_s)
        yield cluster
    finally:
        cluster.end()


def _free_ports() -> tuple[int, int]:
    """A port free for TCP and UDP, and one free for TCP."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as other:
            stream.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            try:
                datagrams.bind(stream.getsockname())
            except OSError:
                continue
            return stream.getsockname()[1], other.getsockname()[1]

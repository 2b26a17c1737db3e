"""Run a small fleet in a process of its own and print the hash of its trace: `scenario.py SEED DEFECT HEAP`.

`DEFECT`: `none`; `set`, nodes are visited in the order of a set of text; `address`, tasks hash to their
address, as asyncio's do.
`HEAP`: how many objects to put on the heap first, some of which are freed again, so that addresses differ.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from dsmt.simulator.engine.handles import SimTask
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.process import SimProcess
from dsmt.simulator.engine.rng import Stream
from dsmt.simulator.engine.run import run
from dsmt.simulator.engine.trace import Trace


class Fleet:
    """Nodes that send each other messages over links with latency and loss, are killed, paused and restarted."""

    def __init__(self, seed: int, defect: str, trace: Trace) -> None:
        self.stream = Stream(seed)
        self.defect = defect
        self.trace = trace
        self.nodes: dict[str, SimProcess] = {}
        self.inboxes: dict[str, asyncio.Queue[str]] = {}

    def send(self, sender: str, to: str, text: str) -> None:
        loop, stream = current_loop(), self.stream
        if to in self.nodes and not stream.chance(0.05):
            when = loop.time() + stream.uniform(0.001, 0.005)
            loop.call_in_at(self.nodes[to], when, self.arrive, sender, to, text)

    def arrive(self, sender: str, to: str, text: str) -> None:
        self.trace.note("arrive", current_loop().tick, sender, to, text)
        self.inboxes[to].put_nowait(text)

    async def node(self, name: str) -> None:
        self.inboxes[name] = asyncio.Queue()
        with suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(self.worker(name, number))
                group.create_task(self.fail_at(self.stream.uniform(2, 9)))

    async def fail_at(self, when: float) -> None:
        await asyncio.sleep(when)
        raise RuntimeError("the node's group is aborted: all of its workers end")

    async def worker(self, name: str, number: int) -> None:
        try:
            while True:
                with suppress(TimeoutError):
                    text = await asyncio.wait_for(self.inboxes[name].get(), self.stream.uniform(0.1, 1))
                    self.trace.note("got", name, number, text)
                peers = self.peers(name)
                self.send(name, peers[self.stream.below(len(peers))], f"{name}/{number}")
        finally:
            self.trace.note("end", name, number)

    def peers(self, name: str) -> list[str]:
        if self.defect == "set":
            return list(set(self.nodes) - {name})
        return [peer for peer in self.nodes if peer != name]

    async def main(self) -> None:
        for number in range(12):
            self.nodes[f"node-{number}"] = SimProcess(f"node-{number}")
        for name, process in self.nodes.items():
            process.start(self.node(name))
        for _ in range(10):
            await asyncio.sleep(self.stream.exponential(0.4))
            name = self.stream.choice(list(self.nodes))
            process = self.nodes[name]
            if self.stream.chance(0.5):
                process.kill()
                self.nodes[name] = SimProcess(name)
                self.nodes[name].start(self.node(name))
            else:
                process.pause()
                current_loop().call_in_at(None, current_loop().time() + 0.7, process.resume)
        await asyncio.sleep(1)
        for process in self.nodes.values():
            process.kill()


def main() -> None:
    seed, defect, heap = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ballast = [bytes(16 + number * 7919 % 496) for number in range(heap)]
    ballast = [piece for number, piece in enumerate(ballast) if number * number % 7 < 3]
    if defect == "address":
        SimTask.__hash__ = asyncio.Task.__hash__  # type: ignore[method-assign]
    trace = Trace()
    run(Fleet(seed, defect, trace).main())
    del ballast
    print(trace.count, trace.hexdigest())  # noqa: T201 - it is the answer


if __name__ == "__main__":
    main()

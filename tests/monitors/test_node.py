"""The node monitor and its probes, in the simulator's time, over a network of datagrams in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.observers import Observers
from dsmt.errors import TransportError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import to_data
from dsmt.monitors.node import MonitorConfig, MonitorSurroundings, NodeMonitor, differs
from dsmt.monitors.probe import RATE, Prober, Responder
from dsmt.ports.bus import Arrived, Draft, Interest, Reattached
from dsmt.ports.datagrams import MAX_BYTES
from dsmt.ports.machine import MachineReading
from dsmt.simulator.engine.process import SimProcess
from dsmt.simulator.engine.run import run
from dsmt.trust.keys import SecretKey, verify
from dsmt.trust.probing import Answered, answer, answered, request
from tests.controllers.signing import signed
from tests.loops import in_virtual_time

from ..agents.memory_bus import KEY, Bus, Clock, Realm  # noqa: TID252 - tests are no package
from ..agents.memory_machine import Entropy  # noqa: TID252 - tests are no package

GIB = 2**30


class Network:
    """Datagrams in memory: who is bound where, and who has gone deaf."""

    def __init__(self) -> None:
        self.bound: dict[str, Callable[[bytes, str], None]] = {}
        self.deaf: set[str] = set()
        self.copies = 1
        self.ports = iter(range(1000, 60000))

    async def found(self, to: str) -> str:
        return to

    def at(self, address: str) -> "Datagrams":
        return Datagrams(self, address)


class Datagrams:
    def __init__(self, network: Network, address: str) -> None:
        self.network = network
        self.address = address

    async def found(self, to: str) -> str:
        return await self.network.found(to)

    async def bind(self, address: str, port: int, receive: Any) -> "Endpoint":
        if address not in (self.address, "0.0.0.0", "::"):
            raise TransportError("datagrams.bind", "not local")
        return Endpoint(self.network, self.address, next(self.network.ports), receive)


class Endpoint:
    def __init__(self, network: Network, address: str, port: int, receive: Any) -> None:
        self.network = network
        self.port = port
        self.name = f"{address}:{port}"
        self.address = address
        network.bound[self.name] = receive

    def send(self, content: bytes, to: str) -> None:
        for _ in range(self.network.copies):
            asyncio.get_running_loop().call_later(0.002, self._arrive, content, to)

    def _arrive(self, content: bytes, to: str) -> None:
        if to in self.network.bound and to.split(":", maxsplit=1)[0] not in self.network.deaf:
            self.network.bound[to](content, self.name)

    def close(self) -> None:
        del self.network.bound[self.name]


class Machine:
    boot_id = "boot"

    def __init__(self) -> None:
        self.reading = MachineReading(4, 16 * GIB, 8 * GIB, 100 * GIB, 50 * GIB, 0.5)
        self.pids = {"spawner": 1, "container_manager": 2}

    def read(self) -> MachineReading:
        return self.reading

    def pid_of(self, program: str) -> int | None:
        return self.pids.get(program)


class World:
    def __init__(self) -> None:
        self.realm = Realm()
        self.network = Network()
        self.broker = Bus(self.realm, "broker/b1")
        self.machines: dict[str, Machine] = {}
        self.buses: dict[str, Bus] = {}
        self.processes: list[SimProcess] = []
        self.observers = Observers()

    def start(self, node: str) -> SimProcess:
        number = node[1:]
        address = f"10.0.0.{number}"
        self.machines[node] = Machine()
        self.buses[node] = Bus(self.realm, f"monitor/{node}")
        process = SimProcess(f"monitor of {node}")

        async def main() -> int:
            monitor = NodeMonitor(
                MonitorConfig(node=node, address=address, version="1", key="k", labels={"a": "b"}, drivers={}, pid=3),
                MonitorSurroundings(
                    bus=self.buses[node],
                    key=KEY,
                    machine=self.machines[node],
                    datagrams=self.network.at(address),
                    clock=Clock(),
                    entropy=Entropy(int(number)),
                ),
            )
            await monitor.run()
            return 0

        process.start(main())
        self.processes.append(process)
        for role in ("node", "monitor"):
            self.session(f"{role}/{node}", "open")
        return process

    def session(self, source: str, state: Any, attachment: int = 1) -> None:
        told = SessionFact(
            attachment=attachment,
            state=state,
            how=None,
            since_ms=0,
            incarnation=1,
            pid=1,
            version="1",
            address="",
        )
        ended = self.observers.noted([(source, state)])
        self.observers.due()
        to = ended.get(source.split("/")[1]) or self.observers.addressed(source)
        self.broker.emit(Draft(f"broker/b1/session/{source}", to_data(told), to=to))

    def silence(self, node: str, state: str = "silent", attachment: int = 1) -> None:
        for role in ("node", "monitor"):
            self.session(f"{role}/{node}", state, attachment)

    def probes(self, node: str) -> list[tuple[str, str]]:
        found = [s.event for s in self.realm.log if s.event.type == "dsmt.node.probe"]
        return [(e.topic.split("/")[3], e.data["result"]) for e in found if e.topic.split("/")[1] == node]

    def said(self, node: str) -> list[Any]:
        return self.realm.told(f"node/{node}/attributes")

    def end(self) -> None:
        for process in self.processes:
            process.kill()


@in_virtual_time
async def test_attributes_are_said_at_once_then_each_half_minute_and_on_change() -> None:
    at = World()
    at.start("n1")
    await asyncio.sleep(1)
    (first,) = at.said("n1")
    assert first["address"] == "10.0.0.1"
    assert first["udp_port"] is not None
    assert (first["spawner_pid"], first["manager_pid"], first["monitor_pid"]) == (1, 2, 3)
    assert first["attachments"] == {"monitor/n1": 7}
    await asyncio.sleep(62)
    assert len(at.said("n1")) == 3
    machine = at.machines["n1"]
    machine.reading = MachineReading(4, 16 * GIB, 4 * GIB, 100 * GIB, 50 * GIB, 0.5)
    await asyncio.sleep(6)
    assert len(at.said("n1")) == 4
    assert at.said("n1")[-1]["memory_free_bytes"] == 4 * GIB
    machine.pids["container_manager"] = 9
    await asyncio.sleep(6)
    assert at.said("n1")[-1]["manager_pid"] == 9
    at.end()


@in_virtual_time
async def test_attributes_are_said_at_each_attachment_for_its_store_may_be_blank() -> None:
    at = World()
    at.start("n1")
    await asyncio.sleep(3)
    assert len(at.said("n1")) == 1
    for attached in at.buses["n1"].calls:
        attached()
    assert len(at.said("n1")) == 2
    await asyncio.sleep(29)
    assert len(at.said("n1")) == 2, "the next half minute counts from then"
    at.end()


@in_virtual_time
async def test_a_silent_node_whose_monitor_answers_has_passed() -> None:
    at = World()
    for node in ("n1", "n2", "n3"):
        at.start(node)
    await asyncio.sleep(1)
    at.silence("n3")
    await asyncio.sleep(1.5)
    assert sorted(at.probes("n3")) == [("n1", "passed"), ("n2", "passed")]
    await asyncio.sleep(8)
    assert len(at.probes("n3")) == 10, "each says it each 2 s: a result counts for two periods"
    told = next(s.event for s in at.realm.log if s.event.type == "dsmt.node.probe")
    assert told.data["attachment"] == 7
    assert told.data["every_s"] == 2.0
    said = answered(told.data["answer"], told.data["nonce"], "n3", KEY.key_id, verify)
    assert said is not None
    assert said.attachment == 7
    assert told.data["round_trip_s"] > 0
    assert told.cause[0].source == "broker/b1"
    at.end()


@in_virtual_time
async def test_an_answer_that_the_network_brings_twice_is_one_answer() -> None:
    at = World()
    wrong: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    for node in ("n1", "n2"):
        at.start(node)
    at.network.copies = 2
    await asyncio.sleep(1)
    at.silence("n2")
    await asyncio.sleep(1.5)
    assert (at.probes("n2"), wrong) == ([("n1", "passed")], [])
    at.end()


@in_virtual_time
async def test_a_silent_node_that_does_not_answer_has_failed_and_change_is_told() -> None:
    at = World()
    for node in ("n1", "n2"):
        at.start(node)
    await asyncio.sleep(1)
    at.network.deaf.add("10.0.0.2")
    at.silence("n2")
    await asyncio.sleep(1.5)
    assert at.probes("n2") == [("n1", "failed")]
    await asyncio.sleep(58)
    early = len(at.probes("n2"))
    assert early == 30
    await asyncio.sleep(90)
    assert len(at.probes("n2")) == early + 2, "an old silence is told of more rarely"
    assert {s.event.data["every_s"] for s in at.realm.log if s.event.type == "dsmt.node.probe"} == {2.0, 60.0}
    at.network.deaf.clear()
    await asyncio.sleep(3)
    assert at.probes("n2")[early + 2 :] == [("n1", "passed")]
    at.silence("n2", "open", 2)
    await asyncio.sleep(1)
    bound = len(at.network.bound)
    await asyncio.sleep(10)
    assert len(at.network.bound) == bound == 2
    at.network.deaf.add("10.0.0.2")
    at.silence("n2", "silent", 2)
    await asyncio.sleep(5)
    assert at.probes("n2")[early + 3 :] == [("n1", "failed")] * 2
    at.end()


NONCE = b"n" * 16


def signed_by(key: SecretKey, node: str = "n2") -> bytes | None:
    return answer(request(NONCE), key, key.public, node, Answered(4, 99))


def test_only_the_signed_answer_of_the_right_key_to_this_nonce_is_believed() -> None:
    other = SecretKey(b"o" * 32)
    good = signed_by(KEY)
    assert good is not None
    assert answered(good, NONCE, "n2", KEY.key_id, verify) == (4, 99)
    assert answered(good, b"m" * 16, "n2", KEY.key_id, verify) is None
    for key, node in ((other, "n2"), (KEY, "n3")):
        wrong = signed_by(key, node)
        assert wrong is not None
        assert answered(wrong, NONCE, "n2", KEY.key_id, verify) is None


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_flipped_bit_of_an_answer_is_believed(place: int, bit: int) -> None:
    good = signed_by(KEY)
    assert good is not None
    bad = bytearray(good)
    bad[place % len(bad)] ^= 1 << bit
    assert answered(bytes(bad), NONCE, "n2", KEY.key_id, verify) is None


@given(st.binary(max_size=400))
def test_rubbish_is_neither_answered_nor_believed(content: bytes) -> None:
    assert answer(content, KEY, KEY.public, "n2", Answered(1, 1)) is None
    assert answered(content, NONCE, "n2", KEY.key_id, verify) is None


def test_an_answer_is_no_longer_than_its_request_and_both_fit_into_a_packet() -> None:
    told = answer(request(NONCE), KEY, KEY.public, "a-node.with-a-name.example", Answered(2**41, 2**41))
    assert told is not None
    assert len(told) <= len(request(NONCE)) <= MAX_BYTES


@in_virtual_time
async def test_a_flood_of_requests_is_answered_at_the_rate() -> None:
    network = Network()
    answers: list[bytes] = []
    responder = Responder("n2", KEY, Clock(), lambda: Answered(1, 1))
    port = await responder.bind(network.at("10.0.0.2"), "10.0.0.2")
    asker = await network.at("10.0.0.1").bind("10.0.0.1", 0, lambda content, _sender: answers.append(content))
    for _ in range(500):
        asker.send(request(NONCE), f"10.0.0.2:{port}")
    await asyncio.sleep(0.5)
    assert len(answers) == RATE
    await asyncio.sleep(1)
    asker.send(request(NONCE), f"10.0.0.2:{port}")
    await asyncio.sleep(0.5)
    assert len(answers) == RATE + 1
    responder.close()


def test_what_differs_by_more_than_a_twentieth_is_said() -> None:
    said = MachineReading(4, 100, 50, 1000, 500, 1.0)
    assert not differs(said, MachineReading(4, 100, 46, 1000, 540, 1.4))
    assert differs(said, MachineReading(4, 100, 44, 1000, 500, 1.0))
    assert differs(said, MachineReading(4, 100, 50, 1000, 440, 1.0))
    assert differs(said, MachineReading(4, 100, 50, 1000, 500, 9.0))
    assert differs(said, MachineReading(8, 100, 50, 1000, 500, 1.0))


class Scripted:
    """A bus of which the inbox delivers these batches, one list for each subscription, and then nothing more."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = [*scripts]

    def now_ms(self) -> int:
        return 0

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[Any]:
        async def batches(script: list[Any]) -> AsyncIterator[list[Any]]:
            for one in script:
                yield [one]
            await asyncio.Event().wait()

        async with aclosing(batches(self.scripts.pop(0) if interest.inbox and self.scripts else [])) as told:
            yield told


def test_who_attaches_anew_and_is_not_named_any_more_probes_no_more() -> None:
    silent = SessionFact(attachment=1, state="silent", how=None, since_ms=0, incarnation=1, pid=1, version="1", address="")
    word = signed("broker/b1", "broker/b1/session/node/n2", silent, to=("monitor/n1",))
    other = signed("broker/b1", "broker/b1/session/node/n3", silent, to=("monitor/n4",))
    later = signed("broker/b1", "broker/b1/session/node/n2", silent, to=("monitor/n1",), sequence=2)

    async def probing(*scripts: list[Any]) -> dict[str, EventId]:
        bus: Any = Scripted(*scripts)
        at = Datagrams(Network(), "10.0.0.1")
        prober = Prober("n1", bus=bus, datagrams=at, clock=Clock(), entropy=Entropy(1))
        running = asyncio.get_running_loop().create_task(prober.run())
        await asyncio.sleep(1)
        found = {node: target.cause for node, (target, _) in prober._probing.items()}
        running.cancel()
        await asyncio.wait({running})
        return found

    async def main() -> None:
        first, anew = Arrived(word, 1, live=True), Reattached("broker/b1", "s")
        assert await probing([first]) == {"n2": word.id}
        assert await probing([first, anew], [Arrived(other, 2, live=True)]) == {}
        again = await probing([first, anew], [Arrived(later, 2, live=True)])
        assert again == {"n2": later.id}, "it was heard meanwhile: this silence is a young one"

    run(main())

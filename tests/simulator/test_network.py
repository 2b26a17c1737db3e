"""Links between simulated machines: in order, held by a cut, closed by an end, and reset by a boot."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from dsmt.bus.memory.network import CAPACITY
from dsmt.errors import FailedError, TransportError
from dsmt.ports.network import How
from dsmt.simulator.engine import network
from dsmt.simulator.engine.errors import ProcessKilled
from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.engine.keys import link_public
from dsmt.simulator.engine.loop import current_loop
from dsmt.simulator.engine.network import BATCH, CONNECT_S, LATENCY_S, LOSS_S, RECOVERY_S, Hosts, SimNetwork
from dsmt.simulator.engine.rng import Stream
from tests.simulator.two_machines import PORT, SOON, Two, cut, heal, with_two

WORDS = tuple(str(n).encode() for n in range(3 * BATCH))


@with_two
async def test_what_is_sent_comes_in_order_after_the_latency_of_the_two(two: Two) -> None:
    began = current_loop().time()
    two.send(*WORDS)
    two.tell(*WORDS)
    await asyncio.sleep(SOON)
    assert tuple(two.words) == tuple(two.heard) == WORDS
    latency = two.net.latency(two.here, two.there)
    assert latency == two.net.latency(two.there, two.here)
    assert LATENCY_S[0] <= latency <= LATENCY_S[1]
    third = Host(current_loop(), "h3", "10.0.0.3", Stream(7), [])
    assert len({latency, two.net.latency(two.here, third), two.net.latency(third, two.there)}) == 3, (
        "each two have their own"
    )
    assert two.got[0][0] - began == pytest.approx(latency, abs=0.002)


@with_two
async def test_what_was_lost_comes_later_and_nothing_overtakes_it(two: Two) -> None:
    began = current_loop().time()
    with patch.object(network, "LOSS", 1.0):
        two.send(b"lost")
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    two.send(b"next")
    await asyncio.sleep(LOSS_S / 2)
    assert two.words == []
    await asyncio.sleep(LOSS_S)
    assert two.words == [b"lost", b"next"]
    assert two.got[0][0] - began >= LOSS_S


@with_two
async def test_what_has_left_arrives_whatever_becomes_of_its_sender(two: Two) -> None:
    two.send(b"paused")
    await asyncio.sleep(0)
    two.client.sim.pause()
    await asyncio.sleep(SOON)
    assert two.words == [b"paused"]
    two.client.sim.resume()
    two.send(b"dead")
    await asyncio.sleep(0)
    two.client.sim.kill()
    await asyncio.sleep(SOON)
    assert (two.words, two.ended) == ([b"paused", b"dead"], [How.PEER])


@with_two
async def test_no_more_waits_for_a_reader_than_a_link_takes_and_its_broker_is_told_when_there_is_room(two: Two) -> None:
    two.tell(*WORDS)
    await asyncio.sleep(LATENCY_S[0] / 2)
    two.tell(*WORDS)
    await asyncio.sleep(SOON)
    assert tuple(two.heard) == 2 * WORDS
    two.client.sim.pause()
    (peer,) = two.listener.links
    taken = 0
    while two.listener.send(peer, (b"x",)):
        taken += 1
    assert taken == CAPACITY
    await asyncio.sleep(SOON)
    assert two.roomy == []
    two.client.sim.resume()
    await asyncio.sleep(SOON)
    assert two.roomy == [peer]
    assert len(two.heard) == 2 * len(WORDS) + CAPACITY


@pytest.mark.parametrize("end", [0, 1])
def test_what_is_sent_during_a_cut_is_held_and_comes_in_order_after_it(end: int) -> None:
    @with_two
    async def scene(two: Two) -> None:
        cut(two.hosts[end])
        two.send(*WORDS[:2])
        two.tell(*WORDS[:2])
        await asyncio.sleep(60)
        assert (two.words, two.heard, two.ended, two.lost_at) == ([], [], [], None), "nobody is told of it"
        heal(two.hosts[end])
        two.send(WORDS[2])
        await asyncio.sleep(RECOVERY_S[0] / 2)
        assert two.words == []
        await asyncio.sleep(RECOVERY_S[1] + SOON)
        assert tuple(two.words) == WORDS[:3]
        assert tuple(two.heard) == WORDS[:2]

    scene()


@with_two
async def test_each_client_has_a_link_of_its_own_two_round_trips_after_it_came(two: Two) -> None:
    took: list[float] = []

    async def second(process: HostProcess) -> None:
        began = current_loop().time()
        link = await SimNetwork(two.fabric, process).connect(PORT, b"c" * 32, server_key=link_public(b"b" * 32))
        took.append(current_loop().time() - began)
        link.send((b"second",))

    two.here.start("second", second)
    await asyncio.sleep(SOON)
    assert 0 <= took[0] - 4 * two.net.latency(two.here, two.there) <= 0.001
    assert (two.words, two.ended, len(two.listener.links)) == ([b"second"], [How.PEER], 1)
    two.send(b"first")
    await asyncio.sleep(SOON)
    assert two.words == [b"second", b"first"]


@with_two
async def test_a_partition_is_between_two_machines_whichever_of_them_it_was_told_and_never_within_one(two: Two) -> None:
    here, there = two.hosts

    def apart() -> tuple[bool, ...]:
        return Hosts.apart(here, there), Hosts.apart(there, here), Hosts.apart(here, here), Hosts.apart(there, there)

    both, nobody = (True, True, False, False), (False, False, False, False)
    assert apart() == nobody
    for host in two.hosts:
        host.cut = True
        assert apart() == both
        host.cut = False
    here.side = 1
    assert apart() == both
    there.side = 1
    assert apart() == nobody, "they are on one side"
    for one, other in ((here, there), (there, here)):
        one.severed = {other.name}
        assert apart() == both
        one.severed = {"another"}
        assert apart() == nobody


@with_two
async def test_a_cut_of_both_is_over_when_both_are_there(two: Two) -> None:
    cut(two.here)
    cut(two.there)
    two.send(b"1")
    await asyncio.sleep(1)
    heal(two.here)
    await asyncio.sleep(5)
    assert two.words == []
    heal(two.there)
    await asyncio.sleep(RECOVERY_S[1] + SOON)
    assert two.words == [b"1"]


@with_two
async def test_a_process_that_ends_closes_its_links_and_frees_its_port(two: Two) -> None:
    two.client.sim.kill()
    await asyncio.sleep(SOON)
    assert two.ended == [How.PEER]
    two.broker.sim.kill()
    await asyncio.sleep(SOON)
    assert PORT not in two.fabric.listeners


@with_two
async def test_a_broker_that_ends_is_noticed_at_once(two: Two) -> None:
    two.broker.sim.kill()
    await asyncio.sleep(SOON)
    assert two.lost_at is not None


@with_two
async def test_a_machine_without_power_says_nothing_and_resets_its_links_when_it_has_booted(two: Two) -> None:
    two.there.power_off()
    two.send(b"into the dark")
    await asyncio.sleep(60)
    assert two.lost_at is None
    assert PORT not in two.fabric.listeners
    two.there.power_on()
    await asyncio.sleep(SOON)
    assert two.lost_at is not None
    assert two.words == []
    two.broker = two.there.start("broker", two.serve)
    await asyncio.sleep(SOON)
    assert PORT in two.fabric.listeners, "its port was free"


@with_two
async def test_what_a_broker_would_tidy_up_after_its_machine_has_lost_its_power_tells_nobody(two: Two) -> None:
    two.there.power_off()
    with pytest.raises(ProcessKilled):
        two.broker.sim.context.run(two.listener.vanish)
    await asyncio.sleep(60)
    assert two.lost_at is None


@with_two
async def test_a_client_without_power_is_open_at_its_broker_until_it_has_booted(two: Two) -> None:
    two.here.power_off()
    await asyncio.sleep(60)
    assert two.ended == []
    two.here.power_on()
    await asyncio.sleep(SOON)
    assert two.ended == [How.PEER]


@with_two
async def test_a_middlebox_ends_a_link_at_both_ends(two: Two) -> None:
    (wire,) = two.here.wires
    cut(two.here)
    two.send(b"held")
    await asyncio.sleep(SOON)
    two.here.cut = False
    wire.torn()
    await asyncio.sleep(SOON)
    assert (two.ended, two.words) == ([How.PEER], [])
    assert two.lost_at is not None
    assert not wire.needed
    wire.torn()


@with_two
async def test_a_middlebox_tells_nobody_of_a_machine_without_power(two: Two) -> None:
    (wire,) = two.here.wires
    two.there.power_off()
    wire.torn()
    await asyncio.sleep(SOON)
    assert two.lost_at is None


@with_two
async def test_links_that_are_closed_are_forgotten_and_those_that_are_open_are_not(two: Two) -> None:
    (kept,) = two.here.wires

    async def come_and_go(process: HostProcess) -> None:
        await SimNetwork(two.fabric, process).connect(PORT, b"c" * 32, server_key=link_public(b"b" * 32))

    with patch.object(network, "PRUNE_EACH", 5):
        for _ in range(20):
            two.here.start("guest", come_and_go)
            await asyncio.sleep(SOON)
    assert len(two.here.wires) <= 5
    assert kept in two.here.wires


@with_two
async def test_what_a_cut_holds_of_a_closed_link_is_not_forgotten(two: Two) -> None:
    cut(two.there)
    two.send(b"held")
    await asyncio.sleep(0)
    two.client.sim.kill()
    await asyncio.sleep(SOON)
    with patch.object(network, "PRUNE_EACH", 1):
        two.fabric.wire(two.broker, two.broker)
    heal(two.there)
    await asyncio.sleep(RECOVERY_S[1] + SOON)
    assert (two.words, two.ended) == ([b"held"], [How.PEER])


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ({"address": "10.0.0.2:7001"}, "link.refused"),
        ({"address": "10.0.0.9:7000"}, "link.timeout"),
        ({"secret": b"x" * 32}, "link.refused"),
        ({"server_key": b"x" * 32}, "link.stranger"),
        ({"there": "cut"}, "link.timeout"),
        ({"there": "filtered"}, "link.timeout"),
        ({"here": "filtered"}, "link.timeout"),
        ({"there": "off"}, "link.timeout"),
    ],
)
def test_who_cannot_be_connected_to_is_told_as_what_it_is(about: dict[str, str], code: str) -> None:
    @with_two
    async def scene(two: Two) -> None:
        for end, word in (("here", about.get("here")), ("there", about.get("there"))):
            if word == "off":
                getattr(two, end).power_off()
            elif word is not None:
                setattr(getattr(two, end), word, True)
        told = {"secret": b"c" * 32, "server_key": link_public(b"b" * 32)}
        told |= {key: value for key, value in about.items() if key in told}
        began, found = current_loop().time(), []

        async def try_it(process: HostProcess) -> None:
            with pytest.raises(TransportError) as refused:
                await SimNetwork(two.fabric, process).connect(about.get("address", PORT), **told)  # type: ignore[arg-type]
            found.append((refused.value.code, current_loop().time() - began))

        two.here.start("late", try_it)
        await asyncio.sleep(CONNECT_S + 1)
        ((word, took),) = found
        assert word == code
        assert took >= CONNECT_S if code == "link.timeout" else took <= SOON

    scene()


@with_two
async def test_who_comes_during_a_cut_is_connected_when_it_is_over(two: Two) -> None:
    cut(two.there)
    found = []

    async def late(process: HostProcess) -> None:
        found.append(await SimNetwork(two.fabric, process).connect(PORT, b"c" * 32, server_key=link_public(b"b" * 32)))
        await asyncio.sleep(3600)

    two.here.start("late", late)
    await asyncio.sleep(CONNECT_S / 2)
    assert not found
    heal(two.there)
    await asyncio.sleep(1)
    assert len(found) == 1


@with_two
async def test_a_port_is_its_process_s_until_that_ends(two: Two) -> None:
    codes, ports = [], []

    async def second(process: HostProcess) -> None:
        way = SimNetwork(two.fabric, process)
        with pytest.raises(FailedError) as refused:
            await way.listen(PORT, b"b" * 32, admit=lambda _: True, writable=lambda _: None)
        codes.append(refused.value.code)
        for _ in range(2):
            made = await way.listen("10.0.0.2:0", b"b" * 32, admit=lambda _: True, writable=lambda _: None)
            ports.append(made.address)

    two.there.start("second", second)
    await asyncio.sleep(SOON)
    assert codes == ["start.port_in_use"]
    assert len(set(ports)) == 2
    assert all(one.startswith("10.0.0.2:") and not one.endswith(":0") for one in ports)
    assert list(two.fabric.listeners) == [PORT], "it has ended"

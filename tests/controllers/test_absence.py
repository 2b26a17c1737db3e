"""What was good stays, though nobody says so for a while: no power, a lost disk and a late node, a clock that steps."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dsmt.event.status import Layer, State

from .build import Attentive, Realm, key, spec, web
from .fleet import Fleet, simulate
from .rollouts import refused

CHECKED = "ports: {http: auto}\nhealth: {http: {path: /}}\nupdate: {healthy_after: 2s, deadline: 60s}\n"
HOUR_S = 3600.0


async def _site_without_power(fleet: Fleet) -> None:
    for host in fleet.world.hosts.values():
        host.power_off()
    await asyncio.sleep(26 * HOUR_S)
    fleet.broker.boot()
    for member in (*fleet.controllers, fleet.operator):
        member.host.power_on()
        member.kept.start()
    for node in fleet.nodes:
        node.boot()


async def _disk_lost_and_a_late_node(fleet: Fleet) -> None:
    late = fleet.nodes[1]
    late.host.filtered = True
    fleet.world.reset(late.host)
    fleet.broker.host.power_off()
    fleet.broker.new_store(kept_birth=False)
    await asyncio.sleep(2)
    fleet.broker.boot()
    await asyncio.sleep(30)
    late.host.filtered = False


async def _clock_steps(fleet: Fleet) -> None:
    fleet.broker.host.clock.offset_s += 30 * HOUR_S
    await asyncio.sleep(5)
    fleet.operator.accept_clock("b1")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("happens", [_site_without_power, _disk_lost_and_a_late_node, _clock_steps])
def test_what_was_good_everywhere_is_not_rolled_back_when_words_are_missing(
    happens: Callable[[Fleet], Awaitable[None]],
) -> None:
    async def scenario(fleet: Fleet) -> None:
        def slots() -> list[tuple[int, int]]:
            found = sorted(fleet.view.services["web"].slots.items())
            return [(slot.fact.record.revision, refused(slot.fact.record)) for _, slot in found if slot.fact is not None]

        for component in (CHECKED, CHECKED + "env: {A: b}\n"):
            await asyncio.sleep(2)
            fleet.operator.apply(spec(web(3, component=component)), reason="another one")
            await fleet.until(lambda: fleet.running() == 3, 30)
            await asyncio.sleep(60)
        assert slots() == [(2, 0)] * 3
        await happens(fleet)
        for _ in range(24):
            await asyncio.sleep(5)
            known = fleet.view.services.get("web")
            assert known is None or {revision for revision, _ in slots()} <= {2}
        assert (slots(), fleet.running()) == ([(2, 0)] * 3, 3)

    simulate(scenario)


def tried(component: str = CHECKED) -> tuple[Realm, Attentive, str]:
    """A second revision of one instance is told to its node, which has said nothing of it yet."""
    realm = Realm("n1", "n2")
    controller = Attentive(realm)
    realm.apply(web(1, component=component))
    controller.watch(5)
    realm.health(key(), realm.slot().node or "", "ready")
    controller.watch(60)
    realm.apply(web(1, component=component + "env: {A: b}\n"))
    controller.look()
    assert realm.slot().revision == 2
    return realm, controller, realm.slot().node or ""


def test_that_nobody_says_anything_refuses_nothing() -> None:
    realm, controller, _ = tried()
    controller.watch(3600, step=10, obey=False)
    assert (realm.slot().revision, controller.overlooked()) == (2, [])


def test_a_program_that_runs_and_of_whose_health_nothing_is_known_is_not_refused() -> None:
    realm, controller, node = tried()
    realm.status(key(), node, State.RUNNING)
    controller.watch(3600, step=10, obey=False)
    assert realm.slot().revision == 2
    realm.health(key(), node, "unready")
    controller.watch(5, obey=False)
    assert (realm.slot().revision, refused(realm.slot())) == (1, 2)


def test_what_its_agent_was_told_late_has_the_deadline_from_then_on() -> None:
    realm, controller, node = tried()
    controller.watch(600, step=10, obey=False)  # the uplink of its site is down
    taken_ms = realm.now_ms
    realm.status(key(), node, State.RUNNING, taken_ms=taken_ms)
    realm.health(key(), node, "unready")
    controller.watch(58, obey=False)
    assert (realm.slot().revision, refused(realm.slot())) == (2, 0)
    realm.status(key(), node, State.INITIATED, taken_ms=taken_ms, attempt=2)
    controller.watch(5, obey=False)
    assert (realm.slot().revision, refused(realm.slot()), controller.overlooked()) == (1, 2, [])


@pytest.mark.parametrize("layer", [Layer.CONTAINER, Layer.AGENT])
def test_an_agent_that_is_not_up_has_the_deadline_from_when_that_was_said(layer: Layer) -> None:
    realm, controller, node = tried()
    controller.watch(600, step=10, obey=False)
    state = State.INSTALLING if layer is Layer.CONTAINER else State.INITIATED
    realm.status(key(), node, state, layer=layer)
    controller.watch(59, obey=False)
    assert realm.slot().revision == 2
    controller.watch(3, obey=False)
    assert (realm.slot().revision, controller.overlooked()) == (1, [])


def test_an_agent_that_is_up_and_says_nothing_of_its_program_refuses_nothing() -> None:
    realm, controller, node = tried()
    realm.status(key(), node, State.INSTALLED, layer=Layer.CONTAINER)
    realm.status(key(), node, State.RUNNING, layer=Layer.AGENT)
    controller.watch(3600, step=10, obey=False)
    assert realm.slot().revision == 2

"""Why: where an explanation begins, the sentence that answers, and whether it is whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest

from dsmt.errors import InputError, NotFoundError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.instance import Health, Status
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Slot
from dsmt.event.kinds.source import Started, TakenDown
from dsmt.event.reason import reason
from dsmt.event.status import Layer, State
from dsmt.event.topic import matches
from dsmt.operations.read.realm.sight import look_at
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.why.answers import _gone_back
from dsmt.operations.read.why.explaining import Explained, why
from dsmt.operations.words.sentences import sentence
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import local
from dsmt.ports.bus import Bus, Interest, Start
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from dsmt.view import PATTERNS, patterns_of
from tests.controllers.build import Realm, agent, key, web
from tests.controllers.test_rollback import BAD, SHORT, ready, running
from tests.operations.scripted import ScriptedBus, ScriptedSubscription, came, complete
from tests.operations.sights import sight
from tests.operations.test_revisions import rolled_back

EXITED = reason("start.exited", code="code 3", exit_code=3, time="3ms", target="web/app/0")
TRUST = TrustStore(RealmName(name="test", roots=(bytes(32),)))


class Recorded(ScriptedBus):
    """Its history has of a `down` what was asked for; all else is given to everybody."""

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[ScriptedSubscription]:
        async with super().subscribe(interest) as every:
            if interest.start is not Start.HISTORY or not interest.patterns[0].endswith("/down"):
                yield every
                return
            (pattern,) = interest.patterns
            said = [one for one in self._events.values() if matches(pattern, one.event.topic)]
            yield ScriptedSubscription([came(*said)], interest)


def explain(realm: Realm, target: str, depth: int = 64) -> Explained:
    events = [event for _, event in realm.rows]
    bus = Recorded([[*came(*events), complete(realm.now_ms)]], now_ms=realm.now_ms, events=events)
    return asyncio.run(why(cast("Bus", bus), TRUST, target, depth=depth)).explained


def test_what_is_asked_of_one_service_reads_of_services_only_that_one_unless_none_has_that_name() -> None:
    asked: list[tuple[str, ...]] = []

    class Asked(Recorded):
        @asynccontextmanager
        async def subscribe(self, interest: Interest) -> AsyncIterator[ScriptedSubscription]:
            asked.append(interest.patterns)
            async with super().subscribe(interest) as every:
                yield every

    realm = killed()
    events = [event for _, event in realm.rows]
    bus = Asked([[*came(*events), complete(realm.now_ms)]], now_ms=realm.now_ms, events=events)
    asyncio.run(why(cast("Bus", bus), TRUST, "web/app/0"))
    assert asked[0] == patterns_of(("web",))
    assert PATTERNS not in asked
    asked.clear()
    with pytest.raises(NotFoundError, match="there is no service wep"):
        asyncio.run(why(cast("Bus", bus), TRUST, "wep"))
    assert asked == [patterns_of(("wep",)), PATTERNS]
    asked.clear()
    asyncio.run(look_at(cast("Bus", bus), "no name"))
    assert asked == [PATTERNS]


def kinds(told: Explained) -> list[str]:
    return [
        f"{link.event['type'].removeprefix('dsmt.')} {link.event['data'].get('state', '')}".strip() for link in told.chain
    ]


def killed() -> Realm:
    """web/app/0 without a health check was killed a second ago and runs again; its health is of the run before."""
    realm = Realm("n1")
    spec = realm.apply(web(1))
    slot_of = "service/web/slot/app/0"
    placed = realm.say(
        "controller/c1", slot_of, Slot(node="n1", spec=str(spec.id), revision=1, desired="running"), cause=(spec.id,)
    )
    about = {"generation": 1, "attempt": 1, "emit_rate_s": 30.0}
    mouth, topic = agent(key(), "n1"), "service/web/status/app/0/n1/application"

    def status(state: State, cause: EventId, why: object = None) -> EventId:
        record = Status(
            state=state,
            layer="application",
            node="n1",
            since_ms=realm.now_ms,
            pid=7,
            reason=why,
            **about,  # type: ignore[arg-type]
        )
        return realm.say(mouth, topic, record, cause=(cause,)).id

    first = status(State.RUNNING, placed.id)
    realm.after(60)
    health = Health(
        health="unready", generation=1, check="none", evidence="it has failed", failures=0, since_ms=realm.now_ms
    )
    realm.say(mouth, "service/web/health/app/0/n1", health, cause=(first,))
    realm.after(0.001)
    killed_by = reason("run.signal", signal="SIGKILL", time="60s", target="web/app/0")
    failed = status(State.FAILED, first, killed_by)
    realm.after(0.001)
    status(State.RUNNING, failed)
    return realm.after(1)


def test_the_death_of_an_instance_without_a_health_check_is_named_with_its_restart() -> None:
    told = explain(killed(), "web/app/0")
    assert kinds(told) == ["status running", "status failed", "status running", "slot", "service.spec"]
    assert told.says.startswith("web/app/0 has been running on n1 again since ")
    assert told.says.endswith(" and is not ready: killed by SIGKILL after 60s, not by dsmt; dsmt restarted it")
    assert (told.complete, told.missing, told.cut) == (True, [], [])


def test_what_runs_instead_of_a_refused_revision_is_not_told_to_have_failed() -> None:
    realm = rolled_back()
    realm.obey()
    said = "r2 was refused (exited with 1 0.1 s after start, before it was ready), and r1 runs instead"
    assert explain(realm, "web/app/0").says.endswith(f": {said}")
    assert explain(realm, "web").says == f"web: 3 of 3 ready; {said}"
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, reason=reason("run.signal", signal="SIGKILL", time="1 s"))
    assert "refused" not in explain(realm, "web/app/0").says


def test_a_refused_revision_of_which_nothing_has_ended_is_not_why_its_service_is_as_it_is() -> None:
    realm, controller = running(1)
    realm.apply(web(1, component=SHORT + BAD))
    controller.watch(40)
    ready(realm, 0)
    assert realm.slot().revision == 1
    message = "r2 failed (web/app/0 was not ready within 30 s); back on r1"
    assert explain(realm, "web").says == f"web: 1 of 1 ready; r2 was refused, and r1 runs instead: {message}"
    assert explain(realm, "web/app/0").says.endswith(f": r2 was refused, and r1 runs instead: {message}")


def test_where_a_component_has_what_another_refused_nothing_is_told_to_run_instead_of_it() -> None:
    realm = rolled_back()
    failed = realm.status(key(0), realm.slot(0).node or "", State.FAILED, generation=1, reason=EXITED).event
    seen = sight(realm)
    row = instances(seen, Target("web"))[0]
    assert _gone_back(seen, row, failed).endswith("and r1 runs instead")
    assert _gone_back(seen, msgspec.structs.replace(row, revision=2), failed) == ""


@pytest.mark.parametrize(("depth", "events"), [(0, 1), (1, 2), (3, 4)])
def test_what_depth_cuts_is_named_and_the_chain_is_not_complete(depth: int, events: int) -> None:
    told = explain(killed(), "web/app/0", depth)
    assert (len(told.chain), told.complete, told.missing) == (events, False, [])
    assert told.cut == told.chain[-1].because


def test_what_the_history_has_lost_is_missing_and_not_cut() -> None:
    realm = killed()
    realm.rows = [(row, event) for row, event in realm.rows if event.event.type != "dsmt.service.spec"]
    told = explain(realm, "web/app/0")
    assert (told.complete, told.cut, len(told.missing)) == (False, [], 1)


def test_a_service_is_answered_with_its_sick_instance_or_with_who_wanted_it() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle()
    assert explain(realm, "web").says == 'web: 2 of 2 ready, because web is r1, applied by alice: "a test"'
    realm.hold(key(1))
    realm.settle()
    told = explain(realm, "web").says
    assert told.startswith("web: 1 of 2 ready; web/app/1 has been stopped on n")


def test_a_node_that_was_dead_is_told_in_the_past_and_what_began_with_its_own_node_since_by_that() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    node = realm.slot(0).node or ""
    realm.close(node)
    realm.verdict(node)
    realm.settle()
    there = realm.slot(0).node or ""
    assert f", because node/{node} is dead: " in explain(realm, "web/app/0").says
    realm.attach(node)
    realm.after(10)
    assert f", because node/{node} was dead: " in explain(realm, "web/app/0").says
    assert f", because node/{node} was dead: " in explain(realm, "web").says
    realm.session(f"node/{there}", "open", incarnation=realm.now_ms)
    assert f", because node/{node} was dead: " in explain(realm, "web/app/0").says, "its manager alone was started anew"
    realm.after(1)
    realm.status(key(0), there, State.RUNNING)
    assert explain(realm, "web/app/0").says.endswith(f", because {there} has been started anew")
    assert explain(realm, "web").says.endswith(f", because {there} has been started anew")


def test_what_an_operator_took_down_is_told_of_its_node_and_of_what_runs_there_again() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    first = realm.now_ms
    realm.after(5).say("operator/root", "node/n1/down", TakenDown(by="root", reason="disk"))
    at = local(realm.now_ms)
    realm.after(5).session("node/n1", "open", incarnation=realm.now_ms)
    realm.after(1).status(key(0), "n1", State.RUNNING)
    ending = f'because n1 has been started anew; root took it down at {at}: "disk"'
    for target in ("web/app/0", "web"):
        told = explain(realm, target)
        assert told.says.endswith(ending)
        assert 'node/n1 is taken down, says root: "disk"' in [link.says for link in told.chain]
    assert explain(realm, "node/n1").says.endswith(f'; root took it down at {at}: "disk"')
    realm.after(5).session("node/n1", "open", incarnation=realm.now_ms)
    realm._sequences.pop("node/n1", None)  # a start is the first event of its incarnation
    began = Started(previous_incarnation=first + 11_000, previous_sequence=9, version="0.1")
    realm.say("node/n1", "source/node/n1", began, incarnation=realm.now_ms)
    realm.after(1).status(key(0), "n1", State.RUNNING)
    for target in ("web/app/0", "node/n1"):
        assert "took it down" not in explain(realm, target).says, "it was started since, and died of something else"


def test_a_drain_that_is_over_is_told_in_the_past() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    node = realm.slot(0).node or ""
    realm.control_node(node, "draining")
    realm.settle(seconds=60)
    assert f", because node/{node} drains, says alice" in explain(realm, "web/app/0").says
    realm.control_node(node, "active")
    assert f", because node/{node} was drained by alice" in explain(realm, "web/app/0").says


@pytest.mark.parametrize("ended", [True, False])
def test_an_instance_that_is_wanted_no_more_is_answered_with_who_wanted_fewer(ended: bool) -> None:
    """Its uninstall may hang for long; afterwards it is not listed any more, but who asks for it by name is answered."""
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle()
    realm.after(5).apply(web(1))
    realm.settle(obey=ended)
    told = explain(realm, "web/app/1")
    assert ("gone" in told.says) == ended
    assert "alice" in told.says, "who said so"
    assert "service.spec" in kinds(told)


def test_what_runs_on_after_its_service_was_removed_is_answered_with_who_removed_it() -> None:
    """As on the other side of a partition: the removal hides the slot's fact, and its node calls it an orphan."""
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    realm.say("operator/alice", "tombstone/service/web", Tombstone(by="operator/alice", reason="not needed"))
    for layer in (Layer.CONTAINER, Layer.APPLICATION):
        state = State.RUNNING if layer is Layer.APPLICATION else State.INSTALLED
        realm.status(key(0), "n1", state, generation=1, layer=layer, orphan=True)
    told = explain(realm, "web/app/0")
    assert told.says.endswith(', because service/web has ended, says alice: "not needed"')
    assert "tombstone" in kinds(told)


def test_nodes_brokers_and_controllers_are_answered() -> None:
    realm = Realm()
    for source in ("broker/b1", "controller/c1", "node/n1"):
        realm.say(source, f"source/{source}", Started(previous_incarnation=4, previous_sequence=9, version="0.1"))
    for node in ("n1", "n2"):
        realm.node(node)
    realm.session("controller/c1", "open")
    realm.say("controller/c1", "controller/c1/state", ControllerState(version="0.1", ruleset=6, pid=5, decisions=1))
    assert " has been up since " in explain(realm, "controller/c1").says
    assert kinds(explain(realm, "controller/c1")) == ["session open", "controller.state", "source.started"]
    told = explain(realm, "broker/b1")
    assert told.says.startswith("broker/b1 has been up since ")
    assert told.says.endswith(", version 0.1; it had run before")
    assert kinds(told) == ["source.started"]
    assert explain(realm, "node/n1").says.startswith("node/n1 is alive, connected to b1 since ")
    assert kinds(explain(realm, "node/n1")) == ["session open", "source.started"]
    realm.session("monitor/n1", "open")
    realm.session("node/n1", "silent")
    assert explain(realm, "node/n1").says.startswith("node/n1 is alive, though its manager is silent at b1 since ")
    realm.session("controller/c1", "closed", how="peer")
    assert explain(realm, "controller/c1").says.endswith(": is disconnected from b1 (the peer closed it)")
    realm.control_node("n2", "draining")
    assert explain(realm, "node/n2").says.endswith('; it is drained by alice: "kernel 6.8"')
    realm.close("n1")
    realm.verdict("n1")
    assert ": as a test says" in explain(realm, "node/n1").says
    assert kinds(explain(realm, "node/n1")) == ["node.verdict dead"], "when it began says nothing of its death"
    assert "it was dead" not in explain(realm, "node/n1").says
    realm.after(5).attach("n1")
    told = explain(realm, "node/n1").says
    assert told.startswith("node/n1 is alive, connected to b1 since ")
    assert told.endswith(": as a test says")
    assert "; it was dead from " in told


@pytest.mark.parametrize(
    ("target", "code"),
    [("broker/b9", "broker.unknown"), ("controller/c9", "controller.unknown"), ("node/n9", "node.unknown"),
     ("nosuch", "service.unknown"), ("node/n1#1-99", "event.unknown")],
)  # fmt: skip
def test_what_is_not_there_is_said_so(target: str, code: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        explain(killed(), target)
    assert caught.value.code == code
    assert caught.value.next


def test_an_event_is_explained_by_its_id() -> None:
    realm = killed()
    (failed,) = [event for _, event in realm.rows if event.event.data.get("state") == "failed"]
    told = explain(realm, str(failed.id))
    assert told.says == told.chain[0].says
    assert "killed by SIGKILL" in told.says
    with pytest.raises(InputError):
        explain(realm, "node/n1#x")


def test_of_what_was_refused_in_part_the_sentence_on_its_service_tells_what_each_component_runs() -> None:
    realm = rolled_back("  job:\n    run: ./job\n")
    realm.obey()
    said = "job runs r2; r2 was refused for app, which runs r1: r2 failed ("
    assert f"ready; {said}" in explain(realm, "web").says
    assert "refused" not in explain(realm, "web/job/0").says
    assert "and r1 runs instead" in explain(realm, "web/app").says


def test_what_is_not_ready_for_a_check_that_fails_is_so_for_that_whatever_it_was_started_for() -> None:
    realm = Realm("n1")
    realm.apply(web(1, component="health: {exec: [redis-cli, ping]}\n"))
    realm.settle(seconds=1)
    realm.control(key(), restart=realm.now_ms)
    realm.settle(seconds=1)
    why = reason("health.not_ready", check="exec", n=3, result="redis-cli: no answer within 2 s", target="web/app/0")
    failing = Health(
        health="unready",
        generation=realm.generation(),
        check="exec",
        evidence="",
        failures=3,
        since_ms=realm.now_ms,
        reason=why,
    )
    realm.say(agent(key(), "n1"), "service/web/health/app/0/n1", failing)
    said = " and is not ready: exec failed 3 times: redis-cli: no answer within 2 s"
    assert explain(realm, "web/app/0").says.endswith(said)
    assert explain(realm, "web").says.endswith(said)
    realm.health(key(), "n1", "ready")
    assert explain(realm, "web/app/0").says.endswith(
        ' and is ready, because alice asked for it to be started anew: "a test"'
    )


def test_a_revision_that_left_a_run_as_it_was_is_told_and_not_as_the_cause_of_its_beginning() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    began_ms = realm.now_ms
    realm.after(5)
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.status(key(), "n1", State.RUNNING, since_ms=began_ms)
    said = explain(realm, "web/app/0").says
    assert said.startswith(f"web/app/0 has been running on n1 since {local(began_ms)} (")
    assert said.endswith('; web is r2, applied by alice: "a test"')
    assert explain(realm, "web/app/1").says.endswith(', because web is r2, applied by alice: "a test"')


@pytest.mark.parametrize(("to", "where"), [("n2", " to n2"), ("", "")])
def test_what_is_moved_is_so_for_that_and_not_for_a_start_before(to: str, where: str) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.control(key(), restart=realm.now_ms)
    realm.settle(seconds=1)
    asked = {"restart": realm.now_ms, "move": to, "move_number": realm.now_ms + 5_000, "leave": realm.slot().node or ""}
    realm.after(5)
    word = realm.control(key(), **asked).event
    realm.settle(seconds=1)
    assert sentence(word) == f'web/app/0 is to move{where}, says alice: "a test"'
    assert explain(realm, "web/app/0").says.endswith(f', because alice asked for it to move{where}: "a test"')
    assert explain(realm, "web").says.endswith(f', because alice asked for web/app/0 to move{where}: "a test"')

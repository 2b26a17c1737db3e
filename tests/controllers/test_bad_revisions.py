"""A revision that is bad goes back to the last good one, and is not tried again by itself."""

import msgspec
import pytest

from dsmt.event.kinds.slot import Good
from dsmt.event.reason import reason
from dsmt.event.status import State

from .build import Realm, agent, key, web
from .rollouts import refused, revisions, running

POLICY = "restart: {escalate: [restart: 3]}\n"


def failed_rollout(*, ready: int = 0) -> Realm:
    """Revision 2 reached `ready` instances, and the next one parked."""
    realm = running(component=POLICY)
    realm.apply(web(4, component=POLICY + "env: {A: b}"))
    for _ in range(ready):
        realm.step()
        realm.obey()
        realm.after(11)
    realm.step()
    why = reason("start.exited", exit_code=1, time="0.1 s", target="web/app/0")
    realm.status(key(ready), realm.slot(ready).node, State.FAILED, parked=True, reason=why)
    return realm


def test_a_revision_whose_instance_parks_is_rolled_back() -> None:
    realm = failed_rollout()
    old = realm.slot(1).spec
    (intent,) = realm.step()
    slot = realm.slot(0)
    assert (slot.spec, slot.revision, slot.reason.code) == (old, 1, "rollout.rolled_back")
    assert "exited with 1" in slot.reason.message
    assert "r2" in intent.because
    assert realm.view.services["web"].spec.id in intent.cause


def test_what_is_said_of_a_refusal_announces_no_next_try_of_what_is_parked() -> None:
    realm = failed_rollout()
    why = reason("run.flapping", n=3, time="0.3s", last="exited", pause="10m", cause="its spec or its node")
    why = msgspec.structs.replace(why, message=f"{why.message}; the copy before runs beside it")
    realm.status(key(0), realm.slot(0).node, State.FAILED, parked=True, reason=why)
    realm.step()
    failed = "failed 3 times in 0.3s, the last time: exited; the copy before runs beside it"
    assert realm.slot(0).reason.message == f"r2 failed ({failed}); back on r1"


def test_what_was_rolled_back_is_not_tried_again() -> None:
    realm = failed_rollout()
    realm.settle(seconds=5)
    assert revisions(realm) == [1, 1, 1, 1]
    assert realm.after(3600).settle(seconds=5) == []


REFUSED = POLICY + "env: {A: b}"


@pytest.mark.parametrize("counts", [(2,), (6,), (6, 3), (2, 4), (0, 4)])
def test_what_was_rolled_back_is_not_tried_again_when_only_the_number_of_instances_changes(counts: tuple[int, ...]) -> None:
    realm = failed_rollout()
    realm.settle(seconds=5)
    good = realm.slot(0).spec
    for count in counts:
        realm.after(100).apply(web(count, component=REFUSED))
        realm.settle(seconds=5)
        assert [realm.slot(index).spec for index in range(count)] == [good] * count
    assert realm.view.services["web"].refusal("app") is not None


@pytest.mark.parametrize("again", [REFUSED, REFUSED + "\nstop: {grace: 3s}"], ids=["as it is", "changed"])
def test_what_was_rolled_back_is_tried_again_when_it_is_applied_again_as_it_is_or_changed(again: str) -> None:
    realm = failed_rollout()
    realm.settle(seconds=5)
    realm.after(100).apply(web(2, component=REFUSED))
    realm.settle(seconds=5)
    realm.after(100).apply(web(2, component=again))
    realm.settle(seconds=5)
    assert [realm.slot(index).revision for index in range(2)] == [4, 4]
    assert refused(realm.slot(0)) == 0


def test_scaling_what_was_good_is_nothing_to_roll_back() -> None:
    realm = lagging()
    realm.apply(web(4, component=KEPT + "env: {A: b}"))
    for _ in range(10):
        realm.step()
        if realm.slot(0).revision == 3:
            break
        realm.obey()
        realm.after(3)
    good = Good(spec=realm.slot(0).former.spec, revision=2)
    assert (realm.slot(0).revision, realm.slot(0).good) == (3, Good(spec=realm.slot(0).spec, revision=3))
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, good=good)
    realm.after(30)
    realm.settle(seconds=5)
    assert (realm.slot(0).revision, realm.view.services["web"].refusal("app")) == (3, None)


@pytest.mark.parametrize("fewer", [0, 1])
def test_what_was_good_in_a_slot_is_not_taken_back_when_it_is_wanted_again_days_later(fewer: int) -> None:
    realm = running(3, component=POLICY)
    second = POLICY + "env: {A: b}"
    realm.apply(web(3, component=second))
    realm.settle(seconds=5)
    scaled = realm.after(3600).apply(web(fewer, component=second))
    realm.settle(seconds=5)
    assert (realm.slot(2).desired, realm.slot(2).good) == ("gone", Good(spec=str(scaled.id), revision=3))
    for _ in range(25):  # what their agents said dies of itself within a day
        realm.after(3600)
        for number in range(1, 5):
            realm.node(f"n{number}")
        for index in range(fewer):
            realm.status(key(index), realm.slot(index).node or "", since_ms=realm.now_ms - 3_600_000)
    realm.apply(web(3, component=second))
    realm.step()
    realm.status(key(2), realm.slot(2).node or "", State.FAILED, parked=True)
    realm.settle(seconds=5)
    assert 1 not in revisions(realm)


def test_what_was_rolled_back_is_not_tried_again_when_another_operator_signs_it_anew() -> None:
    realm = failed_rollout()
    realm.settle(seconds=5)
    held = realm.view.winner("service/web/spec")
    realm.say("operator/bob", "service/web/spec", {**held.event.data, "same": [str(held.id)]})
    assert realm.after(100).settle(seconds=5) == []
    assert revisions(realm) == [1, 1, 1, 1]


def test_instances_that_were_ready_with_the_bad_revision_go_back_one_at_a_time() -> None:
    realm = failed_rollout(ready=2)
    assert revisions(realm) == [2, 2, 2, 1]
    realm.step()
    assert revisions(realm) == [2, 2, 1, 1]
    assert realm.step() == []
    realm.obey()
    realm.after(10).step()
    assert revisions(realm) == [1, 2, 1, 1]
    realm.settle(seconds=5)
    assert revisions(realm) == [1, 1, 1, 1]


def test_a_slot_that_moves_after_a_rollback_takes_the_good_revision() -> None:
    realm = failed_rollout()
    realm.settle(seconds=5)
    for i in range(4):
        realm.close(realm.slot(i).node) if i == 0 else None
    realm.after(100)
    realm.settle(seconds=5)
    assert revisions(realm) == [1, 1, 1, 1]


def test_a_new_revision_after_a_rollback_is_tried() -> None:
    realm = failed_rollout()
    realm.settle(seconds=5)
    realm.apply(web(4, component=POLICY + "env: {A: c}"))
    realm.settle(seconds=5)
    assert revisions(realm) == [3, 3, 3, 3]


def test_a_revision_that_misses_its_deadline_is_rolled_back() -> None:
    realm = running(component="update: {deadline: 30s}\n")
    realm.apply(web(4, component="update: {deadline: 30s}\nenv: {A: b}"))
    realm.step()
    assert realm.after(100).step() == [], "its agent has said nothing of it"
    realm = running(component="update: {deadline: 30s}\n")
    realm.apply(web(4, component="update: {deadline: 30s}\nenv: {A: b}"))
    realm.step()
    index = revisions(realm).index(2)
    realm.status(key(index), realm.slot(index).node or "", State.INSTANTIATED)
    assert realm.decide().wake_ms == realm.now_ms + 30_000
    assert realm.after(29.9).step() == []
    realm.after(0.1).step()
    assert revisions(realm) == [1, 1, 1, 1]
    assert "not ready within 30 s" in realm.slot(0).reason.message


def test_the_only_instance_goes_back_to_the_spec_before() -> None:
    realm = running(1, component=POLICY)
    first = realm.slot(0).spec
    realm.apply(web(1, component=POLICY + "env: {A: b}"))
    realm.step()
    realm.status(key(0), realm.slot(0).node, State.FAILED, parked=True)
    realm.step()
    assert (realm.slot(0).spec, realm.slot(0).revision) == (first, 1)
    assert realm.settle(seconds=5) == []


def test_an_instance_that_parks_long_after_is_not_rolled_back() -> None:
    realm = running(1, component=POLICY)
    realm.apply(web(1, component=POLICY + "env: {A: b}"))
    realm.settle(seconds=5)
    realm.after(3600)
    good = Good(spec=realm.slot(0).spec, revision=2)
    realm.status(key(0), realm.slot(0).node, State.FAILED, parked=True, good=good)
    assert realm.step() == []


KEPT = "update: {healthy_after: 2s, deadline: 20s}\ndata: true\n"


def lagging() -> Realm:
    """Revision 2 was good for long in two slots; the third is pinned to a dead node, and still has the first."""
    realm = running(3, component=KEPT)
    realm.close(realm.slot(2).node or "")
    realm.settle(seconds=1)
    realm.apply(web(3, component=KEPT + "env: {A: b}"))
    realm.settle(seconds=1)
    assert revisions(realm.after(300)) == [2, 2, 1]
    return realm


@pytest.mark.parametrize("parked", [False, True])
def test_what_was_good_is_not_taken_back_for_a_failure_long_after_though_a_slot_still_lags(parked: bool) -> None:
    realm = lagging()
    if parked:
        realm.control(key(0), restart=1)
        realm.step()
    good = Good(spec=realm.slot(0).spec, revision=2)
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, parked=parked, good=good)
    assert realm.step() == []
    assert realm.after(60).step() == []
    assert revisions(realm) == [2, 2, 1]


def test_what_was_ready_for_too_short_to_be_good_is_rolled_back_when_it_misses_its_deadline() -> None:
    realm = running(component="update: {deadline: 30s}\n")
    realm.apply(web(4, component="update: {deadline: 30s}\nenv: {A: b}"))
    realm.step()
    realm.obey()
    realm.after(5)
    realm.status(key(0), realm.slot(0).node or "", State.FAILED)
    realm.after(26).step()
    assert revisions(realm) == [1, 1, 1, 1]


def test_the_first_revision_has_nothing_to_go_back_to() -> None:
    realm = Realm("n1")
    realm.apply(web(1, component=POLICY))
    realm.step()
    realm.status(key(0), "n1", State.FAILED, parked=True)
    assert realm.after(600).step() == []


def test_a_fix_to_a_parked_instance_is_tried_and_never_goes_back_to_what_never_worked() -> None:
    realm = Realm("n1")
    realm.apply(web(1, component=POLICY))
    realm.step()
    realm.status(key(0), "n1", State.FAILED, parked=True)
    realm.after(60).apply(web(1, component=POLICY + "env: {A: b}"))
    realm.step()
    assert revisions(realm) == [2]
    assert realm.slot(0).good is None
    realm.status(key(0), "n1", State.INITIATED, parked=True)
    assert realm.after(0.036).step() == []
    realm.status(key(0), "n1", State.FAILED, parked=True)
    assert realm.after(600).step() == []
    assert revisions(realm) == [2], "r1 never was ready: there is nothing to go back to"
    realm.apply(web(1, component=POLICY + "env: {A: c}"))
    realm.settle(seconds=5)
    assert revisions(realm) == [3]


def test_what_is_said_of_a_parking_before_does_not_condemn_the_next_revision() -> None:
    realm = running(1, component=POLICY)
    realm.apply(web(1, component=POLICY + "env: {A: b}"))
    realm.step()
    realm.status(key(0), realm.slot(0).node or "", State.INITIATED, parked=True)
    assert realm.step() == [], "only a failure is parked"


def test_it_goes_back_over_revisions_that_never_were_ready_to_the_last_good_one() -> None:
    realm = running(1, component=POLICY)
    first = realm.slot(0).spec
    for number in ("b", "c"):
        realm.apply(web(1, component=POLICY + f"update: {{rollback: false}}\nenv: {{A: {number}}}"))
        realm.step()
        realm.status(key(0), realm.slot(0).node or "", State.FAILED, parked=True)
        assert realm.after(1).step() == []
    realm.apply(web(1, component=POLICY + "env: {A: d}"))
    realm.step()
    assert revisions(realm) == [4]
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, parked=True)
    realm.step()
    assert (realm.slot(0).spec, realm.slot(0).revision) == (first, 1)


def test_of_what_was_good_in_several_slots_the_newest_is_gone_back_to_by_all() -> None:
    realm = running(2)
    realm.apply(web(2, component="env: {A: b}"))
    realm.step()
    realm.obey()
    realm.after(11).apply(web(2, component="env: {A: c}"))
    realm.step()
    assert sorted(revisions(realm)) == [1, 3]
    tried = revisions(realm).index(3)
    realm.status(key(tried), realm.slot(tried).node, State.FAILED, parked=True)
    realm.settle(seconds=5)
    assert revisions(realm) == [2, 2]


def test_what_an_agent_says_was_good_is_gone_back_to_though_it_failed_since() -> None:
    realm = Realm("n1")
    applied = realm.apply(web(1, component=POLICY))
    realm.step()
    realm.status(key(0), "n1", State.FAILED, parked=True, good=Good(spec=str(applied.id), revision=1))
    realm.after(60).apply(web(1, component=POLICY + "env: {A: b}"))
    realm.step()
    assert realm.slot(0).good == Good(spec=str(applied.id), revision=1)
    realm.status(key(0), "n1", State.FAILED, parked=True)
    realm.step()
    assert revisions(realm) == [1]


MADE_UP = Good(spec="operator/zzz#1-1", revision=1)


def test_a_revision_that_no_fact_of_the_slot_names_is_not_gone_back_to_whatever_an_agent_says_of_it() -> None:
    realm = running(3, component=POLICY)
    first = realm.slot(0).spec
    realm.apply(web(3, component=POLICY + "env: {A: b}"))
    realm.step()
    realm.status(key(0), realm.slot(0).node or "", State.FAILED, parked=True, good=MADE_UP)
    realm.step()
    realm.status(key(0), realm.slot(0).node or "", State.RUNNING, good=MADE_UP)
    realm.settle(seconds=5)
    assert {realm.slot(index).spec for index in range(3)} == {first}
    assert realm.slot(0).good == Good(spec=first, revision=1)


def test_with_nothing_good_but_what_an_agent_made_up_a_revision_stays() -> None:
    realm = Realm("n1")
    realm.apply(web(1, component=POLICY))
    realm.step()
    realm.status(key(0), "n1", State.FAILED, parked=True, good=MADE_UP)
    realm.after(60).apply(web(1, component=POLICY + "env: {A: b}"))
    realm.step()
    realm.status(key(0), "n1", State.FAILED, parked=True, good=MADE_UP)
    assert realm.after(600).step() == []
    assert (revisions(realm), realm.slot(0).good) == ([2], None)


def test_what_became_good_only_when_the_next_revision_had_been_decided_is_gone_back_to() -> None:
    realm = Realm("n1")
    first = realm.apply(web(1, component=POLICY))
    realm.step()
    realm.obey()
    realm.after(1).apply(web(1, component=POLICY + "env: {A: b}"))
    realm.step()
    assert realm.slot(0).good is None, "r1 was ready for a second only"
    assert realm.slot(0).former == Good(spec=str(first.id), revision=1)
    realm.status(key(0), "n1", State.FAILED, parked=True, good=Good(spec=str(first.id), revision=1))
    realm.step()
    assert (realm.slot(0).spec, revisions(realm)) == (str(first.id), [1])


@pytest.mark.parametrize("ends", ["by order", "with its session"])
def test_the_time_in_which_its_machine_was_down_counts_against_no_revision(ends: str) -> None:
    policy = "update: {deadline: 60s, healthy_after: 5s}\n"
    realm = running(1, component=policy)
    realm.apply(web(1, component=policy + "env: {A: b}"))
    realm.step()
    node = realm.slot().node or ""
    realm.session(agent(key(), node), "open")
    realm.status(key(), node, State.INSTANTIATED, taken_ms=realm.now_ms)
    realm.after(2)
    if ends == "by order":
        realm.status(key(), node, State.STOPPED, taken_ms=realm.now_ms - 2000)
    else:
        realm.session(agent(key(), node), "closed", how="peer")
    for _ in range(3):
        assert realm.after(100).step() == []
    realm.session(agent(key(), node), "open", attachment=2)
    realm.status(key(), node, State.INSTANTIATED, taken_ms=realm.now_ms)
    assert realm.after(59).step() == []
    realm.after(60).step()
    assert refused(realm.slot()) == 2

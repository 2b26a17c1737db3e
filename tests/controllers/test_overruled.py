"""What stands after a partition is told by its event: the other side gave its number to another one (A18, E2).

Each side of a partition has said an r2. The one that was overruled is that of the side with the nodes.
"""

import pytest

from dsmt.event.kinds.service import SpecFact
from dsmt.event.reason import reason
from dsmt.event.status import State
from dsmt.operations.read.rows.revisions import refused

from .build import Realm, key, spec, web
from .rollouts import running

POLICY = "restart: {escalate: [restart: 3]}\n"
GOOD, BAD = POLICY + "env: {A: good}", POLICY + "env: {A: bad}"


def stands(realm: Realm) -> str:
    held = realm.view.services["web"].spec
    assert held is not None
    return str(held.id)


def implemented(realm: Realm) -> set[str]:
    return {realm.slot(index).spec for index in range(4)}


def met(overruled: str, standing: str) -> tuple[Realm, str, str]:
    """A realm whose sides meet, the id of the r2 that was good or refused where the nodes are, and of that which stands."""
    realm = running(component=POLICY)
    early_ms = realm.now_ms
    realm.after(1).apply(web(4, component=overruled))
    lost = stands(realm)
    live(realm, 200, bad=lost if overruled == BAD else "")
    record = SpecFact(spec=spec(web(4, component=standing)), by="bob", reason="")
    realm.say("operator/bob", "service/web/spec", record, version=2, time_ms=early_ms)
    assert stands(realm) != lost
    return realm, lost, stands(realm)


def live(realm: Realm, seconds: float, *, bad: str = "") -> None:
    """Time passes; each instance that is to run what is bad is parked."""
    until_ms = realm.now_ms + 1000 * seconds
    while realm.now_ms < until_ms:
        realm.step()
        if not bad:
            realm.obey()
        for index in range(4):
            if realm.slot(index).spec == bad:
                why = reason("start.exited", exit_code=1, time="0.1 s", target=str(key(index)))
                realm.status(key(index), realm.slot(index).node, State.FAILED, parked=True, reason=why)
        realm.after(5)


def test_what_stands_is_not_good_because_another_one_of_its_number_was_and_is_rolled_back_to_that() -> None:
    realm, good, bad = met(GOOD, BAD)
    assert implemented(realm) == {good}
    live(realm, 200, bad=bad)
    assert implemented(realm) == {good}
    entry = realm.view.services["web"]
    denied = refused(entry)
    assert denied is not None
    assert (denied.revision, denied.in_part, denied.overruled) == (2, False, True)
    assert denied.reason is not None
    assert denied.reason.message.endswith("back on r2, which it overruled")


def test_a_revision_that_only_scales_what_stands_is_not_good_for_what_was_overruled_either() -> None:
    realm, good, bad = met(GOOD, BAD)
    realm.apply(web(4, component=BAD).replace("instances: 4", "instances: 5"))
    assert bad in realm.view.services["web"].spec.record.same
    scaled = stands(realm)
    live(realm, 300, bad=scaled)
    assert implemented(realm) == {good}


def test_what_stands_is_tried_though_another_one_of_its_number_was_refused() -> None:
    realm, bad, good = met(BAD, GOOD)
    said = [slot.refuses.spec for slot in map(realm.slot, range(4)) if slot.refuses is not None]
    assert set(said) == {bad}
    assert refused(realm.view.services["web"]) is None
    live(realm, 200)
    assert implemented(realm) == {good}


@pytest.mark.parametrize("instances", [4, 5])
def test_what_only_scales_what_was_refused_stays_refused(instances: int) -> None:
    realm = running(component=POLICY)
    realm.after(1).apply(web(4, component=BAD))
    before, bad = realm.slot().spec, stands(realm)
    live(realm, 200, bad=bad)
    assert implemented(realm) == {before}
    realm.apply(web(instances, component=BAD))
    assert (refused(realm.view.services["web"]) is None) == (instances == 4)

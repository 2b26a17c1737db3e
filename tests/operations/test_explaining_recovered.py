"""Why: what has failed and is well again is told as that, of an instance and of its service."""

import pytest

from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import Health, Status
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import Reason, reason
from dsmt.event.status import State
from tests.controllers.build import Realm, agent, key, web
from tests.operations.test_explaining import explain

KILLED = reason("run.signal", signal="SIGKILL", time="60s", target="web/app/0")
UNCONFIGURED = reason("install.command", step="configure", code="code 1", time="0.2s", target="web/app/0")


def recovered(why: Reason) -> Realm:
    """web/app/0 has failed for a reason, and has been ready again for a second."""
    realm = Realm("n1")
    spec = realm.apply(web(1))
    wanted = Slot(node="n1", spec=str(spec.id), revision=1, desired="running")
    placed = realm.say("controller/c1", "service/web/slot/app/0", wanted, cause=(spec.id,))
    mouth = agent(key(), "n1")

    def status(state: State, cause: EventId, reason: Reason | None = None) -> EventId:
        realm.after(1)
        record = Status(
            state=state,
            layer="application",
            node="n1",
            since_ms=realm.now_ms,
            pid=7,
            reason=reason,
            generation=1,
            attempt=1,
            emit_rate_s=30.0,
        )
        return realm.say(mouth, "service/web/status/app/0/n1/application", record, cause=(cause,)).id

    runs = status(State.RUNNING, status(State.FAILED, placed.id, why))
    health = Health(health="ready", generation=1, check="http", evidence="200 OK", failures=0, since_ms=realm.now_ms)
    realm.say(mouth, "service/web/health/app/0/n1", health, cause=(runs,))
    return realm.after(1)


@pytest.mark.parametrize(
    ("why", "again", "then"),
    [(KILLED, " again", "restarted it"), (UNCONFIGURED, "", "tried again")],
    ids=lambda one: str(one)[:9],
)
def test_what_is_well_again_is_not_told_to_fail_and_was_restarted_only_where_it_had_run(
    why: Reason, again: str, then: str
) -> None:
    realm = recovered(why)
    told = explain(realm, "web/app/0").says
    assert told.startswith(f"web/app/0 has been running on n1{again} since ")
    assert told.endswith(f" and is ready: {why.message}; dsmt {then}")
    assert explain(realm, "web").says == f"web: 1 of 1 ready; {told}"

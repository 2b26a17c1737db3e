"""Realms for golden screens, and the comparison with what people saw before."""

import io
import os
from pathlib import Path

from dsmt.cli import service_screen
from dsmt.cli.printing import Escaping, folded
from dsmt.event.kinds.instance import Endpoint
from dsmt.event.reason import reason
from dsmt.event.status import State
from dsmt.event.topic import matches
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.summaries import service
from dsmt.operations.words.targets import Target
from dsmt.view import SlotKey
from tests.controllers.build import Realm, agent, key, web
from tests.operations.sights import sight

GOLDEN = Path(__file__).parent / "golden"


def check(name: str, text: str, *, folds: bool = True) -> None:
    """Into a pipe nothing is cut or broken; in 80 columns no line is longer. Streams fit their own lines."""
    shapes = {f"{name}.txt": text}
    if folds:
        shapes[f"{name}.80.txt"] = folded(text, 80)
        assert max(map(len, shapes[f"{name}.80.txt"].splitlines())) <= 80
    for path, shown in ((GOLDEN / file, shape) for file, shape in shapes.items()):
        if os.environ.get("DSMT_REWRITE"):
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(shown + "\n")
        assert shown + "\n" == path.read_text()


def trouble() -> Realm:
    """Three of web, one of them failing, one held; a service without a place; a dead node and a drained one."""
    realm = Realm("n1", "n2", "n3", "n4")
    realm.apply(web(3))
    realm.settle()
    for index in range(3):
        node = on(realm, key(index))
        told = Endpoint(address="192.0.2.1", ports={"http": 20_000 + index}, generation=1, ready=True)
        realm.say(agent(key(index), node), f"service/web/endpoint/app/{index}/{node}", told)
        realm.health(key(index), node, "ready")
    realm.after(3600)
    realm.hold(key(2))
    realm.settle()
    realm.apply(web(1, service="big", component="reserve: {memory: 900GiB}"))
    realm.settle()
    realm.control_node(free(realm, 0), "draining")
    dead = free(realm, 1)
    realm.after(8)
    if dead:
        realm.close(dead)
        realm.verdict(dead)
    why = reason("run.exited", exit_code=1, time="0.4 s", target="web/app/1", last_output="no space left")
    realm.status(key(1), on(realm, key(1)), State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000, restarts=7)
    return realm.after(8)


def on(realm: Realm, at: SlotKey) -> str:
    slot = realm.view.slot(at)
    assert slot is not None
    assert slot.fact is not None
    return slot.fact.record.node or ""


def free(realm: Realm, place: int) -> str:
    """A node without instances, or else the one of web/app/0."""
    taken = {on(realm, key(i)) for i in range(3)}
    return [*sorted(set(realm.view.nodes) - taken), on(realm, key(0))][place]


def rolled_back() -> Realm:
    """One of web, which was rolled back, and one of db that fails again and again."""
    realm = Realm("n1", "n2")
    realm.apply(web(1, head="owner: team-web\n", component="restart: {escalate: [restart: 3]}\n"))
    realm.settle(seconds=1)
    realm.after(100).apply(web(1, head="owner: team-web\n", component="env: {A: b}\n"))
    realm.step()
    why = reason("start.exited", code="code 1", time="0.1 s", target="web/app/0")
    realm.status(key(), realm.slot().node or "", State.FAILED, parked=True, reason=why, attempt=3)
    realm.settle(seconds=1)
    db = key(service="db")
    realm.apply(web(1, service="db", head="owner: team-db\n"))
    realm.settle()
    why = reason("run.exited", exit_code=1, time="0.4 s", target="db/app/0", last_output="starting\nno space left")
    about = {"reason": why, "failures": 6, "restarts": 6, "restarts_recent": 6, "next_try_ms": realm.now_ms + 12_500}
    realm.status(db, realm.slot(service="db").node or "", State.FAILED, **about)
    return realm.after(0.5)


def of_service(realm: Realm, name: str) -> str:
    seen, target = sight(realm), Target.parse(name)
    told = service(seen, target.service, target)
    assert told is not None
    events = [one.event for _, one in realm.rows if any(matches(pattern, one.event.topic) for pattern in target.patterns)]
    return service_screen.screen(told, instances(seen, target), events, sight=seen, realm="prod", part=target)


def as_sent(text: str) -> str:
    """What the terminal gets of a text that is printed."""
    sent = io.StringIO()
    Escaping(sent).write(text)
    return sent.getvalue()


def running_one() -> Realm:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    return realm

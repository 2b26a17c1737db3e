"""`up` waits while nodes come, and names those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.errors import FailedError, RefusedError, TimedOutError, TransportError
from dsmt.event.kinds.realm import Revoked
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_node, init
from dsmt.operations.local.members import letting_in
from dsmt.operations.local.members.letting_in import by_fact
from dsmt.operations.local.up import coming_up
from dsmt.operations.local.up.machine import StartedRealm, left_out
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.waits import waiting
from dsmt.simulator.engine.run import run
from dsmt.trust.keys import key_id_of
from tests.controllers.build import Realm
from tests.operations.sights import sight

NODES = tuple(f"n{number}" for number in range(1, 9))
EACH_S = 20.0
NOW_MS = 2**50
"""Later than any realm time here: nobody's certificate has ended."""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with eight nodes: one more of the first three is alive each 20 s, then two controllers, and no other one."""

    async def watch(_: object) -> AsyncIterator[Sight]:
        while True:
            now = asyncio.get_running_loop().time()
            realm = Realm(*NODES[: min(3, int(now / EACH_S))])
            for controller, since in {"c1": 2, "c2": 5}.items():
                if now >= 3 * EACH_S + since:
                    realm.controller(controller)
            yield sight(realm)
            await asyncio.sleep(1)

    @asynccontextmanager
    async def reading(*_: object, **__: object) -> AsyncIterator[Any]:
        trust = SimpleNamespace(is_revoked=lambda _: False, delegates=list, certificates=lambda _: ())
        yield SimpleNamespace(
            bus=SimpleNamespace(now_ms=lambda: NOW_MS),
            trust=trust,
            realm=SimpleNamespace(brokers=[("broker/b1", bytes(32))]),
        )

    monkeypatch.setattr(coming_up, "reading", reading)
    monkeypatch.setattr(coming_up, "ended_brokers", lambda *_: {})
    monkeypatch.setattr(waiting, "watch", watch)
    monkeypatch.setattr(waiting, "aclosing", aclosing)
    identity = SimpleNamespace(certificate=SimpleNamespace(key_id=bytes(32), not_after=NOW_MS))
    monkeypatch.setattr(coming_up, "read_identity", lambda _: identity)
    monkeypatch.setattr(letting_in, "read_identity", lambda _: identity)
    monkeypatch.setattr(coming_up, "process_of", lambda *_: SimpleNamespace(pid=1))
    made = SimpleNamespace(
        is_joined=False, operator=lambda: None, realm=lambda: None, part=lambda *_: Path("/a/b"), root=Path("/")
    )
    return cast("Home", made)


def test_up_waits_as_long_as_one_more_node_comes_and_names_those_that_do_not(home: Home) -> None:
    told: list[str] = []

    async def main() -> tuple[str, float]:
        with pytest.raises(TimedOutError) as missed:
            await coming_up.attached(home, StartedRealm("r", (), (), NODES, made=False), limit_s=30.0, tell=told.append)
        return missed.value.message, asyncio.get_running_loop().time()

    said, ended = run(main())
    here = "3 of 8 nodes attached and alive"
    assert said == f"{here}; no other node came within 30 s: n4, n5, n6 and 2 more did not; the start goes on"
    assert 90 <= ended <= 120, "the last one came after 60 s"
    assert "not all nodes are attached and alive: 1 of 8; not n2, n3, n4 and 4 more" in told


def test_up_that_nobody_came_to_names_the_full_disk_of_the_home(home: Home, small_disk: Path) -> None:
    cast("Any", home).root = small_disk
    (small_disk / "b1.db").write_bytes(bytes(200 << 10))

    async def main() -> TimedOutError:
        with pytest.raises(TimedOutError) as missed:
            await coming_up.attached(home, StartedRealm("r", (), (), NODES[:4], made=False), limit_s=30.0)
        return missed.value

    missed = run(main())
    assert missed.message.endswith(f"the start goes on; the disk of {small_disk} is full, or nearly so: 56 KiB free")
    assert missed.next == "free space there"


def test_up_that_nobody_came_to_says_why_a_node_ends_again_and_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    log, told = Path("/home/nodes/n1/container_manager.log"), list[str]()
    monkeypatch.setattr(coming_up, "ended", lambda *_: ("Is a directory: 'incarnation'", log))

    async def main() -> TimedOutError:
        with pytest.raises(TimedOutError) as missed:
            await coming_up.attached(home, StartedRealm("r", (), (), NODES[:4], made=False), limit_s=30.0, tell=told.append)
        return missed.value

    missed = run(main())
    assert missed.message.endswith("the start goes on; n4 does not run, and said last: Is a directory: 'incarnation'")
    assert missed.next == f"see {log}; it goes on by itself when it can"
    assert told[-1].endswith("; not n4; n4 does not run, and said last: Is a directory: 'incarnation'")


def test_up_does_not_wait_for_nodes_of_which_it_is_known_that_they_cannot_come(home: Home) -> None:
    """It waited for half a minute for one whose file it had just said to be missing."""
    out = dict.fromkeys(NODES[3:], "its file is missing")

    async def main() -> float:
        assert await coming_up.attached(home, StartedRealm("r", (), (), NODES, made=False), limit_s=30.0, out=out) == []
        return asyncio.get_running_loop().time()

    assert run(main()) == 3 * EACH_S


def test_up_returns_when_all_of_its_nodes_are_there(home: Home) -> None:
    async def main() -> float:
        await coming_up.attached(home, StartedRealm("r", (), (), NODES[:3], made=False), limit_s=30.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 3 * EACH_S


@pytest.mark.parametrize("now", [None, SimpleNamespace(pid=7)], ids=["it has not begun", "another one runs now"])
def test_a_node_of_whose_former_manager_a_broker_has_heard_no_end_is_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch, now: object
) -> None:
    """All ended at once, the broker too: it takes that one for alive for a moment when it begins anew."""
    began = {"n1": now}
    monkeypatch.setattr(coming_up, "process_of", lambda _, program: began["n1"] if program == "container_manager" else None)

    async def main() -> float:
        asyncio.get_running_loop().call_later(EACH_S + 5.0, began.__setitem__, "n1", SimpleNamespace(pid=1))
        await coming_up.attached(home, StartedRealm("r", (), (), NODES[:1], made=False), limit_s=30.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(EACH_S + 5.0, abs=1.0)


def test_a_node_of_which_a_copy_attaches_elsewhere_is_attached_all_the_same(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` waited for it in vain where the copy came last: that both run is told by `status`."""
    realm = Realm(*NODES[:1])
    realm.session(f"node/{NODES[0]}", "open", broker="b2", attachment=2, pid=7)

    async def watch(_: object) -> AsyncIterator[Sight]:
        yield sight(realm)

    monkeypatch.setattr(waiting, "watch", watch)
    run(coming_up.attached(home, StartedRealm("r", (), (), NODES[:1], made=False), limit_s=30.0))


def test_up_returns_when_its_controllers_are_there_too(home: Home) -> None:
    async def main() -> float:
        await coming_up.attached(home, StartedRealm("r", (), ("c1", "c2"), NODES[:3], made=False), limit_s=30.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 3 * EACH_S + 5


def test_up_names_a_controller_that_hangs_and_says_what_becomes_of_it(home: Home) -> None:
    started = StartedRealm("r", (), ("c1", "hangs"), NODES[:3], made=False)
    said = run(coming_up.attached(home, started, limit_s=30.0))
    assert said == ["controller hangs is not alive yet; one that hangs is ended after 70 s, and started again"]


def test_of_a_controller_that_does_not_run_up_tells_its_last_words(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said to hang, and that it is ended."""
    log = Path("/home/controllers/hangs/controller.log")
    monkeypatch.setattr(coming_up, "ended", lambda *_: ("too many open files", log))
    started = StartedRealm("r", (), ("c1", "hangs"), NODES[:3], made=False)
    said = f"controller hangs is not alive yet; it does not run, and said last: too many open files. Next: see {log}"
    assert run(coming_up.attached(home, started, limit_s=30.0)) == [said]


def test_up_waits_for_nobody_whose_certificate_has_ended_and_says_what_brings_it_back(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It waited for a node as long as for any other, and told of a controller that one that hangs is ended.

    Of an issuer beside a controller that is well it told nothing.
    """
    issuer_file = tmp_path / "controllers" / "c1" / "issuer"
    issuer_file.parent.mkdir(parents=True)
    issuer_file.touch()

    def read(path: Path) -> Any:
        kind, name = path.parts[-3], path.parts[-2]
        if path == issuer_file:
            return SimpleNamespace(certificate=SimpleNamespace(not_after=1_000, subject="issuer/c1"))
        ends = 1_000 if name in (NODES[3], "hangs") else NOW_MS
        own = SimpleNamespace(key_id=bytes(32), not_after=ends, subject=f"{kind.removesuffix('s')}/{name}")
        return SimpleNamespace(certificate=own)

    monkeypatch.setattr(coming_up, "read_identity", read)
    monkeypatch.setattr(letting_in, "read_identity", read)
    monkeypatch.setattr(home, "part", lambda kind, name: tmp_path / kind / name)
    started, out = StartedRealm("r", (), ("c1", "hangs"), NODES[:4], made=False), dict[str, str]()
    node, controller, issuer = run(coming_up.attached(home, started, limit_s=30.0, out=out))
    ended = "ended at 1970-01-01T00:16:40.000Z: it is let in no more. Next: dsmt cert rotate"
    assert node.startswith(f"the certificate of node/{NODES[3]} {ended} node/{NODES[3]}; on a host: dsmt node add")
    assert controller.startswith(f"the certificate of controller/hangs {ended} controller/hangs; on an added host")
    ended = "ended at 1970-01-01T00:16:40.000Z: it lets no machine join, and renews none. Next: dsmt cert rotate"
    assert issuer.startswith(f"the certificate of issuer/c1 {ended} issuer/c1; on an added host")
    assert out == {NODES[3]: node}


@pytest.mark.parametrize("of_the_realm", [True, False])
def test_up_ends_for_the_ended_certificate_of_a_broker_of_the_realm_and_not_for_one_that_was_removed(
    home: Home, monkeypatch: pytest.MonkeyPatch, of_the_realm: bool
) -> None:
    ended = SimpleNamespace(public=bytes(32) if of_the_realm else bytes(31) + b"1")
    monkeypatch.setattr(coming_up, "ended_brokers", lambda *_: {"broker/b1": ended})

    async def main() -> None:
        await coming_up.attached(home, StartedRealm("r", (), (), NODES[:1], made=False), limit_s=30.0)

    if not of_the_realm:
        run(main())
        return
    with pytest.raises(FailedError, match="the certificate of broker/b1 has ended"):
        run(main())


def test_what_a_home_holds_is_named_where_fewer_were_asked_for(tmp_path: Path) -> None:
    made = Home(tmp_path / "home")
    init(made, name="test")
    here = [ensure_node(made, name, now_s=0) and name for name in ("n7", "n8", "n9")]
    controllers = tuple(made.names("controllers"))
    nodes = tuple(one for one in made.names("nodes") if one not in here[1:])
    said = left_out(made, StartedRealm("r", (), controllers, nodes, made=False))
    assert said == ["n8, n9 of this home are not started: dsmt up, with no number, starts all of it"]
    assert left_out(made, StartedRealm("r", (), controllers, tuple(made.names("nodes")), made=False)) == []


# What is said of brokers before nodes are waited for ------------------------------------------------------------------


class Announcing:
    """A home with brokers at which it is announced where they are: what each of them does then, and what was noted."""

    def __init__(self, patch: pytest.MonkeyPatch, *brokers: str, nats: object = None) -> None:
        self.does: dict[str, Exception | list[str]] = {}
        self.told: list[str] = []
        self.noted: set[str] = set()

        @asynccontextmanager
        async def connect(*_: object, brokers: Collection[str] = ("any",), **__: object) -> AsyncIterator[Any]:
            one = next(getattr(one, "address", one) for one in brokers)
            found = self.does.get(one, [])
            if isinstance(found, Exception):
                raise found
            self.told.append(one)
            yield SimpleNamespace(bus=found, by="operator/alice")

        async def announce(gone: list[str], known: dict[str, str], *, by: str, made_ms: object) -> list[str]:
            assert (set(known), by, made_ms) == (set(brokers), "operator/alice", {"b1": 5})
            return gone

        def note_announced(_: object, names: Collection[str]) -> None:
            self.noted = {*names}

        patch.setattr(coming_up, "connect", connect)
        patch.setattr(coming_up, "announce", announce)
        patch.setattr(coming_up, "meshed", lambda *_: {one: SimpleNamespace(address=one) for one in brokers})
        patch.setattr(coming_up, "made_ms", lambda *_: {"b1": 5})
        patch.setattr(coming_up, "note_announced", note_announced)
        self._home: Any = SimpleNamespace(realm=lambda: SimpleNamespace(nats=nats), operator=lambda: None)

    def amiss(self) -> list[str]:
        self.left = set[str]()
        return asyncio.run(coming_up.announced(self._home, left=self.left))


def test_of_a_broker_that_is_alone_nothing_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Announcing(monkeypatch, "b1")
    assert (made.amiss(), made.told, made.noted) == ([], [], set())


def test_it_is_announced_at_each_of_two_brokers_and_at_any_of_those_of_nats(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Announcing(monkeypatch, "b1", "b2")
    assert (made.amiss(), made.told, made.noted) == ([], ["b1", "b2"], {"b1", "b2"})
    made = Announcing(monkeypatch, "b1", "b2", nats=object())
    assert (made.amiss(), made.told, made.noted) == ([], ["any"], {"b1", "b2"})


def test_who_cannot_be_told_and_who_was_removed_keeps_nobody_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Announcing(monkeypatch, "b1", "b2", "b3")
    made.does = {
        "b1": TransportError("bus.unreachable", "b1 does not answer"),
        "b2": RefusedError("broker.left", "b2 is no broker any more"),
        "b3": ["b2"],
    }
    removed = "broker b2 does not belong to the realm any more, but is still here: dsmt broker remove b2 ends it"
    assert made.amiss() == ["b1 does not answer", removed]
    assert (made.told, made.noted, made.left) == (["b3"], {"b1", "b3"}, {"b2"})
    made.does["b3"] = made.does["b1"]
    made.amiss()
    assert made.told == ["b3", "any"], "where none of them was told it is tried for longer, at any"


# Who never comes ------------------------------------------------------------------------------------------------------

KEY, OTHER = "ab" * 16, "cd" * 16


def missing(realm: Realm, *brokers: bytes, revoked: Collection[bytes] = (), key: str = KEY) -> list[str]:
    trust = SimpleNamespace(is_revoked=lambda one: one in [key_id_of(public) for public in revoked])
    realm_file = SimpleNamespace(brokers=[("h:1", public) for public in brokers])
    connection: Any = SimpleNamespace(trust=trust, realm=realm_file)
    return coming_up._missing(connection, sight(realm), {"n1": key})


@pytest.fixture
def certificates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The times (s) for which it was asked which certificates have ended; none has."""
    asked: list[int] = []
    monkeypatch.setattr(coming_up, "in_use", lambda _, now_s: asked.append(now_s))
    monkeypatch.setattr(coming_up, "ended_brokers", lambda _, now_s: asked.append(now_s) or {})
    return asked


def test_who_is_attached_and_has_not_said_what_it_has_is_waited_for(certificates: list[int]) -> None:
    realm = Realm()
    assert missing(realm, b"1") == ["n1"]
    realm.attach("n1")
    assert missing(realm, b"1") == ["n1"]
    assert certificates == [realm.now_ms // 1000] * 4
    realm.attributes("n1")
    assert missing(realm, b"1") == []
    assert len(certificates) == 4, "where nobody is missing no certificate matters"


def test_nobody_is_waited_for_whose_own_key_was_revoked(certificates: list[int]) -> None:
    realm = Realm("n1")
    realm.close("n1")
    realm.say("root", f"trust/revoked/{KEY}/root", Revoked(by="alice", name="node/n1", reason="stolen"))
    assert missing(realm, b"1", key=OTHER) == ["n1"], "it has another key by now"
    assert coming_up._ended(sight(realm), {"n1": OTHER}) == {}
    (ended,) = coming_up._ended(sight(realm), {"n1": KEY, "n2": OTHER}).values()
    own: Any = SimpleNamespace(is_joined=False)
    said = by_fact(own, "n1", ended)
    assert said.startswith("the key of node/n1 was revoked by alice at ")
    assert said.endswith(
        ': "stolen": it is let in no more. '
        "Next: dsmt cert rotate node/n1 gives it another key; or dsmt node remove n1 ends it for good"
    )
    assert certificates


def test_nobody_is_waited_for_where_the_keys_of_all_brokers_were_revoked(certificates: list[int]) -> None:
    assert missing(Realm("n1"), b"1", b"2", revoked=[b"2"]) == []
    with pytest.raises(FailedError, match="the key of the only broker was revoked") as revoked:
        missing(Realm("n1"), b"2", revoked=[b"2"])
    assert (revoked.value.code, certificates) == ("broker.revoked", [])

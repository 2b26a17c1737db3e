"""Applying: all is checked before anything is said."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import from_data
from dsmt.operations.read.ahead.planning import plan
from dsmt.operations.words.targets import Target
from dsmt.operations.write import applying, declaring, revising
from dsmt.operations.write.writing import Acknowledged
from dsmt.spec.mistakes import SpecErrors
from dsmt.spec.nodeset import NodeSetError
from dsmt.spec.parsing import parse, read
from dsmt.spec.plain import BadSpecEventError, to_plain
from tests.controllers.build import Realm, spec, web

from .sights import sight

LARGE = "service: large\ncomponents:\n" + "".join(
    f"  c{number}:\n    run: sleep 1\n    env: {{A: '{'x' * 1000}'}}\n" for number in range(70)
)


@pytest.mark.parametrize("doing", ["plan", "apply"])
def test_a_spec_that_no_event_can_hold_is_refused_before_anything_is_planned_or_said(doing: str, monkeypatch: Any) -> None:
    said: list[Any] = []

    async def look(_bus: Any, *, of: Any = ()) -> Any:
        return sight(Realm("n1"))

    async def say(_bus: Any, drafts: list[Any]) -> None:
        said.extend(drafts)

    monkeypatch.setattr(applying, "look", look)
    monkeypatch.setattr(applying, "say", say)
    declared = [
        declaring.Declared(spec=parse(text, file="t")[0], directory=Path(), warnings=(), file=f"{name}.yaml")
        for name, text in (("web", web(1)), ("large", LARGE))
    ]
    bus: Any = None
    done: Any = (
        applying.plan_all(bus, declared, by="operator/alice")
        if doing == "plan"
        else applying.apply(bus, declared, by="operator/alice", reason="")
    )
    with pytest.raises(InputError, match=r"large\.yaml: large takes [0-9]+ bytes .* nothing was done") as caught:
        asyncio.run(done)
    assert caught.value.next == "put large texts into an artifact"
    assert said == []


def test_a_file_without_an_end_is_too_large() -> None:
    with pytest.raises(SpecErrors) as caught:
        declaring.read_files(["/dev/zero"])
    assert "larger than" in caught.value.mistakes[0].message


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Realm:
    """A realm with a service, to which real operations speak."""
    made = Realm("n1")
    made.apply(web(1))

    async def look(_bus: Any, *_: Any, of: Any = ()) -> Any:
        return sight(made)

    async def say(_bus: Any, drafts: list[Any]) -> Acknowledged:
        for draft in drafts:
            made.say("operator/alice", draft.topic, draft.data)
        return Acknowledged([], 2)

    monkeypatch.setattr(applying, "look", look)
    monkeypatch.setattr(revising, "look_at", look)
    monkeypatch.setattr(applying, "say", say)
    return made


def test_a_node_set_that_cannot_be_read_is_given_to_no_component(realm: Realm) -> None:
    bus: Any = None
    with pytest.raises(NodeSetError):
        asyncio.run(revising.use_nodes(bus, Target("web"), "minus(all_nodes", by="alice", reason=""))
    assert realm.view.quarantined == {}
    assert realm.view.services["web"].spec is not None


NOWHERE = "minus(n1, n1) selects no node now: nothing of it is placed until it does; what runs stays where it is"


@pytest.mark.parametrize(("nodes", "warnings"), [("n1", []), ("minus(n1, n1)", [f"components.app.nodes: {NOWHERE}"])])
def test_who_gives_a_component_a_set_of_no_nodes_is_warned_of_what_follows(
    realm: Realm, nodes: str, warnings: list[str]
) -> None:
    del realm
    bus: Any = None
    done = asyncio.run(revising.use_nodes(bus, Target("web"), nodes, by="alice", reason=""))
    assert done.warnings == warnings


@pytest.mark.parametrize(
    ("component", "nodes", "warned"),
    [
        ("data: true", "n2", True),
        ("data: true", "all_nodes", False),
        ("data: true", "minus(n1, n1)", False),
        ("data: false", "n2", False),
    ],
    ids=["elsewhere", "there, too", "nowhere", "no data"],
)
def test_who_gives_nodes_to_what_stays_with_its_data_elsewhere_is_told_so(
    monkeypatch: pytest.MonkeyPatch, component: str, nodes: str, warned: bool
) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, service="db", component=f"{component}\nnodes: n1"))
    realm.settle(seconds=30)
    file = web(1, service="db", component=f"{component}\nnodes: {nodes}")
    found, seen = read(file, file="db.yaml"), sight(realm)

    async def look(*_: object, **__: object) -> Any:
        return seen

    async def say(_bus: object, _sight: object, _fact: object, _service: str) -> int:
        return 2

    monkeypatch.setattr(applying, "look", look)
    monkeypatch.setattr(revising, "look_at", look)
    monkeypatch.setattr(revising, "say_spec", say)
    bus: Any = None
    said = "components.app.nodes: db/app/0 on n1 stays, for the data is there"
    declared = declaring.Declared(found.specs[0], Path(), (), "db.yaml", found.places[0])
    (planned,) = asyncio.run(applying.plan_all(bus, [declared], by="alice"))
    used = asyncio.run(revising.use_nodes(bus, Target("db"), nodes, by="alice", reason=""))
    for told in (planned.warnings, used.warnings):
        assert any(said in one and "dsmt move TARGET --accept-data-loss" in one for one in told) == warned


@pytest.mark.parametrize(
    ("label", "nodes", "warned"),
    [("disk", "all_nodes", False), ("dsik", "all_nodes", True), ("disk", "n1", True), ("dsik", "minus(n1, n1)", False)],
)
def test_who_names_a_label_that_none_of_its_nodes_has_is_told_where_in_the_file(
    realm: Realm, label: str, nodes: str, warned: bool
) -> None:
    realm.node("n2", labels={"disk": "ssd"})
    bus: Any = None
    text = web(1, component=f"nodes: {nodes}\nenv: {{A: '{{node.label.{label}}}', B: '{{node.label.{label}}}'}}")
    found = read(text, file="web.yaml")
    declared = declaring.Declared(found.specs[0], Path(), (), "web.yaml", found.places[0])
    said = f"components.app.env: no node on which it may be has a label {label} now: it fails where it is started"
    warnings = [f"web.yaml:7: {said}; see dsmt node show"] if warned else []
    (planned,) = asyncio.run(applying.plan_all(bus, [declared], by="operator/alice"))
    (applied,) = asyncio.run(applying.apply(bus, [declared], by="operator/alice", reason=""))
    assert (planned.warnings, applied.warnings) == (warnings, warnings)


def unreadable(realm: Realm) -> SpecFact:
    """What nobody can read is applied, as by a later dsmt."""
    plain = to_plain(parse(web(1), file="t")[0])
    plain["components"]["app"]["nodes"] = "minus(all_nodes"
    fact = SpecFact(spec=plain, by="alice", reason="")
    realm.say("operator/alice", "service/web/spec", fact)
    return fact


def test_what_nobody_could_read_is_not_said(realm: Realm) -> None:
    fact, bus = unreadable(Realm("n1")), cast("Any", None)
    with pytest.raises(BadSpecEventError):
        asyncio.run(applying.say_spec(bus, sight(realm), fact, "web"))
    assert realm.view.quarantined == {}


def test_a_service_whose_spec_cannot_be_read_is_not_said_to_be_none_and_its_next_revision_is_the_next(realm: Realm) -> None:
    unreadable(realm)
    with pytest.raises(FailedError, match="what was applied of web last cannot be read here") as caught:
        applying.current(sight(realm), "web")
    assert caught.value.code == "spec.unreadable"
    declared, bus = declaring.Declared(parse(web(1), file="t")[0], Path(), (), "web.yaml"), cast("Any", None)
    (done,) = asyncio.run(applying.apply(bus, [declared], by="operator/alice", reason=""))
    assert (done.revision, done.outcome) == (3, "applied")
    assert realm.view.quarantined == {}


@pytest.mark.parametrize(
    ("copies", "brokers", "told"),
    [
        (2, 2, []),
        (1, 1, []),
        (1, 3, ["only broker/b1 of 3 brokers has stored it so far; until others read it, it is lost with its disk"]),
    ],
)
def test_that_one_broker_of_several_has_stored_what_was_applied_is_told(
    copies: int, brokers: int, told: list[str], realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(_bus: Any, _drafts: list[Any]) -> Acknowledged:
        return Acknowledged([], copies)

    async def announced(_bus: Any) -> Any:
        return [f"b{n}" for n in range(brokers)]

    monkeypatch.setattr(applying, "say", say)
    monkeypatch.setattr(applying, "announced", announced)
    bus: Any = SimpleNamespace(broker="broker/b1")
    declared = [
        declaring.Declared(parse(web(n, service=name), file="t")[0], Path(), ()) for n, name in ((2, "web"), (1, "b"))
    ]
    done = asyncio.run(applying.apply(bus, declared, by="operator/alice", reason=""))
    assert [[one.partition("; next: ")[0] for one in each.warnings] for each in done] == [told, told]
    stands = [declaring.Declared(parse(web(1), file="t")[0], Path(), ())]
    (again,) = asyncio.run(applying.apply(bus, stands, by="operator/alice", reason=""))
    assert (again.outcome, again.warnings) == ("unchanged", [])


def test_what_is_another_file_when_it_is_put_than_it_was_in_the_plan_is_not_applied(
    realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built anew while the artifact before it travels to the depot."""
    said: list[Any] = []

    async def say(_bus: Any, drafts: list[Any]) -> Acknowledged:
        said.extend(drafts)
        return Acknowledged([], 2)

    async def put_blob(_chunks: Any, _digest: bytes) -> None:
        (tmp_path / "b").write_text("after the plan")

    monkeypatch.setattr(applying, "say", say)
    for name in ("a", "b"):
        (tmp_path / name).write_text("as planned")
    bus: Any = SimpleNamespace(broker="broker/b1", put_blob=put_blob)
    text = web(1, component="artifact: [{url: a}, {url: b}]\n")
    declared = [declaring.Declared(parse(text, file="t")[0], tmp_path, ())]
    (planned,) = asyncio.run(applying.plan_all(bus, declared, by="operator/alice"))
    with pytest.raises(RefusedError, match="does not match this file") as caught:
        asyncio.run(applying.apply(bus, declared, by="operator/alice", reason="", plans=(planned.id,)))
    assert (caught.value.code, said) == ("plan.changed", [])


def test_who_applies_what_is_just_being_removed_says_where_its_data_is() -> None:
    realm = Realm("n1", "n2")
    keeps = web(1, component="data: true\n")
    realm.apply(keeps)
    realm.settle(seconds=1)
    home = realm.slot(0).home
    realm.apply(keeps, removed=True)
    _, (grave, _) = applying._drafts_of(sight(realm), SpecFact(spec=spec(keeps), by="alice", reason=""), "web")
    assert [one.home for one in from_data(Tombstone, grave.data).data] == [home]


@pytest.mark.parametrize("later", [0, 1])
def test_what_stands_is_applied_again_where_slots_have_another_one_of_its_number_or_a_later_one(later: int) -> None:
    """It was overruled, or is void: nothing else says for sure that they get what stands (rules E2, J3)."""
    made = Realm("n1", "n2")
    made.apply(web(1))
    made.settle()
    plain = parse(web(1), file="t")[0]
    said, drafts = applying._to_say(sight(made), plain, by="operator/alice", reason="", planned=False)
    assert (said.outcome, drafts) == ("unchanged", [])
    slot = replace(made.slot(), spec="operator/eve@1-1", revision=1 + later)
    made.say("controller/c1", "service/web/slot/app/0", slot)
    said, (draft,) = applying._to_say(sight(made), plain, by="operator/alice", reason="", planned=False)
    assert (said.outcome, said.revision, draft.version) == ("applied", 2 + later, 2 + later)
    (warned,) = [
        one for one in plan(sight(made), plain, by="operator/alice", warnings=[]).warnings if "nothing differs" in one
    ]
    assert f"r{1 + later} runs, which stands no more" in warned

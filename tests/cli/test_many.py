"""Screens of many services and nodes: what is wrong is in the first screenful, and what is left out is counted."""

import re

import pytest

from dsmt.cli import member_screens, screens
from dsmt.cli.plan_screen import screens as plan_screens
from dsmt.cli.why import why_not_lines
from dsmt.errors import NotFoundError
from dsmt.event.reason import reason
from dsmt.event.status import State
from dsmt.operations.read.ahead.planning import plan
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import find_node, node_rows
from dsmt.operations.read.screens.summaries import services, status
from dsmt.operations.read.why.fitting import why_not
from dsmt.operations.words.targets import Target
from dsmt.spec.parsing import parse
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.cli.screens import on
from tests.controllers.build import Realm, key, web
from tests.operations.sights import sight

pytestmark = pytest.mark.usefixtures("utc")
SERVICES, NODES = 60, 24
SMALL = "reserve: {cpu: 0.001, memory: 1MiB}"


@pytest.fixture(scope="module")
def many() -> Sight:
    """Sixty services on 24 nodes: the 31st has failed, one has no place, one is stopped; six nodes are dead."""
    realm = Realm(*(f"n{number}" for number in range(1, NODES + 1)))
    for number in range(1, SERVICES + 1):
        realm.apply(web(1, service=f"s{number}", component=SMALL))
    realm.apply(web(1, service="large", component="reserve: {memory: 900GiB}"))
    realm.settle()
    realm.hold(key(service="s7"))
    realm.settle()
    failed = key(service="s31")
    why = reason("run.exited", exit_code=1, time="0.4 s", target=str(failed))
    realm.status(failed, on(realm, failed), State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000)
    used = {on(realm, key(service=f"s{number}")) for number in range(1, SERVICES + 1)}
    for number in range(101, 107):
        realm.node(f"d{number}")
        realm.close(f"d{number}")
        realm.verdict(f"d{number}")
    assert not any(node.startswith("d") for node in used)
    for number in (10, 9):
        realm.controller(f"c{number}")
    return sight(realm)


def _status(seen: Sight) -> str:
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    return screens.status(status(seen, trust, []), seen)


def test_what_is_wrong_is_in_the_first_screenful_and_what_is_well_is_counted(many: Sight) -> None:
    lines = _status(many).splitlines()
    assert len(lines) < 40
    first = "\n".join(lines[:20])
    assert re.search(r"large +0 of 1 +r1 +DOWN\n +place.no_room: ", first)
    assert re.search(r"s31 +0 of 1 +r1 +DOWN\n +run.exited: ", first)
    assert "60 of" not in first
    assert "  59 more services: 58 ok, 1 held; dsmt services lists all" in lines


def test_what_waits_for_a_person_stands_first_and_a_long_reason_is_told_in_short() -> None:
    realm = Realm("n1", "n2")
    for name in ("a", "b", "c"):
        realm.apply(web(2, service=name, component=SMALL))
    realm.settle()
    long = reason("start.cannot_exec", program="./app", dir="/x", error="e" * 490)
    retried = reason("run.exited", exit_code=1, time="0.4 s", target="a/app/0")
    for name, why in (("a", retried), ("c", long)):
        at = key(service=name)
        realm.status(at, on(realm, at), State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000)
    lines = _status(sight(realm)).splitlines()
    first, second = (next(n for n, line in enumerate(lines) if line.startswith(f"  {name} ")) for name in ("c", "a"))
    assert (retried.who, long.who) == ("dsmt", "you")
    assert first < second
    assert lines[first + 1].endswith("e... (dsmt why c tells all of it); next try in 20 s")
    assert len(lines[first + 1]) < 330


def test_a_plan_of_many_services_counts_those_of_which_nothing_differs() -> None:
    realm = Realm("n1", "n2")
    specs = []
    for number in range(1, 31):
        text = web(1, service=f"s{number}", component=SMALL)
        realm.apply(text)
        specs.append(parse(text.replace("./app", "./new") if number in {7, 8} else text, file="all.yaml")[0])
    realm.settle()
    told = plan_screens([plan(sight(realm), spec, by="alice", warnings=[]) for spec in specs], ("all.yaml",))
    heads = [line for line in told.splitlines() if re.match("s[0-9]+ ", line)]
    assert heads == ["s7  r1 -> r2     (file all.yaml)", "s8  r1 -> r2     (file all.yaml)"]
    assert "nothing differs of 28 services: s1, s2, s3 and 25 more" in told.splitlines()
    assert told.splitlines()[-1].startswith("2 steps of 2 services.  dsmt apply all.yaml --plan p-")


def test_many_dead_nodes_are_counted_and_the_first_of_them_named(many: Sight) -> None:
    assert "nodes     24 of 30 alive    6 DEAD (d101, d102, d103 and 3 more)" in _status(many)


def test_a_number_in_a_name_counts_as_one_where_names_are_listed(many: Sight) -> None:
    assert [one.service for one in services(many)] == ["large", *(f"s{number}" for number in range(1, SERVICES + 1))]
    assert [one.service for one in instances(many)][1:] == [f"s{number}" for number in range(1, SERVICES + 1)]
    assert [one.node for one in node_rows(many)][6:] == [f"n{number}" for number in range(1, NODES + 1)]
    assert [one.controller for one in controller_rows(many)] == ["c9", "c10"]


def test_the_last_line_of_a_list_counts_what_it_lists(many: Sight) -> None:
    last = screens.services(services(many), many).splitlines()[-1]
    assert last.startswith("61 services: 58 ok, 2 down, 1 held.   view ")
    assert member_screens.nodes(node_rows(many), many).splitlines()[-1].startswith("30 nodes: 24 alive, 6 dead.   view ")


def test_what_keeps_an_instance_off_many_nodes_is_shown_of_some_and_counted_of_all(many: Sight) -> None:
    lines = "\n".join(why_not_lines(why_not(many, Target("large")))).splitlines()
    assert len(lines) < 45
    assert sum("is free on" in line for line in lines) == 10
    assert "  and 20 more: --json has all, --node tells of one node" in lines
    assert sum(line.endswith(" fits") for line in lines) <= 11


def test_the_smallest_change_that_gives_a_place_is_named_first() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.attributes("n2", memory_bytes=64 * 2**30)
    realm.apply(web(1, component="reserve: {memory: 900GiB}"))
    realm.settle()
    assert why_not(sight(realm), Target("web")).suggestions[0] == "reserve.memory <= 64 GiB: n2 fits"


@pytest.mark.parametrize(("typed", "meant"), [("lagre", "did you mean large? "), ("other", "")])
def test_a_service_that_is_none_is_answered_with_what_was_probably_meant(many: Sight, typed: str, meant: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        instances(many, Target(typed))
    assert refused.value.next == f"{meant}dsmt services lists them"


def test_a_node_that_is_none_is_answered_with_what_was_probably_meant(many: Sight) -> None:
    with pytest.raises(NotFoundError) as refused:
        find_node(many, "d106x")
    assert refused.value.next == "did you mean d106? dsmt nodes lists them"

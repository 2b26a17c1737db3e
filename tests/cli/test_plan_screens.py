"""Screens of what would follow: `plan`, `diff`, `whatif`."""

import pytest

from dsmt.cli.plan_screen import difference as difference_screen
from dsmt.cli.plan_screen import screens as plan_screens
from dsmt.cli.whatif import screen as whatif_screen
from dsmt.operations.read.ahead.planning import difference, plan
from dsmt.operations.read.ahead.whatif import what_if
from dsmt.spec.parsing import parse
from tests.cli.screens import check, on, running_one
from tests.controllers.build import Realm, key, web
from tests.operations.sights import sight

pytestmark = pytest.mark.usefixtures("utc")


def test_a_difference_is_shown_without_a_plan() -> None:
    realm = running_one()
    spec = parse(web(2, component="env: {LOG: debug}"), file="web.yaml")[0]
    check("diff", difference_screen(difference(sight(realm), spec)))


def test_what_would_follow_is_shown_with_its_times_and_what_would_not_be_ready() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.apply(web(1, service="db", component="data: true\non_partition: pinned"))
    realm.settle(seconds=30)
    seen = sight(realm)
    found = what_if(seen, [], seen.view.copy(), kill=[on(realm, key(service="db"))], drain=["n1"], by="alice")
    check("whatif", whatif_screen(found))


def test_where_only_what_is_planned_would_follow_no_step_is_denied() -> None:
    realm = running_one()
    seen = sight(realm)
    trial = seen.view.copy()
    planned = plan(seen, parse(web(1, service="more"), file="more.yaml")[0], by="alice", warnings=[], trial=trial)
    found = what_if(seen, [planned], trial, kill=[], drain=[], by="alice")
    assert found.plans[0].steps
    assert whatif_screen(found).splitlines()[-1] == "no step beyond the plan; nothing was changed."


def test_a_plan_shows_what_differs_of_long_values_and_hides_secrets() -> None:
    realm = Realm("n1", "n2", "n3")
    command = "run: python3 -m http.server 8080 --bind 127.0.0.1 --directory /srv/a/site"
    text = web(1).replace("run: ./app", command + "\n    env: {DB_PASSWORD: hunter2}")
    realm.apply(text)
    realm.settle()
    realm.after(20)
    spec = parse(text.replace("/srv/a", "/srv/b").replace("hunter2", "hunter3"), file="web.yaml")[0]
    shown = plan_screens([plan(sight(realm), spec, by="alice", warnings=[])], ("web.yaml",))
    assert "hunter" not in shown
    check("plan_long", shown)


def test_a_plan_is_read_from_the_change_to_the_command() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.settle()
    realm.after(20)
    spec = parse(web(4, component="env: {LOG: debug}"), file="web.yaml")[0]
    check("plan", plan_screens([plan(sight(realm), spec, by="alice", warnings=[])], ("web.yaml",)))

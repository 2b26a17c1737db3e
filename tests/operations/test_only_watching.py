"""Controllers that only watch, for another one says that it decides by later rules: each screen of controllers tells."""

from __future__ import annotations

from dsmt.cli import member_screens
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.screens.summaries import status
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.controllers.build import Realm, web
from tests.operations.sights import sight

TRUST = TrustStore(RealmName(name="prod", roots=(bytes(32),)))


def realm_of(**rulesets: int) -> Realm:
    realm = Realm("n1")
    realm.apply(web(0))
    for name, ruleset in rulesets.items():
        realm.controller(name, ruleset=ruleset)
    return realm


def test_who_decides_nothing_is_told_with_whom_it_watches_and_what_ends_that() -> None:
    realm = realm_of(c1=44, c2=44, c3=9999)
    (alert,) = status(sight(realm), TRUST, []).alerts
    assert (alert.target, alert.code, alert.who) == ("controller/c3", "controllers.watch", "you")
    assert alert.message == "c1, c2 only watch: c3 decides by later rules: ruleset 9999, and not 44"
    assert alert.next.endswith("dsmt cert revoke controller/c3")
    rows = controller_rows(sight(realm))
    assert [None if one.watches is None else one.watches.controller for one in rows] == ["c3", "c3", None]
    shown = member_screens.controllers(rows, sight(realm))
    assert shown.count("only watches: c3 decides by later rules: ruleset 9999, and not 44") == 2


def test_where_all_decide_by_one_ruleset_or_who_had_a_later_one_is_gone_nobody_only_watches() -> None:
    assert not status(sight(realm_of(c1=44, c2=44)), TRUST, []).alerts
    realm = realm_of(c1=44, c2=44, c3=9999)
    realm.session("controller/c3", "closed", how="peer")
    assert [one.code for one in status(sight(realm), TRUST, []).alerts] == ["controller.silent"]
    assert not [one for one in controller_rows(sight(realm)) if one.watches is not None]

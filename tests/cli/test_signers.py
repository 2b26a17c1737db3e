"""Who has said something: no screen, and no sentence, lets an operator speak in the name of another one."""

import pytest

from dsmt.cli import cert, member_screens, screens, service_screen
from dsmt.event.kinds.node import NodeControl
from dsmt.event.kinds.realm import BrakeWord, Revoked
from dsmt.event.kinds.row import KindRow
from dsmt.event.kinds.slot import Hold, SlotControl
from dsmt.event.phrases import whose
from dsmt.event.registry import TOPICS
from dsmt.operations.local.members.certificates import HeldCertificate
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.rows.past import ServicePast, _revision
from dsmt.operations.read.screens.summaries import services, status
from dsmt.operations.words.sentences import sentence
from dsmt.operations.write.revoking import EndedKey
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.controllers.build import Realm, web
from tests.controllers.signing import signed
from tests.operations.sights import sight
from tests.operations.test_extremes import filled, sample

EVE = "operator/eve.1a2b3c4d"
SAID = "alice, signed by eve"
NAMING = [row for row in TOPICS if row.record is not None and "by" in row.record.__struct_fields__]


@pytest.mark.parametrize("row", NAMING, ids=lambda row: row.template)
def test_a_sentence_names_the_operator_who_has_signed_it_whomever_it_names(row: KindRow) -> None:
    assert row.record is not None
    data = sample(row.record) | {"by": "alice"}
    if "hold" in data:
        data["hold"]["by"] = "alice"
    for source, known in ((EVE, True), ("operator/alice.12", False), ("root", False)):
        event = signed(source, filled(row.template), data, version=1).event
        assert "alice" in sentence(event)
        assert (SAID in sentence(event)) is known


def test_who_names_nobody_and_who_is_no_operator_is_told_as_ever() -> None:
    assert whose("operator/bob.1", "operator/bob.2") == "bob"
    assert whose("bob", "controller/c1") == "bob"


def test_each_screen_names_the_operator_who_has_signed_it_beside_whom_it_names() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    before = realm.view.winner("service/web/spec")
    assert before is not None
    told = realm.say(EVE, "service/web/spec", before.event.data)
    realm.say(EVE, "node/n2/control", NodeControl(mode="excluded", by="alice", reason=""))
    hold = Hold(by="alice", at_ms=realm.now_ms, reason="")
    realm.say(EVE, "service/web/control/app/0", SlotControl(hold=hold, by="alice"))
    realm.say(EVE, "config/brake", BrakeWord(held=True, released_ms=0, by="alice", reason=""))
    realm.settle()
    realm.attributes("n3")
    realm.say(EVE, f"trust/revoked/{'ab' * 16}/{EVE}", Revoked(by="alice", name="node/n3"))
    seen = sight(realm)
    (one,), rows = services(seen), instances(seen)
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    for screen in (
        screens.ps(rows, seen),
        screens.services([one], seen),
        member_screens.nodes(node_rows(seen), seen),
        screens.status(status(seen, trust, []), seen),
        service_screen.screen(one, rows, [told.event], sight=seen, realm="prod"),
    ):
        assert SAID in screen
    assert f"its key was revoked by {SAID}" in member_screens.nodes(node_rows(seen), seen)
    ended = EndedKey(key="ab", name="node/n3", by="alice", at="", reason="", signer=EVE)
    about = {"issued": None, "renew": None, "expires": None, "issuer": None}
    held = HeldCertificate(name="node/n3", key="ab", state="revoked", here=False, revoked=ended, **about)
    assert f"revoked by {SAID}" in cert.listed([held])
    assert _revision(told.event, [], ServicePast()).by == SAID

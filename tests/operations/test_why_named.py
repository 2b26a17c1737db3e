"""A service may have a word of the program as its name: why it is as it is, is told as of any other one."""

from __future__ import annotations

import pytest

from dsmt.event.slots import SlotKey
from dsmt.event.status import State
from tests.controllers.build import Realm, web
from tests.operations.test_explaining import explain


@pytest.mark.parametrize("word", ["node", "broker", "controller"])
def test_a_service_with_the_name_of_a_kind_of_member_is_explained_and_so_is_the_member(word: str) -> None:
    realm = Realm("n1")
    realm.controller("c1")
    realm.apply(web(1, service=word))
    realm.publish(realm.decide().intents)
    realm.status(SlotKey(word, "app", 0), "n1", State.RUNNING, generation=1)
    for target in (word, f"{word}/app/0"):
        told = explain(realm, target)
        assert told.says.startswith((f"{word}: 1 of 1 ready", f"{word}/app/0 has been running on n1")), target
        assert told.chain
    member = {"node": "node/n1", "broker": "broker/b1", "controller": "controller/c1"}[word]
    assert explain(realm, member).says.startswith(member)

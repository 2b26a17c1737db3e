"""What a controller has said is awaited for a while, as a fact or what wins over it; then it is missed, once."""

from types import SimpleNamespace
from typing import cast

from dsmt.controllers.loop.echoes import ECHO_S, Echoes
from dsmt.view import View

WEB, API = "service/web/slot/app/0", "service/api/slot/app/0"


def holding(**places: tuple[int, int]) -> View:
    """A view of which only the winners of the two topics are asked."""
    topics = {"web": WEB, "api": API}
    held = {
        topics[name]: SimpleNamespace(event=SimpleNamespace(epoch=epoch, version=version))
        for name, (epoch, version) in places.items()
    }
    return cast("View", SimpleNamespace(winner=held.get))


def test_what_was_said_is_awaited_until_its_time_is_over_and_so_is_what_it_follows() -> None:
    echoes = Echoes()
    echoes.said(WEB, (1, 3), 10.0)
    assert [echoes.awaits(WEB, place, 10.0) for place in ((1, 2), (1, 3), (1, 4), (2, 1))] == [True, True, False, False]
    assert echoes.awaits(WEB, (1, 3), 9.99 + ECHO_S)
    assert not echoes.awaits(WEB, (1, 3), 10.0 + ECHO_S)
    assert not echoes.awaits(API, (1, 1), 10.0)


def test_what_did_not_come_back_in_time_is_missed_once_and_what_did_is_not() -> None:
    echoes = Echoes()
    echoes.said(WEB, (1, 3), 10.0)
    echoes.said(API, (1, 3), 11.0)
    assert echoes.missed(holding(web=(1, 2)), 9.99 + ECHO_S) == []
    assert echoes.missed(holding(web=(1, 2)), 10.0 + ECHO_S) == [WEB]
    assert echoes.topics == {API}
    assert echoes.missed(holding(api=(1, 3)), 11.0 + ECHO_S) == [], "it has come back"
    assert echoes.topics == set()


def test_what_is_said_again_is_awaited_from_then_on_and_behind_all_others() -> None:
    echoes = Echoes()
    echoes.said(WEB, (1, 3), 10.0)
    echoes.said(API, (1, 1), 11.0)
    echoes.said(WEB, (1, 4), 12.0)
    assert echoes.missed(holding(), 11.0 + ECHO_S) == [API]
    assert echoes.missed(holding(), 12.0 + ECHO_S) == [WEB]


def test_what_was_not_stored_is_awaited_no_more() -> None:
    echoes = Echoes()
    echoes.said(WEB, (1, 3), 10.0)
    assert echoes.over(WEB)
    assert not echoes.over(WEB)
    assert echoes.missed(holding(), 10.0 + ECHO_S) == []


def test_until_the_answer_comes_nothing_follows_it_whatever_has_come_and_however_long_it_takes() -> None:
    echoes = Echoes()
    echoes.said(WEB, (1, 3), 10.0)
    echoes.sent(WEB)
    assert [echoes.awaits(WEB, place, 10.0 + 2 * ECHO_S) for place in ((1, 3), (1, 9), (2, 1))] == [True, True, True]
    assert not echoes.awaits(API, (1, 1), 10.0)
    echoes.answered(WEB)
    assert [echoes.awaits(WEB, place, 11.0) for place in ((1, 3), (1, 4))] == [True, False]

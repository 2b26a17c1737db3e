"""The install monitor: every state that is passed is said, none that is not in the table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.errors import InputError
from dsmt.event.reason import reason
from dsmt.event.status import Layer, State, allowed, transitions
from dsmt.monitors.rules.install import TTL_MS, InstallMonitor, path

S = State
UP = [S.REQUESTED, S.INITIATED, S.INSTANTIATED, S.RUNNING]


def monitor(layer: Layer = Layer.APPLICATION) -> InstallMonitor:
    return InstallMonitor(layer, node="n1", emit_rate_s=30.0)


@pytest.mark.parametrize(
    ("layer", "before", "after", "passed"),
    [
        (Layer.APPLICATION, None, S.RUNNING, UP),
        (Layer.APPLICATION, None, S.FAILED, [S.REQUESTED, S.FAILED]),
        (Layer.APPLICATION, None, S.GONE, [S.REQUESTED, S.STOPPED, S.GONE]),
        (Layer.APPLICATION, S.RUNNING, S.STOPPED, [S.TERMINATED, S.STOPPED]),
        (Layer.APPLICATION, S.RUNNING, S.GONE, [S.TERMINATED, S.STOPPED, S.GONE]),
        (Layer.APPLICATION, S.RUNNING, S.INITIATED, [S.REQUESTED, S.INITIATED]),
        (Layer.APPLICATION, S.FAILED, S.RUNNING, [S.INSTANTIATED, S.RUNNING]),
        (Layer.APPLICATION, S.FAILED, S.GONE, [S.STOPPED, S.GONE]),
        (Layer.APPLICATION, S.GONE, S.RUNNING, UP),
        (Layer.APPLICATION, S.TERMINATED, S.INSTANTIATED, [S.STOPPED, S.INSTANTIATED]),
        (Layer.CONTAINER, None, S.INSTALLED, [S.SELECTED, S.INSTALLING, S.INSTALLED]),
        (Layer.CONTAINER, S.INSTALLED, S.GONE, [S.DESELECTED, S.GONE]),
        (Layer.CONTAINER, S.FAILED, S.INSTALLED, [S.INSTALLING, S.INSTALLED]),
    ],
)
def test_the_way_from_state_to_state(layer: Layer, before: State | None, after: State, passed: list[State]) -> None:
    assert list(path(layer, before, after)) == passed


@pytest.mark.parametrize("before", [None, *transitions(Layer.APPLICATION)])
def test_running_is_never_said_on_the_way_to_another_state(before: State | None) -> None:
    for after in transitions(Layer.APPLICATION):
        if after not in (before, None):
            assert S.RUNNING not in path(Layer.APPLICATION, before, after)[:-1]


def test_that_it_is_parked_and_its_next_try_are_not_said_of_what_follows_the_failure() -> None:
    machine = monitor()
    machine.pass_to(S.FAILED, 1, reason=reason("run.exited", exit_code=1), generation=1, parked=True, next_try_ms=9)
    (said,) = machine.pass_to(S.INITIATED, 2, generation=2)
    assert (said.generation, said.parked, said.next_try_ms) == (2, False, None)


def test_there_is_no_way_to_a_word_of_another_layer() -> None:
    with pytest.raises(InputError, match="cannot go"):
        path(Layer.CONTAINER, None, S.RUNNING)


def test_each_state_is_said_with_its_time_and_the_reason_only_at_the_end() -> None:
    machine = monitor()
    why = reason("run.exited", exit_code=1)
    said = machine.pass_to(S.FAILED, 5, reason=why, generation=3)
    assert [(s.state, s.since_ms, s.generation) for s in said] == [(S.REQUESTED, 5, 3), (S.FAILED, 5, 3)]
    assert said[0].reason is None
    assert said[1].reason == why


def test_attempts_count_the_tries_of_a_generation() -> None:
    machine = monitor()
    attempts = [s.attempt for s in machine.pass_to(S.RUNNING, 1, generation=1)]
    machine.pass_to(S.FAILED, 2)
    attempts += [s.attempt for s in machine.pass_to(S.RUNNING, 3)]
    machine.pass_to(S.STOPPED, 4)
    attempts += [s.attempt for s in machine.pass_to(S.RUNNING, 5)]
    assert attempts == [1, 1, 1, 1, 2, 2, 3, 3]
    assert machine.pass_to(S.STOPPED, 6, generation=2)[-1].attempt == 1


def test_when_a_generation_was_taken_is_said_as_long_as_it_is_tried() -> None:
    machine = monitor()
    taken = [s.taken_ms for s in machine.pass_to(S.RUNNING, 1, generation=1)]
    taken += [s.taken_ms for s in machine.pass_to(S.FAILED, 2)]
    taken += [s.taken_ms for s in machine.pass_to(S.RUNNING, 3, generation=1)]
    assert set(taken) == {1}
    assert [s.taken_ms for s in machine.note(4, generation=2)] == [4]
    assert machine.note(5, generation=2) == []
    assert machine.pass_to(S.STOPPED, 6)[-1].taken_ms == 4
    assert [s.taken_ms for s in machine.pass_to(S.STOPPED, 7, generation=3)] == [7]
    assert monitor(Layer.AGENT).pass_to(S.RUNNING, 1, generation=1)[-1].taken_ms is None


def test_what_is_told_about_a_state_holds_until_it_is_told_anew() -> None:
    machine = monitor()
    machine.pass_to(S.RUNNING, 1, pid=7)
    assert machine.pass_to(S.FAILED, 2)[-1].pid == 7
    assert machine.note(3, pid=8)[-1].pid == 8
    assert machine.note(4, pid=8) == []
    assert machine.pass_to(S.FAILED, 4, pid=8) == []


def test_it_is_renewed_at_half_of_its_life_and_not_when_gone() -> None:
    machine = monitor()
    machine.pass_to(S.RUNNING, 0)
    assert machine.renew(TTL_MS // 2 - 1) == []
    (again,) = machine.renew(TTL_MS // 2)
    assert again == machine.status
    assert machine.renew(TTL_MS // 2 + 1) == []
    machine.pass_to(S.GONE, TTL_MS)
    assert machine.renew(TTL_MS * 3) == []


def test_what_was_said_before_realm_time_was_put_back_is_said_again_and_then_at_half_of_its_life() -> None:
    machine = monitor()
    *_, running = machine.pass_to(S.RUNNING, TTL_MS)
    assert machine.renew(TTL_MS - 60_000) == [running]
    assert machine.renew(TTL_MS - 59_000) == []
    assert machine.renew(TTL_MS - 60_000 + TTL_MS // 2) == [running]


@pytest.mark.parametrize("by_ms", [3_600_000, -3_600_000])
def test_what_was_said_before_realm_time_was_read_is_renewed_at_half_of_its_life_by_realm_time(by_ms: int) -> None:
    machine, said_ms = monitor(), TTL_MS
    machine.pass_to(S.RUNNING, said_ms)
    machine.put_right(by_ms)
    assert machine.renew(said_ms + by_ms + TTL_MS // 2 - 1) == []
    assert len(machine.renew(said_ms + by_ms + TTL_MS // 2)) == 1


@given(
    st.sampled_from([Layer.CONTAINER, Layer.AGENT, Layer.APPLICATION]),
    st.lists(st.sampled_from([s for s in State if s is not State.UNDEFINED]), max_size=30),
)
def test_whatever_is_asked_for_only_allowed_steps_are_said(layer: Layer, wishes: list[State]) -> None:
    machine = monitor(layer)
    before: State | None = None
    for now, wish in enumerate(wishes):
        try:
            said = machine.pass_to(wish, now, generation=now // 5)
        except InputError:
            continue
        for status in said:
            assert allowed(layer, before, status.state)
            before = status.state
        assert before == wish


def test_a_first_status_says_whose_it_is_and_how_often_it_is_vouched_for() -> None:
    machine = monitor(Layer.AGENT)
    assert (machine.state, machine.status) == (None, None)
    (said,) = machine.pass_to(S.REQUESTED, 5)
    assert (said.layer, said.node, said.emit_rate_s) == (Layer.AGENT, "n1", 30.0)
    assert (said.generation, said.attempt, said.since_ms, said.reason) == (0, 1, 5, None)
    assert (machine.state, machine.status) == (S.REQUESTED, said)
    assert "agent" in repr(machine)
    assert "requested" in repr(machine)


def test_before_anything_is_said_there_is_nothing_to_add_to_say_again_or_to_renew() -> None:
    machine = monitor()
    assert machine.note(1, pid=7) == machine.again(2) == machine.renew(TTL_MS) == []


def test_what_was_said_is_said_again_when_asked_and_that_counts_as_a_renewal() -> None:
    machine = monitor()
    *_, running = machine.pass_to(S.RUNNING, 0)
    assert machine.again(TTL_MS // 2 - 1) == [running]
    assert machine.renew(TTL_MS // 2) == []
    assert machine.renew(TTL_MS - 1) == [running]
    machine.note(TTL_MS, pid=7)
    assert machine.renew(TTL_MS + TTL_MS // 2 - 1) == []


def test_a_machine_that_was_started_anew_goes_on_from_what_it_said_before() -> None:
    before = monitor()
    before.pass_to(S.FAILED, 1, reason=reason("run.exited", exit_code=1), generation=3, pid=7)
    after = InstallMonitor(Layer.APPLICATION, node="n1", emit_rate_s=30.0, before=before.status, ttl_ms=100)
    (said,) = after.pass_to(S.INSTANTIATED, 9)
    assert (said.generation, said.attempt, said.pid, said.since_ms) == (3, 2, 7, 9)
    assert after.renew(58) == []
    assert after.renew(59) == [said], "half of its own time to live"


def test_a_reason_is_said_of_the_state_that_stays_when_it_is_another() -> None:
    machine, one, other = monitor(), reason("run.exited", exit_code=1), reason("run.exited", exit_code=2)
    machine.pass_to(S.FAILED, 1, reason=one)
    assert machine.pass_to(S.FAILED, 2, reason=one) == []
    (said,) = machine.pass_to(S.FAILED, 3, reason=other)
    assert (said.reason, said.since_ms) == (other, 1)


@pytest.mark.parametrize(
    ("ends", "follows"),
    [
        (S.STOPPED, S.REQUESTED), (S.STOPPED, S.INITIATED), (S.FAILED, S.INSTANTIATED), (S.GONE, S.REQUESTED),
    ],
)  # fmt: skip
def test_after_an_end_what_follows_is_another_try(ends: State, follows: State) -> None:
    machine = monitor()
    machine.pass_to(ends, 1)
    first = machine.status.attempt  # type: ignore[union-attr]
    assert machine.pass_to(follows, 2)[-1].attempt == first + 1
    assert machine.pass_to(S.TERMINATED, 3)[-1].attempt == first + 1


def test_who_asks_for_what_the_table_has_no_way_to_is_told_from_where_to_where() -> None:
    with pytest.raises(InputError, match="container cannot go from installed to running") as caught:
        path(Layer.CONTAINER, S.INSTALLED, S.RUNNING)
    assert caught.value.code == "status.path"

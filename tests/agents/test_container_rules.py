"""What a slot's topics are called, what an agent is told, what a new container inherits, and how a run's end is told."""

import msgspec
import pytest

from dsmt.agents.instance.memory import Memory
from dsmt.agents.rules.container import RECORD, AgentConfig, NodeConfig, dump_config, load_config
from dsmt.agents.rules.endings import beside, ending, follows, is_flapping, last_exit, signal_name, with_step, words
from dsmt.agents.rules.record import FinishedRun, InstanceRecord, Written, carried, dump_record, load_record, remembered
from dsmt.agents.rules.supervision import Finished, Parked, RestartHistory, TryAgain
from dsmt.errors import InputError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Good
from dsmt.event.reason import reason
from dsmt.event.registry import lookup, owner_of
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer, State
from dsmt.ports.processes import Exit

from .memory_machine import MemoryFiles

SLOT = SlotKey("web", "app", 0)
AGENT = "agent/n1/web/app/0"


def test_a_slot_s_topics_are_those_of_the_registry_and_its_agent_may_write_its_own():
    assert str(SLOT) == "web/app/0"
    assert SLOT.agent("n1") == AGENT
    rows = {
        SLOT.topic: "service/<service>/slot/<component>/<index>",
        SLOT.spec_topic: "service/<service>/spec",
        SLOT.command_topic: "service/<service>/command/<component>/<index>",
        SLOT.tombstone_topic: "tombstone/service/<service>",
        SLOT.heartbeat_topic("n1"): "node/<node>/agent/<service>/<component>/<index>/heartbeat",
        SLOT.on("health", "n1"): "service/<service>/health/<component>/<index>/<node>",
        SLOT.on("endpoint", "n1"): "service/<service>/endpoint/<component>/<index>/<node>",
        SLOT.status_topic("n1", Layer.APPLICATION): "service/<service>/status/<component>/<index>/<node>/application",
        SLOT.status_topic("n1", Layer.AGENT): "service/<service>/status/<component>/<index>/<node>/agent",
    }
    named = {"service": "web", "component": "app", "index": "0", "node": "n1"}
    for topic, template in rows.items():
        found = lookup(topic)
        assert found.row.template == template
        assert found.levels.items() <= named.items()
    for topic in (SLOT.on("health", "n1"), SLOT.heartbeat_topic("n1"), SLOT.status_topic("n1", Layer.APPLICATION)):
        assert owner_of(topic) == AGENT


@pytest.mark.parametrize(
    ("topic", "slot"),
    [
        (SLOT.topic, SLOT),
        ("service/web/slot/app", None),
        ("service/web/slot/app/0/x", None),
        ("service/web/slot/app/01", None),
        ("service/web/control/app/0", None),
        ("services/web/slot/app/0", None),
        ("", None),
    ],
)
def test_a_slot_is_told_from_the_topic_of_its_fact_and_from_no_other(topic, slot):
    assert SlotKey.of_topic(topic) == slot


NODE = NodeConfig(
    node="n1", realm="local", roots=(b"r" * 32,), brokers=(("h:1", b"k" * 32),), address="10.0.0.1", directory="/n",
    data_root="/d", data_key="key", labels={"rack": "1"},
)  # fmt: skip


def test_an_agent_is_told_all_of_its_node_s_surroundings_and_its_slot():
    told = NODE.for_agent(SLOT)
    assert told == AgentConfig(
        node="n1", service="web", component="app", index="0", realm="local", roots=(b"r" * 32,),
        brokers=(("h:1", b"k" * 32),), address="10.0.0.1", labels={"rack": "1"}, node_directory="/n", data_root="/d",
    )  # fmt: skip
    assert told.slot == SLOT
    assert load_config(dump_config(told), where="agent.cbor") == told


@pytest.mark.parametrize("raw", [None, b"", b"\xff", b"\xa0", dump_config(NODE.for_agent(SLOT))[:-1]])
def test_a_configuration_that_cannot_be_read_is_refused_with_its_file(raw):
    with pytest.raises(InputError, match=r"n1/agent\.cbor") as caught:
        load_config(raw, where="n1/agent.cbor")
    assert caught.value.code == "agent.config"
    assert caught.value.next


WORDS = InstanceRecord(
    boot="b", epoch=2, generation=3, revision=4, state=State.RUNNING, attempt=5, since_ms=6, taken_ms=7, ports={"http": 80},
    restarts=8, not_before_s=9.0, last_exit=LastExit(code=1, signal=None, at_ms=1, ran_s=1.0, reason=None),
    good=Good(spec="s", revision=1), good_key="k", done=FinishedRun(run_key="d", restart=1, at_ms=1, ran_s=1.0),
    begun={"d": 1}, doing="install i r", cut=1, commands=("c1",), last_command="c1", held=10, trigger=("x",),
    history=RestartHistory(failures=1),
    writes=Written(revision=4, places={"stdout": (1, 0, None)}), wrote=(Written(revision=3),), turned={"stdout": 1},
    reason=reason("run.exited", code="code 1", exit_code=1, time="1.0s", target="web/app/0"), next_try_ms=11, parked=True,
)  # fmt: skip
"""What a new container inherits, every field of it set."""


def test_a_new_container_inherits_counters_ports_and_words_and_where_its_output_stands_and_no_process_nor_installation():
    files = {
        "process": {"pid": 1}, "driver": "process", "run_key": "r", "install_key": "i", "run_generation": 1,
        "run_restart": 1, "started": True, "ready": True, "asked": True, "began_s": 1.0,
        "installed": ("i",), "configured": "c", "filled": "f", "finished": True, "step": "install",
    }  # fmt: skip
    assert carried(msgspec.structs.replace(WORDS, **files)) == WORDS
    bare = InstanceRecord(boot="b")
    set_ = {name for name in WORDS.__struct_fields__ if getattr(WORDS, name) != getattr(bare, name)}
    assert {*WORDS.__struct_fields__} - set_ - files.keys() == {"boot", "outgoing", "check"}, "nothing is forgotten"


RESTED = {"finished": True, "last_exit": LastExit(code=0, signal=None, at_ms=1, ran_s=1.0, reason=None)}
OF_THE_GOOD = {"run_key": "k", "install_key": "i", "run_restart": 2}


@pytest.mark.parametrize(
    ("about", "ended_well"),
    [
        ({}, True),
        ({"finished": False}, False),
        ({"last_exit": None}, False),
        ({"last_exit": WORDS.last_exit}, False),
        ({"run_key": "of another program"}, False),
    ],
    ids=["it has", "it is run again", "it never ended", "it failed", "what ended was not good"],
)
def test_after_a_boot_or_in_a_new_container_only_what_has_ended_well_is_not_run_again(about, ended_well):
    record = msgspec.structs.replace(WORDS, **(RESTED | OF_THE_GOOD | about))
    files = MemoryFiles()
    files.write(RECORD, dump_record(record))
    assert Memory(files, "another boot").record.finished is ended_well
    kept = {"finished": True, "last_exit": record.last_exit, **OF_THE_GOOD} if ended_well else {}
    of_the_good = {"good": WORDS.good, "good_key": "k", "done": WORDS.done, "begun": WORDS.begun}
    assert remembered(record) == InstanceRecord(boot="b", **of_the_good, **kept)
    assert remembered(msgspec.structs.replace(record, good=None)) is None


def test_a_record_is_read_as_it_was_written_and_one_that_is_damaged_is_none():
    assert load_record(dump_record(WORDS)) == WORDS
    deep = b"[" * 50_000 + b"]" * 50_000
    for raw in (None, b"", b"{}", b"[]", dump_record(WORDS)[:-1], b'{"boot": "\xff"}', b'{"boot": "b", "x": ' + deep + b"}"):
        assert load_record(raw) is None


# Endings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.004, "4ms"), (0.099, "99ms"), (0.1, "0.1s"), (1.46, "1.5s"), (9.94, "9.9s"), (10.0, "10s"), (123.4, "2m3s")],
)
def test_a_span_is_told_as_finely_as_people_read_it(seconds, told):
    assert words(seconds) == told


@pytest.mark.parametrize(
    ("ended", "started", "watched", "code", "says"),
    [
        (Exit(code=3, signal=None), True, True, "run.exited", "exited with code 3 after 2.0s"),
        (Exit(code=0, signal=None), True, True, "run.exited", "exited with code 0 after 2.0s"),
        (Exit(code=None, signal=9), True, True, "run.signal", "killed by SIGKILL after 2.0s"),
        (Exit(code=3, signal=None), False, True, "start.exited", "exited with code 3 2.0s after start"),
        (Exit(code=None, signal=11), False, True, "start.exited", "exited with SIGSEGV 2.0s after start"),
    ],
)
def test_how_a_program_ended_is_told_by_its_code_or_its_signal(ended, started, watched, code, says):
    found, fields = ending(ended, 2.0, started=started, watched=watched)
    assert found == code
    told = reason(found, **fields)
    assert told.message.startswith(says)
    name = None if ended.signal is None else signal_name(ended.signal)
    assert (told.exit_code, told.signal) == (ended.code, name), "programs read it there"


@pytest.mark.parametrize("good", [None, Good(spec="operator/alice#1-2", revision=3)])
@pytest.mark.parametrize("installed", [(), ("i",)])
def test_what_outlives_a_container_that_is_cleared_away_is_what_was_good_and_is_installed(good, installed):
    key = "" if good is None else "k"
    record = InstanceRecord(boot="b", generation=7, good=good, good_key=key, run_key="r", held=7, installed=installed)
    kept = InstanceRecord(boot="b", good=good, good_key=key, installed=installed)
    assert remembered(record) == (kept if good or installed else None)
    assert remembered(None) is None


def test_an_end_that_nobody_saw_is_told_as_such():
    unseen = Exit(code=None, signal=None)
    assert ending(unseen, 2.0, started=True) == ("run.unseen", {"time": "2.0s"})
    assert ending(unseen, 2.0, started=True, watched=False) == ("run.vanished", {})


def test_the_end_of_a_run_is_kept_with_its_signal_s_name_and_how_long_it_ran():
    why = reason("run.signal", signal="SIGKILL", time="2s")
    assert last_exit(Exit(code=None, signal=9), 1.23456, why, 7) == LastExit(
        code=None, signal="SIGKILL", at_ms=7, ran_s=1.235, reason=why
    )
    assert last_exit(Exit(code=3, signal=None), -1.0, None, 7, restart=4) == LastExit(
        code=3, signal=None, at_ms=7, ran_s=0.0, reason=None, restart=4
    )
    assert (signal_name(15), signal_name(63)) == ("SIGTERM", "signal 63")


@pytest.mark.parametrize(
    ("code", "flaps"),
    [
        ("run.exited", True), ("health.not_live", True), ("start.exited", True), ("start.timeout", True),
        ("start.cannot_exec", False), ("fetch.not_found", False), ("install.command", False),
    ],
)  # fmt: skip
def test_what_ran_and_failed_again_and_again_is_flapping_and_what_never_ran_is_told_by_its_own_reason(code, flaps):
    assert is_flapping(reason(code)) == flaps


def test_a_reason_names_what_follows_unless_it_has_a_step_of_its_own():
    bare, own = reason("run.exited", exit_code=1), reason("install.command", step="build", exit_code=1)
    assert with_step(bare, "restart") == msgspec.structs.replace(bare, step="restart")
    assert with_step(bare, "") == bare
    assert with_step(own, "restart") == own


@pytest.mark.parametrize(
    ("verdict", "what"),
    [
        (TryAgain("restart", 1.5, attempt=1, tries=5), ("restart", 1.5, False)),
        (TryAgain("recreate", 0.0, attempt=1, tries=5), ("recreate", 0.0, False)),
        (Finished(), ("", None, False)),
        (Parked(600.0, 5, 60.0, move=False), ("park", 600.0, True)),
        (Parked(600.0, 5, 60.0, move=True), ("move", 600.0, True)),
    ],
    ids=str,
)
def test_what_follows_is_the_step_of_escalation_and_when_it_is_tried(verdict, what):
    assert follows(verdict) == what


@pytest.mark.parametrize(
    ("output", "hinted"),
    [
        ("bind: Address already in use", True),
        ("could not open the database: LOCK: Resource temporarily unavailable", True),
        ("lock file /d/postmaster.pid already exists", True),
        ("Traceback: KeyError: 'HOME'", False),
        ("blocked by a firewall", False),
        ("", False),
    ],
)
def test_what_fails_beside_the_copy_before_is_told_of_it_where_its_words_may_be_of_what_that_holds(
    output: str, hinted: bool
) -> None:
    why = reason("start.exited", code="code 1", exit_code=1, time="3ms", target="web/app/0")
    assert ("stop_first" in beside(why, output).message) is hinted
    assert beside(reason("install.command"), output) == reason("install.command")

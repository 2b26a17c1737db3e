"""Records: what is written is what a reader decodes, and what is no record is refused."""

import cbor2
import msgspec
import pytest

from dsmt.errors import UnusableEventError
from dsmt.event.kinds.controller import Decision
from dsmt.event.kinds.instance import Command, Endpoint, LastExit, LogLines, Progress, Status
from dsmt.event.kinds.node import DriverAttributes, NodeAttributes, NodeControl, NodeVerdict, Probe
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, Previous, Slot, SlotControl
from dsmt.event.kinds.source import Heartbeat, Started
from dsmt.event.payload import canonical, is_plain
from dsmt.event.reason import reason
from dsmt.event.records import from_data, later, readable, to_data
from dsmt.event.registry import TOPICS
from dsmt.event.status import Layer, State

WHY = reason("run.exited", exit_code=3, time="2 s", last_output="boom")
EXIT = LastExit(code=None, signal="SIGSEGV", at_ms=5, ran_s=0.25, reason=WHY)
ONE_OF_EACH = [
    NodeAttributes(
        cpus=2, memory_bytes=1, memory_free_bytes=1, disk_bytes=1, disk_free_bytes=1, load=0.5, address="a", version="1",
        boot_id="b", labels={"zone": "z"}, location=(52.5, 13.4), drivers={"process": DriverAttributes("none", ("cpu",))},
        attachments={"node/n1": 3},
    ),
    Heartbeat(sequence=3, incarnation=1, lag_s=0.0, emit_rate_s=1.0),
    Started(previous_incarnation=None, previous_sequence=None, version="1"),
    Probe(result="passed", reason="", round_trip_s=0.1),
    NodeVerdict(
        state="dead", road="silent", attachments={"node/n1": 3}, evidence=("broker/b1#1-2",), message="m", since_ms=4
    ),
    NodeControl(mode="draining", by="operator/a", reason="disk"),
    SpecFact(spec={"components": {"app": {"instances": 3, "ports": []}}}, by="operator/a", reason=""),
    SlotControl(hold=Hold(by="operator/a", at_ms=1, reason="r"), restart=2, move="n2"),
    Slot(
        node="n1", spec="operator/a#1-2", revision=1, desired="running", reason=WHY,
        previous=Previous(node="n2", generation=3, deadline_ms=9),
    ),
    Status(
        state=State.FAILED, layer=Layer.APPLICATION, node="n1", generation=2, attempt=3, since_ms=4, emit_rate_s=30.0,
        reason=WHY, last_exit=EXIT,
    ),
    Progress(step="fetch", done=1, total=None, unit="bytes"),
    Command(id="c1", verb="LOGS", generation=1, asker="operator/a", arguments={"lines": 5}),
    Endpoint(address="127.0.0.1", ports={"http": 80}, generation=1, ready=True),
    LogLines(command="c1", lines=("a", "b"), last=True),
    Decision(
        store="s", row=1, view_digest=bytes(32), now_ms=1, ruleset=1, broker="b1", may_accuse=False,
        produced=("controller/c1#1-2",),
    ),
]  # fmt: skip


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: type(record).__name__)
def test_a_record_comes_out_of_an_event_as_it_went_in(record):
    data = to_data(record)
    assert is_plain(data)
    read = cbor2.loads(canonical(data))
    assert read == data, "content is compared (A13): what is written must equal what is read"
    assert from_data(type(record), read) == record


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: type(record).__name__)
def test_a_field_of_a_later_version_is_ignored_and_a_missing_one_refused(record):
    data = to_data(record)
    assert from_data(type(record), {**data, "of_tomorrow": [1]}) == record
    required = {f.encode_name for f in msgspec.structs.fields(type(record)) if f.required}
    for name in required:
        with pytest.raises(UnusableEventError, match=type(record).__name__):
            from_data(type(record), {key: value for key, value in data.items() if key != name})


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: type(record).__name__)
def test_a_value_of_another_type_is_refused(record):
    data = to_data(record)
    for name in data:
        with pytest.raises(UnusableEventError, match=type(record).__name__) as caught:
            from_data(type(record), {**data, name: object()})
        assert caught.value.code == "event.schema"


def test_bytes_are_bytes_and_never_a_text_that_stands_for_them():
    decision = to_data(ONE_OF_EACH[-1])
    with pytest.raises(UnusableEventError, match="view_digest"):
        from_data(Decision, {**decision, "view_digest": "AAAA"})


def test_every_record_of_the_registry_is_a_struct_that_forgives_new_fields():
    for row in TOPICS:
        if row.record is not None:
            assert issubclass(row.record, msgspec.Struct)
            assert not row.record.__struct_config__.forbid_unknown_fields


def test_who_asks_whether_data_is_readable_is_told_so_of_what_is_no_record() -> None:
    assert readable(Probe, to_data(Probe(result="passed", reason="", round_trip_s=0.1))) is not None
    assert readable(Probe, {"result": 7}) is None


def test_the_named_times_of_data_are_later_and_what_is_not_known_stays() -> None:
    data = {"since_ms": 5, "last_exit": {"at_ms": 7, "code": 1}, "next": None, "name": {"at_ms": 1}}
    found = later(data, ("since_ms", "last_exit.at_ms", "next", "absent", "absent.at_ms", "since_ms.below"), 10)
    assert found == {**data, "since_ms": 25, "last_exit": {"at_ms": 17, "code": 1}}
    assert data["since_ms"] == 5

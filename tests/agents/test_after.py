"""After: what a record says once acts were done."""

from __future__ import annotations

from msgspec.structs import replace

from dsmt.agents.rules import after
from dsmt.agents.rules.acts import Wanted
from dsmt.agents.rules.container import InstanceRecord
from dsmt.agents.rules.supervision import Again, Finished, History
from dsmt.ports.driver import Handle

OLD, NEW = Wanted("i1", "r1", 1, 0), Wanted("i2", "r2", 2, 0)
HANDLE, OTHER = Handle({"pid": 7}), Handle({"name": "web-app-0"})
RUNS = replace(
    InstanceRecord(boot="b", ports={"http": 20001}),
    **after.started(OLD, handle=HANDLE, driver="process", began=5.0, history=History()),
)


def test_what_was_let_go_and_is_taken_back_is_written_as_it_was_also_its_driver() -> None:
    ready = replace(RUNS, started=True, ready=True, check="c", ports={"http": 20001})
    both = replace(ready, **after.handed_over(ready, OLD, handle=HANDLE, began=5.0))
    both = replace(both, ports={"http": 20002}, configured="r2")
    both = replace(both, **after.started(NEW, handle=OTHER, driver="podman", began=9.0, history=History()))
    assert replace(both, **after.taken_back(both.outgoing, check="c")) == ready  # type: ignore[arg-type]


def test_an_installation_that_is_begun_anew_does_not_count_until_its_end() -> None:
    record = InstanceRecord(boot="b", installed=("i1", "i2"), configured="r1", step="reinstall")
    begun = replace(record, **after.installing(record, "i1"))
    assert (begun.installed, begun.configured, begun.step) == (("i2",), "", "reinstall")
    assert replace(begun, **after.installed(begun, "i1")) == replace(record, installed=("i2", "i1"), configured="", step="")


def test_what_was_decided_of_a_failure_stands_until_it_is_forgotten() -> None:
    verdict, history = Again("recreate", 2.0, 1, 3), History(failures=1)
    record = replace(RUNS, **after.failed(RUNS, verdict, history, 100.0))
    assert (record.step, record.not_before_s, record.restarts, record.finished) == ("recreate", 102.0, 1, False)
    last = replace(record, **after.failed(record, Finished(), history, 200.0))
    assert (last.step, last.restarts, last.finished) == ("", 1, True)
    assert replace(last, **after.forgotten(History())) == replace(RUNS, restarts=1)

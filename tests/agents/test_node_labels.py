"""Labels of a node that a spec names, and the node has not, or has no more."""

import pytest
from msgspec.structs import replace

from dsmt.agents.rules.container import EXIT_GONE
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .world import WEB, Site


@pytest.mark.parametrize(
    "key",
    [
        "env: {RACK: '{node.label.rack}'}",
        "install: put '{node.label.rack}'",
        "files: [{to: a, content: '{node.label.rack}', template: true}]",
        "stop: {command: [tell, '{node.label.rack}']}",
        "health: {exec: [look, '{node.label.rack}']}",
    ],
    ids=lambda key: key.partition(":")[0],
)
@in_virtual_time
async def test_a_label_that_the_node_has_not_is_told_as_that_before_anything_is_begun(key: str) -> None:
    site = Site(Realm())
    site.place(WEB + f"    {key}\n")
    agent = site.start()
    await site.until("failed")
    reason, where = site.statuses()[-1]["reason"], key.partition(":")[0]
    assert (reason["code"], reason["who"]) == ("start.driver", "you")
    lacks = f"{where} names {{node.label.rack}}, and n1 has no such label"
    assert reason["message"] == f"the driver process cannot start it: {lacks}"
    typed = "dsmt up --label rack=VALUE on its machine (dsmt node add, of an added host)"
    assert reason["next"] == f"give n1 that label: {typed}; or correct the file"
    assert not site.machine.programs
    agent.kill()


@in_virtual_time
async def test_what_runs_and_whose_label_its_node_has_no_more_goes_on_and_ends_when_it_is_told() -> None:
    site = Site(Realm())
    spec = site.place(WEB + "    env: {RACK: '{node.label.zone}'}\n    uninstall: put '{node.label.zone}'\n")
    agent = site.start()
    await site.until("running")
    pid = site.kept_pid()
    agent.kill()
    site.config = replace(site.config, labels={})
    agent = site.start()
    await site.realm.until(lambda: site.last is not None and site.kept_pid() == pid, 600.0)
    site.assign(spec, version=2, desired="gone")
    assert (await agent.wait()).code == EXIT_GONE
    assert not site.machine.alive

"""By which restart policy a failure is answered: by that of what is wanted."""

from __future__ import annotations

from dsmt.ports.bus import Arrived, Notice
from dsmt.ports.processes import Exit
from dsmt.ports.realm import KEY_ENDED
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .world import WEB, Site


@in_virtual_time
async def test_what_only_the_word_of_a_key_that_has_ended_wanted_answers_no_failure() -> None:
    site = Site(Realm())
    site.machine.steps["prepare"] = Exit(1, None)
    first = site.place()
    process = site.start()
    await site.until("running")
    evil = site.assign(site.spec(WEB + "    restart: never\n    install: prepare it\n", version=2), version=2)
    await site.until("failed")
    site.realm.void.append(evil)
    site.realm.facts[first.event.topic] = first
    site.realm.tell(Notice(KEY_ENDED, ""))
    site.realm.tell(Arrived(first, 1, live=True))
    await site.realm.until(lambda: site.record().generation == 1)
    (runs,) = site.machine.alive
    runs.end(Exit(1, None))
    said = len(site.statuses())
    await site.realm.until(lambda: "failed" in site.states()[said:])
    told = next(one for one in site.statuses()[said:] if one["state"] == "failed")
    assert told["next_try_ms"] is not None, "it is tried again, and not left alone"
    process.kill()

"""After: what of an instance's record an act changes once it was done, or has failed; the shell writes it as it is.

Rule 1: what runs is written as what was started, until something else is: keys, generation and restart number stay.
Rule 2: an installation counts from its end on, and no more from the moment it is begun anew.
Rule 3: what was decided of a failure stands until a start, a new generation or an operator's word; that a program has ended
    and is not run again stands until something else is wanted (A20).
Rule 4: a step in which `CUT_MOST` agents have ended one after the other has failed: it may be what ends them. Where dsmt
    itself has ended one, or the machine has, it is not, and counting begins anew.
Rule 5: that a program is to end is written (`asked`) before it is told: whichever agent sees its end, that is no failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from dsmt.agents.rules import endings
from dsmt.agents.rules.acts import Goal
from dsmt.agents.rules.record import WROTE_MOST, FinishedRun, InstanceRecord, OutgoingCopy, Written
from dsmt.agents.rules.supervision import Finished, RestartHistory, Verdict, leaves
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Ended, Good
from dsmt.ports.driver import Handle
from dsmt.spec.records import RestartPolicy

BEGUN_MOST: Final = 8
"""Of so many programs an instance's record says when they were begun last."""
CUT_MOST: Final = 3
Changes = dict[str, Any]
"""Fields of an `InstanceRecord`, and what they are from now on."""


def obeyed(
    record: InstanceRecord,
    history: RestartHistory,
    *,
    epoch: int,
    generation: int,
    revision: int,
    trigger: tuple[str, ...],
    runs: bool,
) -> Changes:
    """A slot fact is obeyed: what has failed is tried anew, what has ended stays so if it is to run still (rule 3)."""
    stays = record.finished and runs and _ran(record.last_exit)
    about = {"epoch": epoch, "generation": generation, "revision": revision, "trigger": trigger}
    return {**forgotten(history), "finished": stays, "done": _done(record), **about}


def _done(record: InstanceRecord) -> FinishedRun | None:
    """What has ended well last."""
    last = record.last_exit
    if last is None or not record.ended_well:
        return record.done
    return FinishedRun(run_key=record.run_key, restart=record.run_restart, at_ms=last.at_ms, ran_s=last.ran_s)


def ended_before(record: InstanceRecord, wanted: Goal | None) -> Ended | None:
    """How what is gone back to had ended well before what was refused was tried (A20); None where it had not."""
    done = record.done
    again = done is not None and wanted is not None and (done.run_key, done.restart) == (wanted.run_key, wanted.restart)
    return Ended(at_ms=done.at_ms, ran_s=done.ran_s) if done is not None and again else None


def ended(record: InstanceRecord, wanted: Goal | None, policy: RestartPolicy | None) -> Goal | None:
    """What has ended by itself and is not run again (rule 3); `wanted` and `policy` are None while the spec is not here."""
    if not record.finished:
        return None
    last = record.last_exit
    if last is None or not _ran(last):
        return wanted or record.goal
    if policy is not None and not leaves(policy, clean=last.code == 0):
        return None
    return record.goal


def _ran(last: LastExit | None) -> bool:
    """Whether what failed was a program that ran, though nobody saw how it ended, and no installation or start."""
    if last is None:
        return False
    unseen = last.reason is not None and last.reason.code in ("run.unseen", "run.vanished")
    return unseen or last.code is not None or last.signal is not None


def doing(record: InstanceRecord, step: str) -> Changes:
    """A step has begun; where it was under way before, the agent that did it has ended in it (rule 4)."""
    return {"doing": step, "cut": record.cut + 1 if record.doing == step else 0}


def did() -> Changes:
    """The step under way has ended, whether it succeeded or not, or is no longer wanted."""
    return {"doing": "", "cut": 0}


def cut_off() -> Changes:
    """The step keeps killing its agent, so it counts as failed. It is tried again; one more such death fails it again."""
    return {"cut": CUT_MOST - 2}


def installing(record: InstanceRecord, key: str) -> Changes:
    """An installation has begun (rule 2)."""
    return {"installed": tuple(one for one in record.installed if one != key), "configured": ""}


def installed(record: InstanceRecord, key: str) -> Changes:
    """It is complete."""
    return {"installed": (*record.installed, key), "step": ""}


def ended_elsewhere(record: InstanceRecord, wanted: Goal | None, told: Ended | None) -> Ended | None:
    """How a fact says that what is wanted has ended; of what was begun here since then it says nothing."""
    begun = 0 if wanted is None else record.begun.get(wanted.run_key, 0)
    return told if told is not None and begun <= told.at_ms else None


def started(
    record: InstanceRecord,
    wanted: Goal,
    *,
    handle: Handle | None,
    driver: str,
    began: float,
    history: RestartHistory,
    now_ms: int,
) -> Changes:
    """A program was started (at `now_ms`, realm time); how one of the same key had ended before says nothing of it."""
    done = record.done
    others = [(key, at_ms) for key, at_ms in record.begun.items() if key != wanted.run_key]
    return {
        **did(),
        "begun": dict([*others[1 - BEGUN_MOST :], (wanted.run_key, now_ms)]),
        "done": None if done is not None and done.run_key == wanted.run_key else done,
        "process": handle,
        "driver": driver,
        **_of(wanted),
        "started": False,
        "ready": False,
        "asked": False,
        "check": "",
        "began_s": began,
        "step": "",
        "not_before_s": 0.0,
        "finished": False,
        "history": history,
    }


def taken_over(wanted: Goal) -> Changes:
    """What runs is what a new generation wants."""
    return {"run_generation": wanted.generation, "run_restart": wanted.restart}


def writes_on(record: InstanceRecord, revision: int) -> Changes:
    """What runs is of another revision from now on."""
    return {"writes": None if record.writes is None else replace(record.writes, revision=revision)}


def stayed(record: InstanceRecord, wanted: Goal, good: Good) -> Changes:
    """What has ended is what a new generation wants; where that was good once, so is the revision that asks for no more."""
    return {**taken_over(wanted), "good": good if record.good_key == wanted.run_key else record.good}


def came_ended(wanted: Goal, good: Good, last: LastExit) -> Changes:
    """What is wanted has ended well on another node."""
    return {**_of(wanted), "finished": True, "last_exit": last, "good": good, "good_key": wanted.run_key}


def begins_to_write(record: InstanceRecord, begins: Written, ends: Mapping[str, int], turned: Mapping[str, int]) -> Changes:
    """A run is about to begin, whose output stands behind what its files hold (`ends`), of which some were put aside."""
    return {
        "writes": begins,
        "wrote": tuple(_closed(one, ends) for one in _ended(record, record.writes)),
        "turned": dict(turned),
    }


def _closed(one: Written, ends: Mapping[str, int]) -> Written:
    """The same where something else is begun behind it."""
    places = {
        stream: (turn, begin, ends.get(stream) if end is None else end) for stream, (turn, begin, end) in one.places.items()
    }
    return replace(one, places=places)


def _ended(record: InstanceRecord, ended: Written | None) -> tuple[Written, ...]:
    """The runs that have ended, with one more."""
    if ended is None:
        return record.wrote
    return (*(one for one in record.wrote if one.revision != ended.revision), ended)[-WROTE_MOST:]


def before_ended(record: InstanceRecord) -> Changes:
    """The copy before has ended."""
    return {"outgoing": None, "wrote": _ended(record, None if record.outgoing is None else record.outgoing.writes)}


def handed_over(record: InstanceRecord, running: Goal, *, handle: Handle, began: float) -> Changes:
    """What runs goes on beside its successor, which is still to be started."""
    old = OutgoingCopy(
        process=handle,
        ports=record.ports,
        driver=record.driver,
        began_s=began,
        restarts=record.restarts,
        history=record.history,
        writes=record.writes,
        **_of(running),
    )
    return {"outgoing": old, "process": None, "started": False, "ready": False, "writes": None}


def taken_back(record: InstanceRecord, old: OutgoingCopy, *, check: str) -> Changes:
    """The copy before, which was ready, is what runs again."""
    return {
        **did(),
        "outgoing": None,
        "writes": old.writes,
        "wrote": _ended(record, record.writes),
        "process": old.process,
        "driver": old.driver,
        "ports": old.ports,
        "run_key": old.run_key,
        "install_key": old.install_key,
        "run_generation": old.run_generation,
        "run_restart": old.run_restart,
        "configured": "",
        "started": True,
        "ready": True,
        "asked": False,
        "check": check,
        "began_s": old.began_s,
        "restarts": old.restarts,
        "history": old.history,
    }


def stopped(last: LastExit | None) -> Changes:
    """What ran has ended as it was asked to."""
    return {"process": None, "asked": False, "ready": False, "last_exit": last}


def failed(record: InstanceRecord, verdict: Verdict, history: RestartHistory, now: float, *, counts: bool = True) -> Changes:
    """Something has failed, and this is what supervision has decided; what is tried again counts as a restart."""
    step, delay_s, _ = endings.follows(verdict)
    return {
        "history": history,
        "finished": isinstance(verdict, Finished),
        "step": step if step in ("reinstall", "recreate") else "",
        "not_before_s": now + (delay_s or 0.0),
        "restarts": record.restarts + (1 if counts and delay_s is not None else 0),
    }


def forgotten(history: RestartHistory) -> Changes:
    """The cause of what has failed may have changed (rule 3)."""
    return {"held": 0, "finished": False, "done": None, "step": "", "not_before_s": 0.0, "history": history}


def left() -> Changes:
    """It is gone from here."""
    return {**did(), "installed": (), "configured": "", "ports": {}, "process": None, "step": "", "not_before_s": 0.0}


def _of(wanted: Goal) -> Mapping[str, Any]:
    """What tells a run of it (rule 1)."""
    return {
        "run_key": wanted.run_key,
        "install_key": wanted.install_key,
        "run_generation": wanted.generation,
        "run_restart": wanted.restart,
    }

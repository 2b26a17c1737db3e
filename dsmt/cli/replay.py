"""`replay`."""

from __future__ import annotations

import click

from dsmt.cli.command import a_file, command
from dsmt.cli.context import CliContext
from dsmt.cli.printing import document, one_line
from dsmt.cli.verify import read_with_trust, told, trust_option
from dsmt.controllers.decide import RULESET
from dsmt.event.phrases import counted, some
from dsmt.operations.offline.replaying import Replayed, replay_file


@command()
@click.argument("file", shell_complete=a_file)
@trust_option
def replay(ctx: CliContext, file: str, trust_file: str | None) -> int:
    """Repeat the decisions of controllers from a history that `dsmt export` wrote, and say what differs.

    It also names what controllers have said that none of their decisions names.

    Ends with 1 when a decision comes out different, or the history does not verify.
    """
    raw, trust = read_with_trust(ctx, file, trust_file)
    with told(ctx) as tell:
        done = replay_file(raw, trust, tell)
    if ctx.json:
        document(done)
    else:
        _show(file, done)
    return 0 if done.ok else 1


def _show(file: str, done: Replayed) -> None:
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in done.decisions:
        if one.outcome != "same":
            alike.setdefault((one.outcome, tuple(one.details)), []).append(one.decision)
    for (outcome, details), decisions in alike.items():
        print(f"{_WORDS[outcome]:<11} {some(decisions, 1)}  {one_line('; '.join(details))}")
    for fact in done.undecided:
        print(f"UNDECIDED   {fact.event}  {one_line(fact.topic)}: no decision of its controller names it")
    print(
        f"{file}: {counted(len(done.decisions), 'decision')} of {counted(done.controllers, 'controller')}, ruleset {RULESET}"
    )
    if not done.verified:
        print("NOT VERIFIED: these results prove nothing; dsmt verify says what is wrong with the file")
    if done.before and done.incomplete:
        said = f"the file begins behind row {done.before}: what was decided from facts before that cannot be decided again"
        print(f"{said}; dsmt export FILE without --since writes them, too")
    counts = [
        (done.same, "the same"),
        (done.different, "different"),
        (done.incomplete, "with incomplete inputs"),
        (done.other_ruleset, "by another ruleset"),
    ]
    print(", ".join(f"{number} {what}" for number, what in counts if number) or "nothing was decided")
    if done.undecided:
        said = f"{counted(len(done.undecided), 'fact')} of controllers that no decision names"
        print(f"{said}: a controller was killed as it said that, or its key is stolen")
    if done.stale:
        was = "was" if done.stale == 1 else "were"
        print(f"{counted(done.stale, 'fact')} of these {was} refused as stale: another controller's was first")


_WORDS = {"different": "DIFFERENT", "inputs incomplete": "INCOMPLETE", "other ruleset": "OTHER RULES"}

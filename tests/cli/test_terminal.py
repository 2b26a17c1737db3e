"""What goes to a terminal: fitted, coloured only there, and never steered by what others wrote."""

import io
import json
import unicodedata
from pathlib import Path

import msgspec
import pytest

from dsmt.cli import event_lines, member_screens, screens, service_screen
from dsmt.cli.context import CliContext
from dsmt.cli.listing import endpoint_lines
from dsmt.cli.logs import written
from dsmt.cli.past import screen as history_screen
from dsmt.cli.plan_screen import screens as plan_screens
from dsmt.cli.printing import Escaping, document, fitted, folded, line, one_line
from dsmt.cli.removing import _show
from dsmt.cli.root import main
from dsmt.cli.why import why_not_lines
from dsmt.errors import InputError
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.node import NodeControl
from dsmt.event.kinds.realm import BrakeWord
from dsmt.event.kinds.slot import Hold
from dsmt.event.reason import reason
from dsmt.event.status import State
from dsmt.operations.read.ahead.planning import plan
from dsmt.operations.read.rows.endpoints import Reached
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import node_rows, node_shown
from dsmt.operations.read.rows.past import Revision
from dsmt.operations.read.screens.summaries import services, status
from dsmt.operations.read.why.fitting import Clause, Fitting, why_not
from dsmt.operations.words.targets import Target
from dsmt.operations.write.asking_logs import LogLine, LogNotice
from dsmt.operations.write.controlling import Done
from dsmt.ports.bus import Notice
from dsmt.spec.parsing import parse
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.cli.in_process import Run
from tests.cli.screens import as_sent, check, on, running_one, trouble
from tests.controllers.build import Realm, key, web
from tests.operations.sights import sight

pytestmark = pytest.mark.usefixtures("utc")


def test_tail_is_fitted_to_eighty_columns_and_whole_into_a_pipe() -> None:
    realm = trouble()
    dead = next(name for name in sorted(realm.view.nodes) if realm.view.winner(f"node/{name}/verdict"))
    told = [signed.event for _, signed in realm.rows if signed.event.type != "dsmt.heartbeat"]
    kinds = ("dsmt.session", "dsmt.service.spec", "dsmt.slot", "dsmt.status", "dsmt.health", "dsmt.node.verdict")
    one_each = [next(event for event in reversed(told) if event.type == kind) for kind in kinds]
    notices = [
        Notice("dsmt.notice.gap", f"node/{dead}/probe/n1 #118..#120 of monitor/n1: not seen yet"),
        Notice("dsmt.notice.disconnected", "from b1: nothing arrives until a broker is back; trying again"),
        Notice("dsmt.notice.badsignature", "the signature of an event on service/web/ is wrong"),
    ]

    def screen(width: int | None) -> str:
        lines = [event_lines.event_line(event, width) for event in one_each]
        return "\n".join([*lines, *(event_lines.notice_line(one, realm.now_ms, width) for one in notices)])

    check("tail", screen(80), folds=False)
    check("tail_pipe", screen(None), folds=False)
    assert all(len(line) <= 80 for line in screen(80).splitlines())


def test_a_character_that_takes_two_columns_counts_as_two() -> None:
    wide = "日本語 " * 30
    assert max(map(shown_columns, folded(f"  {wide}", 40).splitlines())) <= 40
    assert folded(f"  {wide}", 40).split() == wide.split()
    assert folded("    start.cannot_exec: no", 20) == "    start.cannot_exec:\n      no", "its first word is too wide"
    for width in range(10, 20):
        cut = fitted("日本語" * 10, width)
        assert cut.endswith("...")
        assert width - 1 <= shown_columns(cut) <= width
    assert fitted("日本", 4) == "日本"


def shown_columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(one) == "W") for one in text)


def test_a_line_is_coloured_by_how_bad_it_is_and_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = trouble()
    told = [signed.event for _, signed in realm.rows]
    verdict = next(event for event in told if event.type == "dsmt.node.verdict")
    plain = event_lines.event_line(verdict, 80)
    assert as_sent(plain) == plain
    monkeypatch.setattr("dsmt.cli.printing.coloured", lambda: True)
    assert as_sent(event_lines.event_line(verdict, 80)) == f"\x1b[31m{plain}\x1b[0m"


def test_logs_name_the_instance_where_there_are_several_and_null_an_unknown_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = 1_700_000_000_000
    told: list[LogLine | LogNotice] = [
        LogLine("web/app/0", "n1", "stdout", "listening on :20000", None, at),
        LogNotice("web/app/0", "web/app/0 is on n2 now"),
        LogLine("web/app/0", "n2", "stderr", 'GET / "x\x1b[31m"', at - 400, at),
    ]
    sent = io.StringIO()
    monkeypatch.setattr("sys.stdout", Escaping(sent))
    for ctx, many in ((CliContext(), False), (CliContext(), True), (CliContext(json=True), True)):
        sent.write(f"== {'json' if ctx.json else 'several' if many else 'one'}\n")
        for one in told:
            written(ctx, one, many=many)
    check("logs", sent.getvalue().rstrip("\n"), folds=False)
    assert capsys.readouterr().err == "-- web/app/0 is on n2 now\n" * 2


def test_raw_is_refused_to_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["tail", "--raw"]) == InputError.exit
    assert "dsmt tail --raw > FILE" in capsys.readouterr().err


def test_colour_only_repeats_what_a_word_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmt.cli.printing.coloured", lambda: True)
    seen = sight(trouble())
    coloured = as_sent(screens.ps(instances(seen), seen))
    assert "\x1b[31m" in coloured
    plain = coloured
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        plain = plain.replace(code, "")
    check("ps", plain)


def test_what_others_wrote_never_steers_the_terminal() -> None:
    theirs = "a\nb\x1b[31m\x9bc\rd\x7f"
    assert as_sent(theirs) == "a\nb\\x1b[31m\\x9bc\\rd\\x7f"
    realm = running_one()
    realm.control(key(0), hold=Hold(by="alice", at_ms=realm.now_ms, reason=theirs))
    realm.settle()
    seen = sight(realm)
    shown = screens.ps(instances(seen), seen)
    assert "a\\nb\\x1b[31m\\x9bc\\rd\\x7f" in shown
    assert as_sent(shown) == shown


THEIRS = "a\nb\x1b[31m\x9bc\rd\x7f\u202ee\u2028f\tg"


def spoken(said: str) -> list[str]:
    """Every screen of a realm in which others have said something wherever they may say what they like."""
    realm = Realm("n1", "n2", "n3")
    quoted = json.dumps(said)
    text = web(
        2, head=f"description: {quoted}\nowner: {quoted}\nlabels: {{tier: {quoted}}}\n", component=f"env: {{A: {quoted}}}"
    )
    realm.apply(text)
    realm.settle()
    before = realm.view.winner("service/web/spec")
    assert before is not None
    realm.say("operator/alice", "service/web/spec", {**before.event.data, "by": said, "reason": said})
    realm.settle()
    realm.say("operator/alice", "node/n3/control", NodeControl(mode="draining", by=said, reason=said))
    realm.attributes("n2", version=said, labels={"a": said})
    realm.control(key(0), hold=Hold(by=said, at_ms=realm.now_ms, reason=said))
    why = reason("run.exited", exit_code=1, time=said, target="web/app/1", last_output="\x1b[31mred")
    why = msgspec.structs.replace(why, message=said, next=said)
    realm.status(key(1), on(realm, key(1)), State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000, restarts=7)
    realm.say("operator/alice", "config/brake", BrakeWord(held=True, released_ms=0, by=said, reason=said))
    seen = sight(realm)
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    told = status(seen, trust, [])
    rows = instances(seen, Target("web"))
    (one,) = services(seen)
    events = [signed.event for _, signed in realm.rows if signed.event.topic.startswith("service/web/")]
    about = {"revision": 1, "at": rfc3339(seen.now_ms), "by": said, "reason": said, "removed": False}
    past = [Revision(state=["refused"], refusal=said, **about)]
    planned = plan(seen, parse(web(3, component=f"env: {{B: {quoted}}}"), file="web.yaml")[0], by="alice", warnings=[said])
    return [
        screens.ps(rows, seen),
        screens.services([one], seen),
        member_screens.nodes(node_rows(seen), seen),
        *(member_screens.node_shown(node_shown(seen, name), seen) for name in ("n1", "n2", "n3")),
        screens.status(told, seen),
        service_screen.screen(one, rows, events, sight=seen, realm="prod"),
        plan_screens([planned], ("web.yaml",)),
        history_screen("web", past, seen),
    ]


def test_no_screen_shows_control_characters_or_is_broken_by_a_newline_wherever_others_say_them() -> None:
    hostile, harmless = spoken(THEIRS), spoken("a" * len(one_line(THEIRS)))
    for theirs, plain in zip(hostile, harmless, strict=True):
        assert len(theirs.splitlines()) == len(plain.splitlines()), theirs
        assert not [c for c in theirs if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2028")], theirs


def test_json_keeps_what_others_wrote_and_is_json_that_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in (THEIRS, "a\x9b\x1b\n", "\x7f漢é\u202e"):
        for write in (document, line):
            sent = io.StringIO()
            monkeypatch.setattr("sys.stdout", Escaping(sent))
            write({"said": said})
            assert json.loads(sent.getvalue()) == {"said": said}
            assert sent.getvalue().replace("\n", "").isprintable()


@pytest.mark.parametrize("typed", ["a\x7f", "a\x9b31m", "a\u202eb", "a\udcff"], ids=ascii)
def test_an_error_in_json_is_json_whatever_was_typed(run: Run, made: Path, typed: str) -> None:
    for arguments in ([typed], ["explain", typed], ["apply", f"{typed}.yaml"], ["help", typed]):
        code, told = run(*arguments, "--json", home=made)
        error = msgspec.json.decode(told)["error"]
        assert typed.encode(errors="backslashreplace").decode() in error["message"]
        assert error["exit"] == code
        assert told[:-1].isprintable()


def test_where_an_instance_is_reached_or_has_its_data_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    one = Reached(instance="web/app/0", node=THEIRS, address=THEIRS, ports={THEIRS: 80}, generation=1)
    assert len(endpoint_lines([one]).splitlines()) == 1
    for action in ("purge", "remove"):
        done = Done(action=action, target="web", instances=[], unchanged=[], data={"web/app/0": THEIRS})
        _show("web", done, ended=True)
        assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_line_that_holds_a_newline_is_shown_as_no_line_of_another_instance(capsys: pytest.CaptureFixture[str]) -> None:
    for many, begins in ((True, "web/app/0 | "), (False, "")):
        written(CliContext(), LogLine("web/app/0", "n1", "stdout", "a\tb\nweb/app/1 | c", None, 0), many=many)
        assert capsys.readouterr().out == f"{begins}a\tb\\nweb/app/1 | c\n"


def test_a_plan_of_several_files_does_not_say_that_each_service_is_in_all_of_them() -> None:
    plans = [plan(sight(Realm("n1")), parse(web(1, service=one), file="t")[0], by="alice", warnings=[]) for one in "ab"]
    shown = plan_screens(plans, ("a.yaml", "b.yaml"))
    assert shown.startswith("a  new: r1\n")
    assert f"dsmt apply a.yaml b.yaml --plan {plans[0].id} --plan {plans[1].id}" in shown
    assert f"dsmt apply 'my services.yaml' --plan {plans[0].id}" in plan_screens(plans[:1], ("my services.yaml",))


def test_what_keeps_an_instance_off_several_nodes_in_the_same_words_is_said_once() -> None:
    clause = Clause(clause="data", removes=3, alone=3, nodes=dict.fromkeys(("n1", "n2", "n3"), "its data is on n4"))
    found = Fitting(
        target="db/pg/0", on=None, has=None, fits=[], nodes=3, clauses=[clause], suggestions=["act"], reason=None
    )
    shown = "\n".join(why_not_lines(found)).splitlines()
    assert shown.count("  its data is on n4") == 1
    assert shown[0] == "db/pg/0: 0 of 3 nodes fit: -"
    assert shown[-1] == "    act"


def test_why_not_goes_on_below_where_a_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="reserve: {memory: 900GiB}"))
    realm.settle()
    found = why_not(sight(realm), Target("web"))
    monkeypatch.setattr(CliContext, "ask", lambda *_: found)
    monkeypatch.setattr("dsmt.cli.printing.columns", lambda *_: 40)
    assert main(["why-not", "web"]) == 0
    told = capsys.readouterr().out
    assert "900 GiB memory" in told
    assert max(map(shown_columns, told.splitlines())) <= 40

"""Command lines, environments and ports of instances."""

from typing import Any

import pytest
from msgspec import structs

from dsmt.agents.instance.choosing_ports import choose_ports
from dsmt.agents.rules.acts import Goal
from dsmt.agents.rules.container import AgentConfig, dump_config, load_config
from dsmt.agents.rules.endings import ending, of_error, words
from dsmt.agents.rules.launching import RunPlan, check_key, environment, launch_of, plan_of, values_of
from dsmt.errors import FailedError, InputError
from dsmt.event.reason import failed
from dsmt.event.slots import SlotKey
from dsmt.ports.driver import Mount
from dsmt.ports.processes import Exit
from dsmt.spec.changes import install_key, run_key
from dsmt.spec.parsing import parse

from .world import node_config

SLOT = SlotKey("web", "app", 0)
CONFIG = node_config().for_agent(SLOT)


class Taken:
    def __init__(self, *ports: int) -> None:
        self.ports = ports

    def holder(self, port: int, address: str, protocol: str) -> str | None:
        return "pid 1 init" if port in self.ports else None


def plan(text: str) -> RunPlan:
    spec = parse(f"service: web\nlabels: {{team: a}}\ncomponents:\n  app:\n{text}", file="t")[0]
    return plan_of(spec, "app", spec_id="s", revision=3, generation=7, restart=0)


def env(made: RunPlan, ports: dict[str, int], **files: bytes) -> dict[str, str]:
    values = values_of(made, CONFIG, ports=ports, directory="/d", data="/data")
    inherited = {"PATH": "/bin", "HOME": "/root", "TOKEN": "secret"}
    return environment(made, values, ports=ports, inherited=inherited, read=lambda path: files.get(path.strip("/")))


def test_placeholders_are_filled_in_the_command_and_the_environment() -> None:
    made = plan(
        "    run: serve {port.http} {instance} {node} {revision} {directory} {data} {label.team} {node.label.zone}\n"
        "    ports: {http: auto}\n"
        "    data: true\n"
        "    env: {WHERE: '{address}:{port.http}', HOME: null, N: 3}\n"
    )
    values = values_of(made, CONFIG, ports={"http": 20001}, directory="/d", data="/data")
    got = env(made, {"http": 20001})
    launch = launch_of(made, values, got, directory="/d", stdout="o", stderr="e")
    assert launch.argv == ("serve", "20001", "web/app/0", "n1", "3", "/d", "/data", "a", "a")
    assert got["WHERE"] == "127.0.0.1:20001"
    assert got["PORT"] == got["PORT_HTTP"] == "20001"
    assert got["N"] == "3"
    assert got["DSMT_DATA"] == "/data"
    assert "HOME" not in got
    assert "TOKEN" not in got
    assert launch.limits["pids"] == 4096


def test_the_texts_of_a_component_are_read_once_for_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan("    run: serve {node.label.zone} {node.label.rack}\n    env: {RACK: '{node.label.rack}'}\n")
    monkeypatch.setattr("dsmt.agents.rules.launching.templates", lambda _: pytest.fail("they are read again"))
    for one in (made, made.at(8, 1)):
        with pytest.raises(FailedError, match=r"run names \{node\.label\.rack\}, and n1 has no such label"):
            values_of(one, CONFIG, ports={}, directory="/d", data="")


def test_a_value_may_be_read_from_a_file_on_the_node_and_its_absence_is_told() -> None:
    made = plan("    run: serve\n    env: {KEY: {file: /etc/key}}\n")
    assert env(made, {}, **{"etc/key": b"abc\n"})["KEY"] == "abc"
    with pytest.raises(FailedError, match="/etc/key") as raised:
        env(made, {})
    assert raised.value.code == "start.driver"
    told = of_error(raised.value, "the agent", target="web/app/0", node="n1")
    assert (told.next, told.who) == ("put it there on n1, or correct `env`", "you")


def test_what_to_do_about_a_step_that_failed_names_the_instance_whose_logs_tell_more() -> None:
    for error in (failed("install.cut", step="configure"), FailedError("install.command", "it ended", step="configure")):
        told = of_error(error, "the agent", target="web/app/0", node="n1")
        assert (told.message, told.next) == (error.message, "dsmt logs web/app/0 --step configure")


def test_a_port_is_kept_while_it_is_free_and_chosen_anew_when_it_is_not() -> None:
    made = plan("    run: serve\n    ports: {http: auto, admin: auto}\n")
    first = choose_ports(made, CONFIG, {}, Taken(), occupied=False)
    assert choose_ports(made, CONFIG, first, Taken(), occupied=False) == first
    moved = choose_ports(made, CONFIG, first, Taken(first["http"]), occupied=False)
    assert moved["http"] != first["http"]
    assert moved["admin"] == first["admin"]
    assert choose_ports(made, CONFIG, first, Taken(first["http"]), occupied=True) == first
    assert len(set(moved.values())) == 2


def test_nodes_and_realms_that_share_a_machine_look_from_different_places() -> None:
    made = plan("    run: serve\n    ports: {http: auto}\n")
    others = [CONFIG, structs.replace(CONFIG, roots=(b"r" * 32,)), structs.replace(CONFIG, node="n2")]
    assert len({choose_ports(made, one, {}, Taken(), occupied=False)["http"] for one in others}) == 3


def test_two_ports_of_an_instance_are_never_the_same() -> None:
    made = plan("    run: serve\n    ports: {http: auto, admin: auto}\n")
    chosen = choose_ports(made, CONFIG, {"http": 20005, "admin": 20005}, Taken(), occupied=False)
    assert chosen["http"] != chosen["admin"]


@pytest.mark.parametrize(("before", "kept"), [(19999, False), (20000, True), (29999, True), (30000, False)])
def test_a_port_that_is_beyond_those_that_are_chosen_now_is_not_kept(before: int, kept: bool) -> None:
    made = plan("    run: serve\n    ports: {http: auto}\n")
    chosen = choose_ports(made, CONFIG, {"http": before}, Taken(), occupied=False)["http"]
    assert (chosen == before) == kept
    assert 20000 <= chosen < 30000


def test_every_port_taken_is_told_not_waited_for() -> None:
    made = plan("    run: serve\n    ports: {http: auto}\n")
    with pytest.raises(FailedError, match="every port"):
        choose_ports(made, CONFIG, {}, Taken(*range(20000, 30000)), occupied=False)


def test_a_fixed_port_that_is_taken_is_told_with_who_has_it() -> None:
    with pytest.raises(FailedError, match=r"8080.*pid 1 init") as raised:
        choose_ports(plan("    run: serve\n    ports: {http: 8080}\n"), CONFIG, {}, Taken(8080), occupied=False)
    assert raised.value.code == "start.port_in_use"


def test_a_component_that_the_spec_does_not_have_is_told() -> None:
    spec = parse("service: web\ncomponents:\n  app: {run: serve}\n", file="t")[0]
    with pytest.raises(FailedError, match="no component other"):
        plan_of(spec, "other", spec_id="s", revision=1, generation=1, restart=0)


@pytest.mark.parametrize(
    ("ended", "started", "code", "fields"),
    [
        (Exit(1, None), True, "run.exited", {"exit_code": 1}),
        (Exit(None, 9), True, "run.signal", {"signal": "SIGKILL"}),
        (Exit(1, None), False, "start.exited", {"code": "code 1"}),
        (Exit(None, 11), False, "start.exited", {"code": "SIGSEGV"}),
        (Exit(None, None), True, "run.unseen", {"time": "1.5s"}),
        (Exit(None, 63), True, "run.signal", {"signal": "signal 63"}),
    ],
)
def test_how_a_run_ended_has_a_reason(ended: Exit, started: bool, code: str, fields: dict[str, Any]) -> None:
    found, told = ending(ended, 1.5, started=started)
    assert found == code
    assert fields.items() <= told.items()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.004, "4ms"), (1.49, "1.5s"), (12.3, "12s"), (123.0, "2m3s"), (3600.0, "1h")]
)
def test_spans_are_written_as_a_person_would(seconds: float, text: str) -> None:
    assert words(seconds) == text


def test_an_agents_configuration_survives_its_file() -> None:
    assert load_config(dump_config(CONFIG), where="t") == CONFIG
    for wrong in (None, b"", b"\xff", b"\xa0"):
        with pytest.raises(InputError, match=r"agent\.cbor"):
            load_config(wrong, where="agent.cbor")
    assert isinstance(CONFIG, AgentConfig)


@pytest.mark.parametrize(
    ("directory", "runs_in"),
    [(".", "/d"), ("sub", "/d/sub"), ("a/b", "/d/a/b"), ("/srv/web", "/srv/web")],
)
def test_a_program_runs_in_its_instance_s_directory_below_it_or_where_it_says(directory: str, runs_in: str) -> None:
    made = plan(f"    run: serve\n    directory: {directory}\n")
    assert launch_of(made, {}, {}, directory="/d", stdout="o", stderr="e").directory == runs_in


@pytest.mark.parametrize(
    ("said", "limits", "user"),
    [
        ("limits: {pids: 5}", {"pids": 5, "files": 65536}, ""),
        ("limits: {memory: 64MiB, files: 100}", {"pids": 4096, "files": 100, "memory": 2**26}, ""),
        ("user: www-data", {"pids": 4096, "files": 65536}, "www-data"),
    ],
)
def test_a_program_has_the_limits_and_the_user_that_its_spec_says(said: str, limits: dict[str, int], user: str) -> None:
    launch = launch_of(plan(f"    run: serve\n    {said}\n"), {}, {"A": "b"}, directory="/d", stdout="o", stderr="e")
    assert (launch.limits, launch.user, launch.env) == (limits, user, {"A": "b"})
    assert (launch.argv, launch.stdout, launch.stderr) == (("serve",), "o", "e")


def test_a_plan_of_another_generation_is_the_same_but_for_its_generation_and_its_restart() -> None:
    made = plan("    run: serve\n")
    later = made.at(9, 4)
    assert (later.wanted.generation, later.wanted.restart) == (9, 4)
    assert later.at(made.wanted.generation, made.wanted.restart) == made


def test_a_program_is_told_which_instance_it_is_and_where() -> None:
    got = env(plan("    run: serve\n"), {})
    told = {name.removeprefix("DSMT_"): value for name, value in got.items() if name.startswith("DSMT_")}
    its = {"SERVICE": "web", "COMPONENT": "app", "INDEX": "0", "INSTANCE": "web/app/0", "NODE": "n1", "REVISION": "3"}
    assert told == its, "and of no data, for it has none"
    assert env(plan("    run: serve\n    data: true\n"), {})["DSMT_DATA"] == "/data"


def test_a_program_of_another_user_inherits_nothing_that_is_the_nodes() -> None:
    inherit = "    run: serve\n    inherit_env: [PATH, HOME]\n"
    assert {"PATH", "HOME"} <= env(plan(inherit), {}).keys()
    others = env(plan(f"{inherit}    user: www-data\n"), {})
    assert "PATH" in others
    assert "HOME" not in others


def test_each_port_is_told_by_a_name_that_a_variable_may_have() -> None:
    got = env(plan("    run: serve\n    ports: {admin-ui: auto, http: auto}\n"), {"admin-ui": 20001, "http": 20002})
    assert (got["PORT_ADMIN_UI"], got["PORT_HTTP"], got["PORT"]) == ("20001", "20002", "20001")


def test_a_value_from_a_file_keeps_all_but_its_last_line_ends_and_takes_any_bytes() -> None:
    made = plan("    run: serve\n    env: {KEY: {file: /key}, GONE: null}\n")
    assert env(made, {}, key=b" a\nb \n\n")["KEY"] == " a\nb "
    assert env(made, {}, key=b"\xff")["KEY"] == "\ufffd"
    with pytest.raises(FailedError) as raised:
        env(made, {})
    assert raised.value.fields["driver"] == "process"
    assert "env.KEY" in raised.value.message


def test_a_plan_says_what_is_to_run_under_which_fact_and_spec() -> None:
    made = plan("    run: serve\n")
    component = made.component
    assert made.wanted == Goal(install_key(component), run_key(component), 7, 0)
    assert (made.spec, made.revision, made.labels) == ("s", 3, {"team": "a"})
    assert made.place == f"files/{install_key(component)[:16]}"


def test_a_program_may_write_to_its_directory_and_its_data_and_runs_its_image() -> None:
    made = plan("    image: nginx:1\n")
    launch = launch_of(made, {"data": "/data"}, {}, directory="/d", stdout="o", stderr="e")
    assert launch.image == "nginx:1"
    assert launch.mounts == (Mount("/d", writable=True), Mount("/data", writable=True))
    assert launch_of(made, {"data": ""}, {}, directory="/d", stdout="o", stderr="e").mounts == launch.mounts[:1]
    assert launch_of(plan("    run: serve\n"), {}, {}, directory="/d", stdout="o", stderr="e").image == ""


def test_another_check_or_another_value_of_what_it_names_is_another_way_to_check() -> None:
    def key(health: str, **values: str) -> str:
        made = plan(f"    run: serve\n    ports: {{http: auto}}\n    health: {health}\n")
        return check_key(made.component.health, {name.replace("_", "."): value for name, value in values.items()})

    exec_check = "{exec: 'check {port.http}'}"
    usual = key(exec_check, port_http="1", index="0")
    assert usual == key(exec_check, index="0", port_http="1")
    assert usual == key(exec_check, port_http="1", index="1"), "it does not name its index"
    assert usual != key(exec_check, port_http="2", index="0")
    assert usual != key("{exec: 'check -v {port.http}'}", port_http="1", index="0")
    assert key("{exec: 'check revision'}", revision="1") == key("{exec: 'check revision'}", revision="2")

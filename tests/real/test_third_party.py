"""A program that nobody wrote for dsmt: a web application installed from wheels of PyPI."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dsmt.system.procfs import identity_of
from tests.loops import in_real_time
from tests.real.applied import applied, rows
from tests.real.fleet import Fleet, eventually, fleet, processes_of
from tests.real.seat import Said, dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]


WAITRESS = "waitress==3.0.2"
PROJECT = """\
[build-system]
requires = ["flit_core>=3.9,<4"]
build-backend = "flit_core.buildapi"
[project]
name = "greeter"
version = "{version}"
description = "Says what it was given."
dependencies = ["waitress"]
"""
APPLICATION = '''\
"""Says what it was given: its environment, files, data directory and place."""
import json, os, pathlib, sys
from importlib.metadata import version

VERSION = version("greeter")
DATA = pathlib.Path(os.environ["DSMT_DATA"])
with (DATA / "starts").open("a") as file:
    file.write(VERSION + "\\n")
print("greeter", VERSION, "starts", flush=True)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/crash":
        print("asked to crash", file=sys.stderr, flush=True)
        os._exit(3)
    told = {
        "version": VERSION,
        "env": dict(os.environ),
        "conf": {path.name: path.read_text() for path in pathlib.Path("conf").iterdir()},
        "starts": (DATA / "starts").read_text().split(),
        "directory": os.getcwd(),
        "arguments": sys.argv[1:],
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
'''
GREET = """\
service: greet
description: a web application from a wheel
owner: the web team
labels: {{tier: front}}
components:
  app:
    instances: {instances}
    artifact: {{url: {wheels}}}
    install:
      - sh
      - -ec
      - |
        "$0" -m venv --without-pip venv
        "$0" -m pip --python venv/bin/python install --no-index --find-links wheels greeter
      - {python}
    configure: [sh, -c, 'echo "{{instance}} at {{port.http}}" > conf/configured']
    run: venv/bin/waitress-serve --listen {{address}}:{{port.http}} --threads 2 greeter:app
    ports: {{http: auto}}
    data: true
    env: {{GREETING: "{{service}} on {{node}}", ANSWER: 42, TOKEN: {{file: {token}}}, LANG: null}}
    files:
      - to: conf/greeter.ini
        template: true
        content: "tier={{label.tier}} index={{index}} revision={{revision}} data={{data}} {{{{}}}}"
      - {{to: conf/plain.txt, from: plain.txt}}
    logs: {{size: 256KiB, keep: 2}}
    health: {{http: {{port: http, path: /healthz}}, interval: 500ms}}
    stop: {{grace: 5s}}
    update: {{healthy_after: 500ms}}
"""


def pip(*arguments: str) -> None:
    argv = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """An archive for each version: waitress as PyPI has it, and the application's own wheel."""
    room = tmp_path_factory.mktemp("wheels")
    pip("download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(room / "third"), WAITRESS)
    made = {}
    for version in ("1.0", "2.0"):
        project = room / f"greeter-{version}"
        project.mkdir()
        (project / "pyproject.toml").write_text(PROJECT.format(version=version))
        (project / "greeter.py").write_text(APPLICATION)
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(room / version), str(project))
        made[version] = room / f"wheels-{version}.tar.gz"
        with tarfile.open(made[version], "w:gz") as archive:
            for wheel in [*(room / "third").iterdir(), *(room / version).iterdir()]:
                archive.add(wheel, f"wheels/{wheel.name}")
    return made


def write_greet(directory: Path, wheels: Path, instances: int) -> Path:
    token, plain, path = directory / "token", directory / "plain.txt", directory / "greet.yaml"
    token.write_text("secret-42\n")
    plain.write_text("as it is: {service}\n")
    path.write_text(GREET.format(wheels=wheels, python=sys.executable, token=token, instances=instances))
    return path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


async def get(port: int, path: str = "/") -> dict[str, Any]:
    """A GET's JSON. Raises OSError when there is no whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
        whole = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, body = whole.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ConnectionError(f"port {port} said {head[:100]!r}")
    told: dict[str, Any] = json.loads(body)
    return told


SLOW_S = 0.2
"""Who is not there refuses at once: in a round that took longer somebody was slow."""


@dataclass
class Client:
    """Somebody who uses the service all the time: one round asks every port."""

    ports: list[int]
    rounds: int = 0
    lost: list[int] = field(default_factory=list)
    """The rounds in which no instance answered."""
    versions: set[tuple[str, ...]] = field(default_factory=set)

    async def use(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            began = now()
            good = await self._asked()
            if not good and now() > began + SLOW_S:  # each may have been restarted in turn while one answer was awaited
                good = await self._asked()
            self.rounds += 1
            if not good:
                self.lost.append(self.rounds)
            self.versions.add(tuple(sorted({one["version"] for one in good})))
            await asyncio.sleep(0.01)

    async def _asked(self) -> list[dict[str, Any]]:
        answers = await asyncio.gather(*map(get, self.ports), return_exceptions=True)
        return [one for one in answers if isinstance(one, dict)]


@asynccontextmanager
async def using(made: Fleet, service: str) -> AsyncIterator[Client]:
    """A client for the length of a block."""
    client = Client([row["ports"]["http"] for row in (await rows(made, service)).values()])
    task = asyncio.create_task(client.use())
    try:
        yield client
        seen = client.rounds
        await eventually("two more rounds", lambda: task.done() or client.rounds > seen + 2)
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


@in_real_time
async def test_a_wheel_is_installed_configured_and_given_all_that_its_file_says(tmp_path, wheels):
    async with fleet(tmp_path) as made:
        home, path = made.home.root, write_greet(tmp_path, wheels["1.0"], 3)
        plan = (await dsmt(home, "plan", str(path), "--json")).json
        assert (len(plan["steps"]), plan["unplaced"], plan["base_revision"]) == (3, [], 0), plan
        assert {step["node"] for step in plan["steps"]} == {"n1", "n2", "n3"}
        assert (await dsmt(home, "ps", "--json")).json == []  # a plan changes nothing
        await applied(made, path, "--plan", plan["id"], "--reason", "first release")
        found = await rows(made, "greet")
        assert {name: row["node"] for name, row in found.items()} == {s["instance"]: s["node"] for s in plan["steps"]}
        for row in found.values():
            _check_greeting(await get(row["ports"]["http"]), row)
        await _check_questions(home, found)
        await _crash(made, found["greet/app/1"])


def _check_greeting(told: dict[str, Any], row: dict[str, Any]) -> None:
    """Everything in the file has reached the program."""
    env, conf, port = told["env"], told["conf"], row["ports"]["http"]
    assert told["version"] == "1.0"
    assert env["GREETING"] == f"greet on {row['node']}"
    assert (env["ANSWER"], env["TOKEN"], env["PORT"], env["PORT_HTTP"]) == ("42", "secret-42", str(port), str(port))
    assert (env["DSMT_INSTANCE"], env["DSMT_NODE"], env["DSMT_REVISION"]) == (row["instance"], row["node"], "1")
    assert "LANG" not in env
    assert not env.keys() & {"PYTEST_CURRENT_TEST", "DSMT_HOME", "VIRTUAL_ENV"}  # nothing else leaks in
    index, data = row["index"], env["DSMT_DATA"]
    assert conf["greeter.ini"] == f"tier=front index={index} revision=1 data={data} {{}}"
    assert conf["plain.txt"] == "as it is: {service}\n"
    assert conf["configured"] == f"{row['instance']} at {port}\n"
    assert told["starts"] == ["1.0"]
    assert told["arguments"][:2] == ["--listen", f"127.0.0.1:{port}"]
    assert f"/{row['node']}/containers/greet/app/{index}/" in told["directory"]
    assert f"/{row['node']}/data/" in data


async def _check_questions(home: Path, found: dict[str, Any]) -> None:
    """`logs`, `why`, `status`, `get`: what a person asks of a service that runs."""
    logs = (await dsmt(home, "logs", "greet", "-n", "50", "--json")).lines
    starts = {line["instance"] for line in logs if line["line"] == "greeter 1.0 starts"}
    assert starts == set(found)
    install = await dsmt(home, "logs", "greet/app/0", "--step", "install")
    assert "Successfully installed greeter-1.0 waitress-3.0.2" in install.out
    why = (await dsmt(home, "why", "greet/app/0", "--json")).json
    assert why["complete"]
    assert all(link["event"]["verified"] for link in why["chain"])
    topics = {link["event"]["topic"] for link in why["chain"]}
    assert {"service/greet/spec", "service/greet/slot/app/0"} <= topics
    status = (await dsmt(home, "status", "--json")).json
    (service,) = status["services"]
    assert (status["state"], status["alerts"]) == ("ok", [])
    assert (service["ready"], service["wanted"], service["note"]) == (3, 3, "first release")
    assert (service["owner"], service["description"]) == ("the web team", "a web application from a wheel")
    assert (await dsmt(home, "ps", "greet/app/7", "--json", code=5)).error["next"]
    assert (await dsmt(home, "why", "nothing", "--json", code=5)).error["message"]


async def _crash(made: Fleet, row: dict[str, Any]) -> None:
    """A crash of its own making: its code, its last words, its data and its place are kept."""
    port = row["ports"]["http"]
    with suppress(OSError):
        await get(port, "/crash")
    await made.ready("greet", 3, but=lambda i: i.application is None or i.application.record.pid == row["pid"])
    after = (await rows(made, row["instance"]))[row["instance"]]
    assert (after["restarts"], after["last_exit"]["code"], after["node"]) == (1, 3, row["node"])
    assert after["last_exit"]["reason"]["code"] == "run.exited"
    assert "asked to crash" in after["last_exit"]["reason"]["last_output"]
    assert (await get(port))["starts"] == ["1.0", "1.0"]
    previous = await dsmt(made.home.root, "logs", row["instance"], "--previous")
    assert "asked to crash" in previous.out


@in_real_time
async def test_a_new_wheel_rolls_out_and_operators_act_without_the_service_ever_being_lost(tmp_path, wheels):
    async with fleet(tmp_path) as made:
        home, path = made.home.root, write_greet(tmp_path, wheels["1.0"], 2)
        await applied(made, path)
        before = await rows(made, "greet")
        assert (await dsmt(home, "diff", str(path), "--exit-code", "--json")).json["changes"] == []
        edit(path, str(wheels["1.0"]), str(wheels["2.0"]))
        await dsmt(home, "diff", str(path), "--exit-code", code=6)
        async with using(made, "greet") as client:
            said = await applied(made, path)
            after = await rows(made, "greet")
            assert said["revision"] == 2
            assert {row["revision"] for row in after.values()} == {2}
            await _restart(home, made, after)
        assert client.lost == []
        assert ("1.0",) in client.versions
        assert ("1.0", "2.0") in client.versions  # one after the other
        assert ("2.0",) in client.versions
        for name, row in after.items():
            told = await get(row["ports"]["http"])
            assert (row["node"], row["ports"]) == (before[name]["node"], before[name]["ports"])
            assert told["version"] == "2.0"
            assert told["starts"] == ["1.0", "2.0", "2.0"]  # its data outlived the update and the restart
        async with using(made, "greet") as client:
            await _stop_and_start(home, made, path)
        assert client.lost == []
        await _scale_and_remove(home, made, after)


async def _restart(home: Path, made: Fleet, before: dict[str, Any]) -> None:
    said = (await dsmt(home, "restart", "greet", "--wait=60s", "--reason", "to be sure", "--json")).json
    assert sorted(said["instances"]) == sorted(before)
    after = await rows(made, "greet")
    assert not {row["pid"] for row in after.values()} & {row["pid"] for row in before.values()}


async def _stop_and_start(home: Path, made: Fleet, path: Path) -> None:
    """A hold is who, when and why; it survives another revision, and only `start` lifts it."""
    pid = (await rows(made, "greet"))["greet/app/1"]["pid"]
    said = await dsmt(home, "stop", "greet/app/1", "--wait=90s", "--reason", "inspection", "--json")
    assert said.json["instances"] == ["greet/app/1"]
    stopped = (await rows(made, "greet"))["greet/app/1"]
    assert (stopped["state"], stopped["pid"], stopped["held"]["reason"]) == ("stopped", None, "inspection")
    assert identity_of(pid) is None
    again = (await dsmt(home, "stop", "greet/app/1", "--json")).json
    assert (again["instances"], again["unchanged"]) == ([], ["greet/app/1"])
    edit(path, "the web team", "somebody else")
    said_so = (await dsmt(home, "apply", str(path), "--wait=90s", "--json")).json
    assert (said_so["revision"], said_so["outcome"], said_so["wanted"]) == (3, "ready", 1)  # what is held is not waited for
    assert (await rows(made, "greet"))["greet/app/1"]["state"] == "stopped"
    await dsmt(home, "wait", "greet/app/1", "--for", "ready", "--timeout", "200ms", code=3)
    assert (await dsmt(home, "start", "greet/app/1", "--wait=90s", "--json")).json["instances"] == ["greet/app/1"]
    assert (await rows(made, "greet"))["greet/app/1"]["health"] == "ready"


async def _scale_and_remove(home: Path, made: Fleet, before: dict[str, Any]) -> None:
    assert (await dsmt(home, "scale", "greet/app", "1", "--wait=90s", "--json")).json["outcome"] == "ready"
    assert set(await rows(made, "greet")) == {"greet/app/0"}
    refused: Said = await dsmt(home, "remove", "greet", "--json", code=2)
    assert refused.error["next"] == "dsmt remove greet --yes"
    removed = (await dsmt(home, "remove", "greet", "--yes", "--json")).json
    assert removed["instances"] == ["greet/app/0"]
    await dsmt(home, "wait", "greet", "--for", "gone", "--timeout", "30s")
    assert (await dsmt(home, "ps", "--json")).json == []
    for row in before.values():
        assert row["pid"] not in processes_of(home)
        assert not list((home / "nodes" / row["node"] / "containers").glob("greet/*/*"))
        assert list((home / "nodes" / row["node"] / "data").rglob("starts"))  # data directories stay

"""Somebody with a terminal and a home, who runs the commands as processes."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import warm
from tests.waiting import seen

SPEC = """\
service: web
owner: team-web
labels: {tier: front}
components:
  app:
    artifact: {url: site.txt}
    run: [%s, -m, http.server, "{port.http}", --bind, 127.0.0.1]
    ports: {http: auto}
    instances: 2
    health: {http: {port: http, path: /}, interval: 500ms}
    stop: {grace: 2s}
    update: {healthy_after: 200ms}
"""

PATIENCE_S = 60.0


class Operator:
    """Somebody with a terminal and a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "DSMT_HOME": str(home), "NO_COLOR": "1"}

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return warm.text(warm.run(*arguments, env=self.environment, stdin=(text or "").encode()))

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def lines(self, *arguments: str) -> list[Any]:
        return [json.loads(line) for line in self.ok(*arguments, "--json").splitlines()]

    def raw(self, *arguments: str) -> bytes:
        done = warm.run(*arguments, env=self.environment, seconds=60)
        assert done.returncode == 0, (arguments, done)
        return done.stdout

    def until(self, met: Callable[[], Any], what: str) -> Any:
        return seen(met, what, PATIENCE_S)

"""`user:` on a real fleet: the program, its commands and its checks run as that user, in a tree of its own."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.real.fleet import fleet

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

SPEC = """\
service: site
components:
  web:
    user: www-data
    data: true
    install: [sh, -c, "id -u > installed; mkdir conf"]
    configure: [sh, -c, "id -u > configured"]
    files: [{to: conf/site.conf, content: "x = 1\\n"}]
    run:
      - sh
      - -c
      - >
        umask; cat conf/site.conf installed configured; echo $HOME $USER $LOGNAME; id -un;
        echo mine > $DSMT_DATA/mine; exec sleep 600
    health:
      exec: [sh, -c, "test $(id -un) = www-data && test -f conf/site.conf && test -f $DSMT_DATA/mine"]
      interval: 200ms
"""


def test_a_service_with_a_user_runs_wholly_as_that_user():
    async def main(directory: Path) -> None:
        async with fleet(directory, nodes=1) as made:
            await made.apply(SPEC)
            await made.ready("site", 1)
            ((_, pid),) = made.pids("site").items()
            assert psutil.Process(pid).uids() == (33, 33, 33)
            node = made.home.part("nodes", "n1")
            (log,) = node.glob("containers/site/web/*/logs/stdout.log")
            assert log.read_text().split() == [
                "0022",
                "x",
                "=",
                "1",
                "33",
                "33",
                "/var/www",
                "www-data",
                "www-data",
                "www-data",
            ]
            (mine,) = node.glob("data/site/web/*/mine")
            assert (mine.stat().st_uid, mine.parent.stat().st_mode & 0o777) == (33, 0o700)

    with tempfile.TemporaryDirectory(prefix="dsmt-users-") as place:
        Path(place).chmod(0o711)
        asyncio.run(main(Path(place)))

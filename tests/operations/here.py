"""A home with one node, and one container in it, of which nothing of dsmt lives: what `--local` looks at."""

from pathlib import Path
from typing import Any

from dsmt.agents.rules.container import CONFIG, LOGS, NodeConfig, dump_config
from dsmt.agents.rules.record import InstanceRecord, Written, dump_record
from dsmt.event.status import State
from dsmt.operations.local.home.home import Home
from dsmt.programs.configuration import RealmConfig
from dsmt.trust.keys import SecretKey
from dsmt.view import SlotKey

KEY = SlotKey("web", "app", 0)


def record(**about: Any) -> InstanceRecord:
    return InstanceRecord(boot="boot", **about)


def container(home: Home) -> Path:
    return home.part("nodes", "n1") / "containers" / KEY.service / KEY.component / str(KEY.index)


def said(home: Home, **about: Any) -> None:
    """What its agent has written down last."""
    (container(home) / "instance.json").write_bytes(dump_record(record(**about)))


def cut_off(root: Path) -> Home:
    """It has run, and is stopped; its log has three lines."""
    home, key = Home(root), SecretKey(bytes(32)).public
    RealmConfig(name="main", roots=(key,), brokers=(("127.0.0.1:1", key),)).write(root)
    node = NodeConfig(
        node="n1", realm="main", roots=(key,), brokers=(), address="192.0.2.1", directory="/n1", data_root="/d", data_key="k"
    )
    (container(home) / LOGS).mkdir(parents=True)
    (container(home) / CONFIG).write_bytes(dump_config(node.for_agent(KEY)))
    (container(home) / LOGS / "stdout.log").write_text("one\ntwo\nthree\n")
    wrote = Written(revision=1, places={"stdout": (0, 0, None), "stderr": (0, 0, None)})
    said(home, state=State.STOPPED, since_ms=1_700_000_000_000, writes=wrote)
    return home

"""What a component is that does not say: each default that depends on another key, and what it gives way to."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from dsmt.spec.parsing import parse
from dsmt.spec.records import ComponentSpec, EscalationStep

HEX = "ab" * 32


def one(*lines: str, service: str = "") -> ComponentSpec:
    body = "".join(f"    {line}\n" for line in lines)
    (spec,) = parse(f"service: web\n{service}components:\n  app:\n    run: ./x\n{body}", file="f")
    return spec.components["app"]


def at(component: ComponentSpec, path: str) -> Any:
    """What stands at a path such as `health.startup.how.port` or `artifacts.0.sha256`."""
    return reduce(lambda found, key: found[int(key)] if key.isdecimal() else getattr(found, key), path.split("."), component)


MANY_CHECKS = "ports: {http: auto, admin: 9000}"


@pytest.mark.parametrize(
    ("lines", "path", "expected"),
    [
        # where it runs and how it is driven
        ((), "driver", "process"),
        (("image: nginx:1",), "driver", "podman"),
        ((), "kind", "service"),
        (("kind: job",), "kind", "job"),
        # data
        ((), "data", False),
        ((), "data_bytes", None),
        (("data: true",), "data", True),
        (("data: true",), "data_bytes", None),
        (("data: false",), "data", False),
        (("data: 5GiB",), "data", True),
        (("data: 5GiB",), "data_bytes", 5 * 2**30),
        ((), "on_partition", "at_least_one"),
        (("data: false",), "on_partition", "at_least_one"),
        (("data: true",), "on_partition", "pinned"),
        (("data: 1MiB",), "on_partition", "pinned"),
        (("data: true", "on_partition: at_most_one"), "on_partition", "at_most_one"),
        # artifacts
        ((f"artifact: depot:{HEX}",), "artifacts.0.sha256", HEX),
        (("artifact: some/path.tar",), "artifacts.0.sha256", None),
        ((f"artifact: {HEX}",), "artifacts.0.sha256", None),
        ((f"artifact: {{url: x.tar, sha256: {HEX}}}",), "artifacts.0.sha256", HEX),
        # ports
        (("ports: {a: 80, b: auto}",), "ports.0.name", "a"),
        (("ports: {a: 80, b: auto}",), "ports.1.port", None),
        (("ports: {a: auto, b: auto}", "sockets: [b]"), "ports.0.held", False),
        (("ports: {a: auto, b: auto}", "sockets: [b]"), "ports.1.held", True),
        (("ports: {a: {held: true}}", "sockets: []"), "ports.0.held", True),
        # what is reserved
        ((), "reserve.memory_bytes", 128 * 2**20),
        ((), "reserve.cpu", 0.1),
        ((), "reserve.disk_bytes", 0),
        (("limits: {memory: 1GiB, cpu: 2, disk: 3GiB}",), "reserve.memory_bytes", 2**30),
        (("limits: {memory: 1GiB, cpu: 2, disk: 3GiB}",), "reserve.cpu", 2),
        (("limits: {memory: 1GiB, cpu: 2, disk: 3GiB}",), "reserve.disk_bytes", 3 * 2**30),
        (("limits: {memory: 1GiB}", "reserve: {memory: 1MiB}"), "reserve.memory_bytes", 2**20),
        # how it is stopped
        ((), "stop.grace_s", 10.0),
        (("stop: {grace: 25s}",), "stop.grace_s", 25.0),
        (("on_partition: at_most_one", "term: 20s"), "stop.grace_s", 6.0),
        (("on_partition: at_most_one", "term: 5m"), "stop.grace_s", 10.0),
        (("on_partition: at_most_one", "term: 20s", "stop: {grace: 1s}"), "stop.grace_s", 1.0),
        # how it is updated
        ((), "update.order", "start_first"),
        (("ports: {a: auto}",), "update.order", "start_first"),
        (("ports: {a: 80}",), "update.order", "stop_first"),
        (("ports: {a: auto, b: 80}",), "update.order", "stop_first"),
        (("data: true",), "update.order", "stop_first"),
        (("data: 1MiB",), "update.order", "stop_first"),
        (("on_partition: at_most_one",), "update.order", "stop_first"),
        (("on_partition: pinned",), "update.order", "stop_first"),
        (("ports: {a: 80}", "update: {order: start_first}"), "update.order", "start_first"),
        # how it is restarted
        ((), "restart.when", "always"),
        (("kind: job",), "restart.when", "on_failure"),
        (("kind: job", "restart: never"), "restart.when", "never"),
        (("restart: {escalate: [restart: 3]}",), "restart.escalate", (EscalationStep(action="restart", times=3),)),
        # jobs
        ((), "job", None),
        (("kind: job",), "job.parallel", 1),
        (("kind: job", "instances: 4"), "job.parallel", 4),
        (("kind: job", "instances: 4", "parallel: 2"), "job.parallel", 2),
        (("kind: job", "instances: 0"), "job.parallel", 1),
        (("kind: job", "instances: each_node"), "job.parallel", 1),
        (("kind: job", "retries: 7"), "job.retries", 7),
        # checks
        ((), "health", None),
        ((MANY_CHECKS, "health: {tcp: {}}"), "health.readiness.how.port", "http"),
        ((MANY_CHECKS, "health: {tcp: {port: admin}}"), "health.readiness.how.port", "admin"),
        ((MANY_CHECKS, "health: {http: {}}"), "health.liveness.how.port", "http"),
        ((MANY_CHECKS, "health: {http: {}}"), "health.startup.interval_s", 1.0),
        ((MANY_CHECKS, "health: {http: {}}"), "health.startup.failures", 3),
        ((MANY_CHECKS, "health: {http: {}}"), "health.readiness.interval_s", 5.0),
        ((MANY_CHECKS, "health: {http: {}}"), "health.readiness.failures", 3),
        ((MANY_CHECKS, "health: {http: {}}"), "health.liveness.interval_s", 5.0),
        ((MANY_CHECKS, "health: {http: {}}"), "health.liveness.failures", 6),
        ((MANY_CHECKS, "health: {http: {}}"), "health.startup.deadline_s", 60.0),
        ((MANY_CHECKS, "health: {http: {}}"), "health.readiness.deadline_s", None),
        ((MANY_CHECKS, "health: {http: {}, interval: 9s, failures: 2, timeout: 1s, passes: 4}"),
         "health.liveness.failures", 2),
        ((MANY_CHECKS, "health: {http: {}, interval: 9s, failures: 2, timeout: 1s, passes: 4}"),
         "health.startup.interval_s", 9.0),
        ((MANY_CHECKS, "health: {http: {}, interval: 9s, failures: 2, timeout: 1s, passes: 4}"),
         "health.readiness.timeout_s", 1.0),
        ((MANY_CHECKS, "health: {http: {}, interval: 9s, failures: 2, timeout: 1s, passes: 4}"),
         "health.readiness.passes", 4),
        (("health: {notify: {}}",), "health.liveness.how.watchdog_s", None),
        (("health: {exec: [a, b]}",), "health.startup.how.command", ("a", "b")),
        (("health: {exec: a}",), "health.liveness", None),
        (("health: {liveness: {exec: a, interval: 9s, failures: 9}}",), "health.startup.how.command", ("a",)),
        (("health: {liveness: {exec: a, interval: 9s, failures: 9}}",), "health.startup.interval_s", 1.0),
        (("health: {liveness: {exec: a, interval: 9s, failures: 9}}",), "health.startup.failures", 3),
        (("health: {liveness: {exec: a, interval: 9s, failures: 9}}",), "health.liveness.interval_s", 9.0),
        (("health: {liveness: {exec: a}}",), "health.readiness", None),
        (("health: {liveness: {exec: a}, readiness: {exec: b}}",), "health.startup.how.command", ("b",)),
        (("health: {startup: {exec: a, deadline: 5s}, readiness: {exec: b}}",), "health.startup.how.command", ("a",)),
        (("health: {startup: {exec: a, deadline: 5s}, readiness: {exec: b}}",), "health.startup.deadline_s", 5.0),
    ],
)  # fmt: skip
def test_what_is_not_said_follows_from_what_is(lines: tuple[str, ...], path: str, expected: Any) -> None:
    assert at(one(*lines), path) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), [("restart", 5), ("reinstall", 2), ("recreate", 2), ("move", 1)]),
        (("on_partition: pinned",), [("restart", 5), ("reinstall", 2), ("recreate", 2)]),
        (("data: true",), [("restart", 5), ("reinstall", 2), ("recreate", 2)]),
    ],
)
def test_what_stays_with_its_data_is_never_moved_of_itself(lines: tuple[str, ...], expected: list[tuple[str, int]]) -> None:
    assert [(step.action, step.times) for step in one(*lines).restart.escalate] == expected


def test_a_component_is_what_its_service_is_unless_it_says_otherwise() -> None:
    assert one(service="kind: job\n").kind == "job"
    assert one("kind: service", service="kind: job\n").kind == "service"
    assert one("kind: service", service="kind: job\n").job is None

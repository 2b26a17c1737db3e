"""Validated records of a service: what the rest of dsmt reads, with every default applied.

Times are float seconds named `_s`, sizes int bytes named `_bytes`. Records are immutable; `msgspec.structs.replace`
makes a changed copy.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from msgspec import Meta

from dsmt.spec.fields import (
    Argv,
    Bytes,
    Count,
    ExitCode,
    Label,
    Name,
    Number,
    Octal,
    Path,
    PortName,
    PortNumber,
    Positive,
    Record,
    Seconds,
    Sha256,
    Signal,
    Text,
    Variable,
)
from dsmt.spec.health import HealthSpec


class Amount(Record, frozen=True):
    """A count or a share of instances; exactly one of the two is set."""

    count: Count | None = None
    percent: Annotated[float, Meta(gt=0, le=100)] | None = None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.percent is None):
            raise ValueError("either `count` or `percent`")

    def of(self, total: int) -> int:
        """Return how many of `total` it means: a share is rounded up and at least 1."""
        if self.percent is None:
            return self.count or 0
        return max(1, math.ceil(round(total * self.percent / 100, 9)))


class Artifact(Record, frozen=True):
    """What is fetched before `install`. `sha256` is null only for a path that `apply` has not put into the depot."""

    url: Annotated[str, Meta(min_length=1, max_length=4096)]
    sha256: Sha256 | None
    signature: Text | None
    unpack: Literal["auto", "no", "tar", "zip"]
    strip: Count
    to: Path
    mode: Octal

    @property
    def origin(self) -> Literal["path", "https", "depot"]:
        """Where it comes from."""
        if self.url.startswith("https:"):
            return "https"
        return "depot" if self.url.startswith("depot:") else "path"


class FromFile(Record, frozen=True):
    """An environment value read from a file on the node at start."""

    file: Text


class Secret(Record, frozen=True):
    """A secret of the realm (`secret`) or a file on the node (`file`), into the environment or the file `to`."""

    secret: Name | None
    file: Text | None
    to: Path | None


class TextFile(Record, frozen=True):
    """A small file written by `configure`; `source` is a path that `apply` replaces by its `content`."""

    to: Path
    content: Text | None
    source: Text | None
    mode: Octal
    template: bool


class LogRotation(Record, frozen=True):
    """Rotation: a file of `size_bytes`, `keep` old ones; above `rate_bytes` per second lines are dropped."""

    size_bytes: Bytes
    keep: Count
    rate_bytes: Bytes


class Spread(Record, frozen=True):
    """How own instances are spread: `node`, `label:KEY` or `none`; a wish unless `strict`."""

    by: Annotated[str, Meta(pattern=r"\A(?:node|none|label:[^\s]{1,63})\Z")]
    strict: bool


class Near(Record, frozen=True):
    """A wish for low latency to another component's instances."""

    to: Text
    within_s: Seconds | None
    ideal_s: Seconds | None
    penalty: Number


class Reserve(Record, frozen=True):
    """What placement counts as taken by one instance."""

    memory_bytes: Bytes
    cpu: Number
    disk_bytes: Bytes


class Limits(Record, frozen=True):
    """What is enforced on one instance; null is no limit."""

    memory_bytes: Bytes | None
    cpu: Number | None
    pids: Annotated[int, Meta(ge=1, le=4_194_304)]
    files: Annotated[int, Meta(ge=16, le=1_073_741_816)]
    disk_bytes: Bytes | None
    enforce: Literal["required", "best_effort"]


class Port(Record, frozen=True):
    """A port; `port` null is automatic, `bind` null the default address (loopback in a realm of one machine)."""

    name: PortName
    port: PortNumber | None
    bind: Text | None
    protocol: Literal["tcp", "udp"]
    held: bool


class EscalationStep(Record, frozen=True):
    """One rung of the escalation: so many times this action."""

    action: Literal["restart", "reinstall", "recreate", "move"]
    times: Positive


class Park(Record, frozen=True):
    """Parked by the first failure after so many, tried again each `retry_s`."""

    after: Positive
    retry_s: Seconds


class RestartPolicy(Record, frozen=True):
    """`first_s` null: 0 after a healthy run, else 0.1."""

    when: Literal["always", "on_failure", "never"]
    first_s: Seconds | None
    factor: Annotated[float, Meta(ge=1, le=10)]
    cap_s: Seconds
    reset_s: Seconds
    escalate: tuple[EscalationStep, ...]
    park: Park


class StopPolicy(Record, frozen=True):
    """The endpoint is withdrawn `delay_s` before the signal; `grace_s` after it the whole group is killed."""

    signal: Signal
    grace_s: Seconds
    delay_s: Seconds
    command: Argv | None

    @property
    def most_s(self) -> float:
        """How long an end may take, in seconds: its command, too, has `grace_s`."""
        return self.delay_s + self.grace_s * (1 if self.command is None else 2)


class Reload(Record, frozen=True):
    """What is done for changed files instead of a restart; exactly one of the two is set."""

    signal: Signal | None = None
    command: Argv | None = None

    def __post_init__(self) -> None:
        if (self.signal is None) == (self.command is None):
            raise ValueError("either `signal` or `command`")


class After(Record, frozen=True):
    """What is waited for before the start: a component's state, or a barrier."""

    component: Name | None
    state: Literal["running", "ready", "done"]
    barrier: Name | None
    restart_with: bool


class UpdatePolicy(Record, frozen=True):
    """How a new revision replaces the old one."""

    order: Literal["start_first", "stop_first"]
    max_parallel: Amount
    healthy_after_s: Seconds
    deadline_s: Seconds
    rollback: bool
    canary: Amount


class Job(Record, frozen=True):
    """What only a job component has."""

    retries: Count
    abort_on: tuple[ExitCode | Annotated[str, Meta(pattern=r"\Asignal:SIG[A-Z0-9]+\Z")], ...]
    success_on: tuple[ExitCode, ...]
    checkpoint_exit_code: ExitCode | None
    timeout_s: Seconds | None
    pre: Argv | None
    post: Argv | None
    parallel: Positive
    keep_s: Seconds


class ComponentSpec(Record, frozen=True):
    """One component. `instances` null is one on each node that fits; `run` null only with an image."""

    name: Name
    kind: Literal["service", "job"]
    run: Argv | None
    driver: Name
    image: Text | None
    artifacts: tuple[Artifact, ...]
    install: Argv | None
    configure: Argv | None
    uninstall: Argv | None
    install_timeout_s: Seconds
    directory: Annotated[str, Meta(min_length=1, max_length=4096)]
    data: bool
    data_bytes: Bytes | None
    env: dict[Variable, Text | FromFile | None]
    inherit_env: tuple[Variable, ...]
    secrets: dict[Variable, Secret]
    files: tuple[TextFile, ...]
    user: Text | None
    logs: LogRotation
    instances: Annotated[int, Meta(ge=0, le=100_000)] | None
    nodes: Text
    requires: tuple[Text, ...]
    rank: Text | None
    spread: Spread
    apart: tuple[Text, ...]
    near: tuple[Near, ...]
    reserve: Reserve
    limits: Limits
    on_partition: Literal["at_least_one", "at_most_one", "pinned"]
    lost_after_s: Seconds | None
    term_s: Seconds
    fence: Literal["kernel", "best_effort"]
    ports: tuple[Port, ...]
    health: HealthSpec | None
    restart: RestartPolicy
    stop: StopPolicy
    reload: Reload | None
    after: tuple[After, ...]
    update: UpdatePolicy
    job: Job | None

    @property
    def each_node(self) -> bool:
        """Whether one instance runs on each node that fits."""
        return self.instances is None

    @property
    def overlaps(self) -> bool:
        """Whether an update on one node starts the new copy beside the old one: nothing forbids two at a time."""
        free = all(port.port is None for port in self.ports)
        return self.update.order == "start_first" and self.on_partition == "at_least_one" and free and not self.data

    def port(self, name: str) -> Port:
        """Return a port by its name; KeyError when there is none."""
        for port in self.ports:
            if port.name == name:
                return port
        raise KeyError(name)


class Barrier(Record, frozen=True):
    """A named meeting point of a service's instances."""

    min: Positive
    max: Positive | None
    percent: Annotated[float, Meta(gt=0, le=100)]
    timeout_s: Seconds
    knee: bool
    late: Literal["admit", "refuse", "next_round"]
    throttle: Positive | None


class ServiceSpec(Record, frozen=True):
    """One service: one document of a service file, or the data of one spec event."""

    service: Name
    description: Text
    owner: Text
    labels: dict[Label, Text]
    kind: Literal["service", "job"]
    components: Annotated[dict[Name, ComponentSpec], Meta(min_length=1)]
    barriers: dict[Name, Barrier]
    expires_s: Seconds | None
    keep_revisions: Annotated[int, Meta(ge=1, le=100)]


JOB_FIELDS: Final = tuple(Job.__struct_fields__)

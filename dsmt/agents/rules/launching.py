"""Launching: from a spec to the command line, environment and ports of one instance (docs/reference/service-file.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

import msgspec
from msgspec.structs import replace

from dsmt.agents.rules.acts import Goal
from dsmt.agents.rules.container import AgentConfig
from dsmt.errors import FailedError
from dsmt.event.reason import failed
from dsmt.event.records import to_data
from dsmt.ports.driver import Launch, Mount
from dsmt.spec.changes import install_key, run_key
from dsmt.spec.health import HealthSpec
from dsmt.spec.placeholders import NODE_LABEL, expand, names
from dsmt.spec.records import ComponentSpec, FromFile, ServiceSpec
from dsmt.spec.templates import templates

OF_THE_USER: Final = frozenset({"HOME", "USER", "LOGNAME", "MAIL", "SHELL", "XDG_RUNTIME_DIR"})
"""What a program of another user never inherits; the driver tells it its own."""
_KEY_SHOWN: Final = 16


class RunPlan(msgspec.Struct, frozen=True):
    """What a slot's fact asks for, with the spec it names: one component at one generation."""

    component: ComponentSpec
    labels: Mapping[str, str]
    spec: str
    """The id of the spec event."""
    revision: int
    wanted: Goal
    node_labels: tuple[tuple[str, str], ...]
    """The labels of a node that its texts name, each with the key in which one does: all of them are read for that, once."""

    @property
    def place(self) -> str:
        """The instance's directory, below its container's."""
        return place_of(self.wanted.install_key)

    def at(self, generation: int, restart: int) -> RunPlan:
        """The same at another generation."""
        return replace(self, wanted=replace(self.wanted, generation=generation, restart=restart))


class Site(msgspec.Struct, frozen=True):
    """Where and how the steps and program of an instance run: its directory, its placeholders, its environment."""

    directory: str
    values: Mapping[str, str]
    env: Mapping[str, str]


def place_of(key: str) -> str:
    """The directory of an installation, below the container's."""
    return f"files/{key[:_KEY_SHOWN]}"


def plan_of(spec: ServiceSpec, component: str, *, spec_id: str, revision: int, generation: int, restart: int) -> RunPlan:
    """The plan for a component of a spec. Raises `FailedError` (`start.driver`) when the spec has none of that name."""
    found = spec.components.get(component)
    if found is None:
        raise refused("process", f"revision {revision} of the spec has no component {component}")
    wanted = Goal(install_key(found), run_key(found), generation, restart)
    named: dict[str, str] = {}
    for path, text in templates(to_data(found)):
        for name in names(text):
            if name.startswith(NODE_LABEL):
                named.setdefault(name, path[0])
    return RunPlan(found, spec.labels, spec_id, revision, wanted, tuple(named.items()))


def refused(driver: str, error: str, *, advice: str = "") -> FailedError:
    """`start.driver`: what was asked for cannot be done here."""
    return failed("start.driver", advice=advice, driver=driver, error=error)


def values_of(plan: RunPlan, config: AgentConfig, *, ports: Mapping[str, int], directory: str, data: str) -> dict[str, str]:
    """What the placeholders of an instance stand for.

    Raises `FailedError` (`start.driver`) when its component names a label that the node has not.
    """
    values = {
        "address": config.address,
        "service": config.service,
        "component": config.component,
        "index": config.index,
        "instance": f"{config.service}/{config.component}/{config.index}",
        "node": config.node,
        "revision": str(plan.revision),
        "directory": directory,
        "data": data,
    }
    values |= {f"port.{name}": str(number) for name, number in ports.items()}
    values |= {f"label.{key}": value for key, value in plan.labels.items()}
    values |= {f"{NODE_LABEL}{key}": value for key, value in config.labels.items()}
    for name, key in plan.node_labels:
        if name not in values:
            said = f"{key} names {{{name}}}, and {config.node} has no such label"
            typed = f"dsmt up --label {name.removeprefix(NODE_LABEL)}=VALUE on its machine (dsmt node add, of an added host)"
            raise refused(plan.component.driver, said, advice=f"give <node> that label: {typed}; or correct the file")
    return values


def environment(
    plan: RunPlan,
    values: Mapping[str, str],
    *,
    ports: Mapping[str, int],
    inherited: Mapping[str, str],
    read: Callable[[str], bytes | None],
) -> dict[str, str]:
    """The whole environment of an instance: nothing else leaks in.

    Raises `FailedError` (`start.driver`) when a file that an `env` key names cannot be read.
    """
    component = plan.component
    kept = [name for name in component.inherit_env if component.user is None or name not in OF_THE_USER]
    env = {name: inherited[name] for name in kept if name in inherited}
    env |= {f"DSMT_{name.upper()}": values[name] for name in ("service", "component", "index", "instance", "node")}
    env["DSMT_REVISION"] = values["revision"]
    if component.data:
        env["DSMT_DATA"] = values["data"]
    for name, number in ports.items():
        env[f"PORT_{name.upper().replace('-', '_')}"] = str(number)
    if component.ports:
        env["PORT"] = str(ports[component.ports[0].name])
    for name, value in component.env.items():
        if value is None:
            env.pop(name, None)
        elif isinstance(value, FromFile):
            env[name] = _content(value.file, name, component.driver, read)
        else:
            env[name] = expand(value, values)
    return env


def _content(path: str, name: str, driver: str, read: Callable[[str], bytes | None]) -> str:
    try:
        content, why = read(path), "which is not there"
    except FailedError as error:
        content, why = None, f"which cannot be read: {error.fields.get('error', error.message)}"
    if content is None:
        said = f"env.{name} is to be read from {path}, {why}"
        raise refused(driver, said, advice="put it there on <node>, or correct `env`")
    return content.decode(errors="replace").rstrip("\n")


def launch_of(
    plan: RunPlan, values: Mapping[str, str], env: Mapping[str, str], *, directory: str, stdout: str, stderr: str
) -> Launch:
    """The program to run. `directory` is the instance's own."""
    component = plan.component
    limits = {"pids": component.limits.pids, "files": component.limits.files}
    if component.limits.memory_bytes is not None:
        limits["memory"] = component.limits.memory_bytes
    return Launch(
        argv=tuple(expand(word, values) for word in component.run or ()),
        directory=working_directory(component, directory),
        env=env,
        stdout=stdout,
        stderr=stderr,
        limits=limits,
        user=component.user or "",
        image=component.image or "",
        mounts=mounts_of(directory, values),
    )


def mounts_of(directory: str, values: Mapping[str, str]) -> tuple[Mount, ...]:
    """What an instance's program and steps may write to: its directory, and its data."""
    return tuple(Mount(path, writable=True) for path in (directory, values.get("data")) if path)


def check_key(health: HealthSpec | None, values: Mapping[str, str]) -> str:
    """What tells one way to check a run from another: the checks, and what the placeholders in them stand for."""
    return _filled_key(health, values)


def configured_key(plan: RunPlan, config: AgentConfig) -> str:
    """What tells one way to configure an instance from another that its run key does not: the node's address, labels.

    Its ports are settled before, and its directories stay.
    """
    component = plan.component
    texts = [file.content for file in component.files if file.template]
    filled = (texts, component.configure, component.env)
    return _filled_key(filled, values_of(plan, config, ports={}, directory="", data=""))


def _filled_key(holds: object, values: Mapping[str, str]) -> str:
    """The digest of what may hold placeholders, with what those in it stand for."""
    told = msgspec.json.encode(holds)
    used = {name: value for name, value in sorted(values.items()) if f"{{{name}}}".encode() in told}
    return sha256(told + msgspec.json.encode(used)).hexdigest()


def working_directory(component: ComponentSpec, directory: str) -> str:
    """Where the program runs: `directory` of the spec, below the instance's own unless it is absolute."""
    if component.directory.startswith("/"):
        return component.directory
    return directory if component.directory in ("", ".") else f"{directory}/{component.directory}"

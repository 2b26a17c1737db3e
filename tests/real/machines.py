"""Machines for tests: each has its own network, mounts, processes and name, and a real sshd; root is needed.

A machine is one process tree in namespaces of its own: who ends its first process ends all of it, whatever a test did there.
What a node may write there is new, empty and in memory; there is no way to any network but that of the lab.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests import warm
from tests.waiting import seen

NETWORK, NETWORK6 = "10.213.77.", "fd77::"
OWN = ("/opt", "/var/lib", "/root", "/home", "/etc/systemd/system", "/tmp")
SSHD = "/usr/sbin/sshd"
CONFIG = """\
HostKey /run/lab/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AuthorizedKeysFile /run/lab/authorized_keys
Subsystem sftp internal-sftp
LogLevel ERROR
"""
PATIENCE_S = 60.0
SYSTEMD = "/usr/lib/systemd/systemd"
UNITS = "/usr/lib/systemd/system"
"""Of a machine that systemd keeps nothing is begun but its sshd, and what a test has systemd begin."""
TARGETS = "sysinit basic multi-user network network-online shutdown umount final poweroff"
BY_SYSTEMD = f"""\
cat /proc/sys/kernel/random/uuid > /run/lab/boot; mount --bind /run/lab/boot /proc/sys/kernel/random/boot_id
mount -t cgroup2 lab /sys/fs/cgroup; mkdir /run/lab/units
for one in {TARGETS}; do cp {UNITS}/$one.target /run/lab/units; done; cp {UNITS}/systemd-poweroff.service /run/lab/units
mount -t tmpfs -o mode=755 lab {UNITS}; mount -t tmpfs -o mode=755 lab {UNITS}-generators; cp /run/lab/units/* {UNITS}
printf '[Unit]\\nWants=sshd.service multi-user.target\\n' > {UNITS}/lab.target
printf '[Service]\\nExecStart={SSHD} -D -e -f /run/lab/sshd_config\\n' > {UNITS}/sshd.service
exec env -i container=lab PATH=/usr/sbin:/usr/bin {SYSTEMD} --system --unit=lab.target --log-target=console
"""


def missing() -> str:
    """What keeps machines from being made here; empty when nothing does."""
    if os.geteuid() != 0:
        return "namespaces need root"
    gone = [tool for tool in ("ip", "unshare", "nsenter", "ssh-keygen") if shutil.which(tool) is None]
    return "" if not gone and Path(SSHD).exists() else f"{', '.join(gone) or SSHD} is not there: scripts/test-needs"


def on_machines(what: str) -> list[pytest.MarkDecorator]:
    """What holds for all tests on machines: those about one thing take turns, and all need what makes machines."""
    return [
        pytest.mark.real,
        pytest.mark.xdist_group(f"machines-{what}"),
        pytest.mark.skipif(bool(missing()), reason=missing()),
    ]


def cgroups() -> Path | None:
    """Where the control groups of version 2 are, in which systemd can have a tree of its own."""
    kinds = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next(
        (Path(place) for _, place, kind, rights, *_ in kinds if kind == "cgroup2" and "rw" in rights.split(",")), None
    )


def sh(script: str, *within: str) -> str:
    """What a script prints."""
    done = subprocess.run([*within, "sh", "-ec", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (script, done.stdout, done.stderr)
    return done.stdout


def until(met: Callable[[], object], what: str) -> None:
    seen(met, what, PATIENCE_S)


@dataclass(frozen=True)
class Machine:
    """A machine that runs. `pid` is its first process, seen from outside."""

    name: str
    address: str
    directory: Path
    pid: int

    def run(self, script: str) -> str:
        """What a script prints there."""
        return sh(script, "nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--pid", "--")

    def files(self) -> set[str]:
        """Every file and directory of those places that a node may write to."""
        return set(self.run(f"find {' '.join(OWN)} -mindepth 1").split("\n"))

    def place(self, path: str) -> Path:
        """Where a path there is, seen from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def programs(self) -> list[str]:
        """The command lines of what dsmt runs there."""
        found = self.run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | tr '\\n' ' '; true")
        return [word for word in found.split() if "dsmt" in word]


@dataclass
class Lab:
    """A network with an operator on it, who has the files from outside, and machines to log in to."""

    directory: Path
    name: str
    six: bool = False
    """Whether there is nothing on this network, and on its machines, but IPv6."""
    machines: list[Machine] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    groups: list[Path] = field(default_factory=list)

    def at(self, number: int) -> str:
        """An address of this network."""
        return f"{NETWORK6 if self.six else NETWORK}{number}"

    @property
    def address(self) -> str:
        """That of the operator."""
        return self.at(1)

    @property
    def home(self) -> Path:
        """The operator's home directory, with what SSH needs."""
        return self.directory / "operator"

    @property
    def within(self) -> tuple[str, ...]:
        """What goes before a command of the operator."""
        return ("ip", "netns", "exec", self.name)

    @property
    def environment(self) -> dict[str, str]:
        """What the operator's commands see."""
        return {"HOME": str(self.home), "SSH_AUTH_SOCK": "", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def begin(self) -> None:
        """Make the network, and the operator's key."""
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        sh(f"ssh-keygen -q -t ed25519 -N '' -f {self.home}/.ssh/id_ed25519; touch {self.home}/.ssh/known_hosts")
        sh(f"ip netns add {self.name}")
        sh(f"ip link set lo up; ip link add lab type bridge; {self._addressed(self.address, 'lab')}", *self.within)
        # or it answers for its address on each of its bridges, and who is cut off is heard
        sh("cd /proc/sys/net/ipv4/conf/all; echo 1 > arp_ignore; echo 1 > rp_filter", *self.within)

    def machine(self, name: str, *, known: bool = True, more: str = "", before: str = "", systemd: bool = False) -> Machine:
        """A machine that runs its sshd; with `known` the operator knows its host key.

        `more` is for its sshd_config, `before` is a script that is run there before sshd is. With `systemd` that is its
        first process, and keeps sshd; what it may write is on a disk then, and it can `reboot`.
        """
        directory = self.directory / name
        directory.mkdir()
        sh(f"ssh-keygen -q -t ed25519 -N '' -f {directory}/host_key")
        shutil.copy(self.home / ".ssh/id_ed25519.pub", directory / "authorized_keys")
        (directory / "sshd_config").write_text(CONFIG + more)
        mounts = [f"[ ! -d {place} ] || mount -t tmpfs -o mode=755 lab {place}" for place in OWN]
        if systemd:
            mounts[:-1] = [
                f"mkdir -p {directory}.disk{place}; mount --bind {directory}.disk{place} {place}" for place in OWN[:-1]
            ]
        script = (
            f"hostname {name}; mount -t tmpfs -o mode=755 lab /run; mkdir -p /run/sshd /run/lab; cp {directory}/* /run/lab; "
            f"{'; '.join(mounts)}; chmod 1777 /tmp; {before or ':'}\n"
        )
        script += BY_SYSTEMD if systemd else f"exec {SSHD} -D -e -f /run/lab/sshd_config"
        (directory / "begin").write_text(script)
        number = len(self.machines) + 2
        made, process = self._begun(name, number, self._group(name) if systemd else None)
        self.machines.append(made)
        self.processes.append(process)
        with (self.home / ".ssh/config").open("a") as config:
            config.write(f"Host {name}\n  HostName {made.address}\n  User root\n")
        if known:
            self.know(made)
        self._listens(made)
        return made

    def reboot(self, machine: Machine) -> Machine:
        """Have systemd power a machine off, and begin it again, with what is on its disk."""
        number = self.machines.index(machine)
        argv = ["nsenter", "-t", str(machine.pid), "--net", "--mount", "--uts", "--pid", "--", "systemctl", "poweroff"]
        subprocess.run(argv, capture_output=True, timeout=60, check=False)  # it may be ended before it has an answer
        self.processes[number].wait(PATIENCE_S)
        sh(f"[ ! -e /sys/class/net/{self._link(machine)} ] || ip link delete {self._link(machine)}", *self.within)
        self.machines[number], self.processes[number] = self._begun(machine.name, number + 2, self._group(machine.name))
        self._listens(self.machines[number])
        return self.machines[number]

    def _begun(self, name: str, number: int, group: Path | None) -> tuple[Machine, subprocess.Popen[bytes]]:
        """A machine that has begun, and the process below which it is; of control groups it sees those of its own alone."""
        directory = self.directory / name
        spaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv = ["unshare", *spaces, "sh", "-e", f"{directory}/begin"]
        if group is not None:
            argv = ["sh", "-ec", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", argv[0], "--cgroup", *argv[1:]]
        with (directory / "log").open("wb") as log:
            started = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        try:
            children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
            until(lambda: children.read_text().split(), f"the first process of {name}")
            made = Machine(name, self.at(number), directory, int(children.read_text().split()[0]))
            link = f"ip link add v{number} type veth peer name eth0 netns {made.pid}; ip link set v{number} master lab up"
            sh(link, *self.within)
            made.run(f"ip link set lo up; {self._addressed(made.address, 'eth0')}")
        except BaseException:
            started.kill()
            started.wait()
            raise
        return made, started

    def _group(self, name: str) -> Path:
        """A control group for a machine, removed with the lab."""
        place = cgroups()
        assert place is not None
        group = place / f"{self.name}-{name}"
        group.mkdir(exist_ok=True)
        self.groups.append(group)
        return group

    def _listens(self, machine: Machine) -> None:
        """Wait for its sshd."""
        probe = f'import socket; socket.create_connection(("{machine.address}", 22), 1)'
        look = f"{sys.executable} -c '{probe}' 2>/dev/null && echo up; true"
        until(lambda: "up" in sh(look, *self.within), f"sshd of {machine.name}: {(machine.directory / 'log').read_text()}")

    def shape(self, machine: Machine) -> None:
        """Give a machine's link 10 Mbit/s each way, and 20 ms where the kernel has `netem`: `tbf` delays nothing."""
        slow = "root tbf rate 10mbit burst 32k latency 400ms"
        machine.run(f"tc qdisc add dev eth0 root netem delay 20ms rate 10mbit 2>/dev/null || tc qdisc add dev eth0 {slow}")
        sh(f"tc qdisc add dev {self._link(machine)} {slow}", *self.within)

    def part(self, *groups: Sequence[Machine]) -> None:
        """Cut the network: each group of machines has one of its own, all others keep that of the operator."""
        for number, group in enumerate(groups):
            away = f"away{number}"
            sh(f"[ -e /sys/class/net/{away} ] || ip link add {away} type bridge; ip link set {away} up", *self.within)
            for machine in group:
                sh(f"ip link set {self._link(machine)} master {away}", *self.within)

    def heal(self) -> None:
        """Have all machines that live on one network again."""
        living = [one for one, process in zip(self.machines, self.processes, strict=True) if process.poll() is None]
        sh("; ".join(f"ip link set {self._link(machine)} master lab" for machine in living), *self.within)

    def cut(self, machine: Machine) -> None:
        """Take a machine's link away and kill all that runs there, at once: nobody hears of its end."""
        sh(f"ip link set {self._link(machine)} down", *self.within)
        process = self.processes[self.machines.index(machine)]
        process.kill()
        process.wait()

    def _addressed(self, address: str, link: str) -> str:
        """What gives a link its address, and brings it up."""
        if not self.six:
            return f"ip addr add {address}/24 dev {link}; ip link set {link} up"
        return f"ip addr del 127.0.0.1/8 dev lo; ip addr add {address}/64 dev {link} nodad; ip link set {link} up"

    def _link(self, machine: Machine) -> str:
        return f"v{self.machines.index(machine) + 2}"

    def know(self, machine: Machine) -> None:
        """Have the operator know a machine's host key."""
        key = " ".join((machine.directory / "host_key.pub").read_text().split()[:2])
        with (self.home / ".ssh/known_hosts").open("a") as file:
            file.write(f"{machine.name},{machine.address} {key}\n")

    def end(self) -> None:
        """End all machines, and the network."""
        warm.end_within()
        for process in self.processes:
            process.kill()
            process.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)
        for group in self.groups:
            seen(partial(_removed, group), f"the end of what runs in {group}", PATIENCE_S)


def _removed(group: Path) -> bool:
    """Remove a control group with those below it; whether nothing runs there any more."""
    for place, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()
    return not group.exists()


@contextmanager
def lab(directory: Path, *, six: bool = False) -> Iterator[Lab]:
    """A lab for the length of a block; nothing is left of it, whatever happens in it."""
    made = Lab(directory, f"lab-{os.getpid()}-{len(str(directory))}", six)
    try:
        made.begin()
        yield made
    finally:
        made.end()

"""The deployment agent's process: `main(DIRECTORY)` in a warm fork of the spawner; DIRECTORY is its container's.

SIGTERM and SIGINT: stop the instance, say so, and exit with `EXIT_STOPPED`.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from dsmt.agents.drivers import drivers_of
from dsmt.agents.fetch.node_artifacts import NodeArtifacts
from dsmt.agents.instance.deployment_agent import DeploymentAgent
from dsmt.agents.rules import container
from dsmt.agents.shared.kept import own
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.monitors.checks.check import RealChecks
from dsmt.programs.bus import hand_on_brokers
from dsmt.programs.configuration import RealmConfig, legible, read_identity
from dsmt.programs.node_process import bus_of_agent, bus_of_manager, client
from dsmt.programs.running import on_signals, run
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import DiskFiles
from dsmt.system.logs import DiskLogs
from dsmt.system.marks import bear
from dsmt.system.processes import SpawnedProcesses
from dsmt.system.procfs import boot
from dsmt.system.sockets import LinuxSockets
from dsmt.trust.revocations import is_disowned
from dsmt.trust.store import TrustStore


def main(directory: str) -> int:
    """Be the agent of a container until its slot has left, or a signal; the exit code.

    It bears the container's mark, by which it is found though its program has removed all that names it (A5).
    """
    bear(os.path.abspath(directory))
    return run(lambda: _serve(os.path.abspath(directory)))


async def _serve(directory: str) -> int:
    config = container.load_config(DiskFiles(directory).read(container.CONFIG), where=f"{directory}/{container.CONFIG}")
    node = config.node_directory
    files, quick = (DiskFiles(node, durable=safe).below(directory.removeprefix(f"{node}/")) for safe in (True, False))
    with legible():
        identity = read_identity(Path(directory) / container.IDENTITY)
    spawner = SpawnedProcesses(config.node_directory)
    realm = RealmConfig(name=config.realm, roots=config.roots, brokers=config.brokers, nats=config.nats)
    checks = RealChecks(directory)
    if own(files, container.RECORD) is not None:  # there was an agent before, which may have been killed
        await checks.clear()
    learnt = bus_of_agent(files)
    hand_on_brokers(DiskFiles(bus_of_manager(config.node_directory), durable=False), quick.below("bus"))
    trust = TrustStore(realm.realm)
    async with client(identity, realm, directory=learnt, address=config.address, trust=trust) as bus:
        agent = DeploymentAgent(
            config,
            InstanceSurroundings(
                bus=bus,
                drivers=drivers_of(directory, spawner.ended),
                checks=checks,
                artifacts=NodeArtifacts(bus.get_blob),
                sockets=LinuxSockets(),
                logs=DiskLogs(f"{directory}/{container.LOGS}"),
                files=files,
                quick=quick,
                data=DiskFiles(config.data_root, top=config.node_directory),
                host=DiskFiles("/", made=False, ours=False),
                clock=LinuxClock(),
                entropy=SystemEntropy(),
                boot=boot(),
                inherited=dict(os.environ),
                is_disowned=partial(is_disowned, is_revoked=trust.disowns),
            ),
        )
        on_signals({signal.SIGTERM: agent.shutdown, signal.SIGINT: agent.shutdown})
        return await agent.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

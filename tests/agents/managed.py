"""A node with a container manager to which slots are given."""

from typing import Any, Self

from dsmt.agents.node.container_manager import ContainerManager
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Draft
from dsmt.simulator.engine.process import SimProcess

from .memory_bus import Realm
from .world import Node, node_config

SLOT = SlotKey("web", "app", 0)


def buried() -> dict[str, Any]:
    return to_data(Tombstone(by="operator/op", reason="removed"))


TOMBSTONE = "tombstone/service/web"


class Managed:
    """A node whose manager runs as a process of the simulation, and one slot of it."""

    def __init__(self) -> None:
        self.realm = Realm()
        self.node = Node(self.realm)
        self.site = self.node.agents.site(SLOT)
        self.manager: ContainerManager | None = None
        self.process: SimProcess | None = None

    @classmethod
    async def running(cls) -> Self:
        """One whose slot was placed, and runs."""
        at = cls()
        at.start()
        at.site.place()
        await at.site.until("running")
        return at

    def start(self) -> SimProcess:
        self.process = SimProcess("manager of n1")

        async def main() -> int:
            self.manager = ContainerManager(node_config(), self.node.deps())
            await self.manager.run()
            return 0

        self.process.start(main())
        return self.process

    def told(self, layer: str) -> list[Any]:
        return self.realm.told(f"{SLOT.on('status', 'n1')}/{layer}")

    def states(self, layer: str) -> list[str]:
        return [status["state"] for status in self.told(layer)]

    async def ended(self, *, ttl_ms: int | None = None) -> SignedEvent:
        """Run the slot, and end it, by a fact that lives so long; that fact."""
        spec = self.site.spec()
        self.site.assign(spec)
        await self.site.until("running")
        self.site.assign(spec, version=2, desired="gone", ttl_ms=ttl_ms)
        await self.realm.until(lambda: self.manager is not None and self.manager.slots == ())
        return self.realm.facts[SLOT.topic]

    def buried(self) -> None:
        self.site.spec_bus.emit(Draft(TOMBSTONE, buried(), version=1))

    def brought(self) -> list[str]:
        """The topics of what was offered since it was asked last."""
        offered, self.node.bus.offered = self.node.bus.offered, []
        return [signed.event.topic for signed in offered]

    def attached(self) -> None:
        for call in self.node.bus.calls:
            call()

    def end(self) -> None:
        for one in (*self.node.agents.started, self):
            if one.process is not None:
                one.process.kill()

"""Services that run as applied, and the revisions of their slots."""

from dsmt.event.kinds.slot import Slot

from .build import Realm, web


def running(instances: int = 4, *, component: str = "", nodes: int = 4) -> Realm:
    realm = Realm(*(f"n{i}" for i in range(1, nodes + 1)))
    realm.apply(web(instances, component=component))
    realm.settle(seconds=1)
    return realm.after(100)


def revisions(realm: Realm) -> list[int]:
    slots = sorted(realm.view.services["web"].slots.items())
    return [slot.fact.record.revision for _, slot in slots]


def refused(slot: Slot) -> int:
    """The number of the revision that was rolled back to what a slot implements; 0 if none was."""
    return 0 if slot.refuses is None else slot.refuses.revision

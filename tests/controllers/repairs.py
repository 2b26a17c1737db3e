"""Services that run, and nodes that die."""

from .build import Realm, web


def running(instances: int | str = 3, *nodes: str, component: str = "", ran_s: float = 100) -> Realm:
    """A realm where the service has been running for a while."""
    realm = Realm(*(nodes or ("n1", "n2", "n3", "n4")))
    realm.apply(web(instances, component=component))
    realm.settle(seconds=1)
    return realm.after(ran_s)


def kill(realm: Realm, node: str) -> None:
    realm.close(node)
    realm.after(0.3).step()

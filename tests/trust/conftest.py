"""A realm with one of each kind of source."""

from hashlib import sha256

import pytest

from dsmt.event.codec import seal
from dsmt.event.envelope import NO_LEAF, ChainLink, Event
from dsmt.event.hlc import hlc
from dsmt.trust.identity import delegate, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import Realm, TrustStore

NOW = 1_700_000_000
DAY = 86_400


class RealmForTests:
    """Identities under one root; every key is made of its name, so that runs are equal."""

    now = NOW
    day = DAY

    def __init__(self, name="test"):
        self.name = name
        self.root = self.key("root")
        self.realm = Realm(name=name, roots=(self.root.public,))
        self.identities = {}
        for one in (
            "operator/alice", "issuer/i1", "issuer/i2", "broker/b1", "broker/b2", "controller/c1", "controller/c2",
            "node/n1", "node/n2",
        ):  # fmt: skip
            self.identities[one] = self.by_root(one)
        for parent, one in (
            ("node/n1", "monitor/n1"),
            ("node/n2", "monitor/n2"),
            ("node/n1", "agent/n1/web/app/0"),
            ("node/n1", "agent/n1/web/app/1"),
            ("node/n2", "agent/n2/db/app/0"),
            ("operator/alice", "operator/alice.x7"),
            ("operator/alice", "joining/a1"),
            ("operator/alice", "joining/a2"),
            ("issuer/i1", "node/n9"),
            ("node/n9", "agent/n9/web/app/0"),
        ):
            self.identities[one] = self.below(one, self.identities[parent])

    def key(self, name):
        return SecretKey(sha256(f"{self.name} {name}".encode()).digest())

    def by_root(self, name, *, key=None, at=NOW, lifetime_s=365 * DAY):
        return root_issued(
            name, self.root, key=key or self.key(name), now_s=at, serial=sha256(name.encode()).digest()[:16],
            lifetime_s=lifetime_s,
        )  # fmt: skip

    def below(self, name, parent, *, key=None, at=NOW):
        return delegate(name, parent, key=key or self.key(name), now_s=at, serial=sha256(name.encode()).digest()[:16])

    def store(self, *identities):
        """A store that knows the given identities, or all."""
        store = TrustStore(self.realm)
        for identity in identities or self.identities.values():
            store.add_all(signed.raw for signed in identity.chain)
        return store

    def event(self, topic, *, source, at=NOW + 100, sequence=1, **fields):
        told = {
            "source": source, "incarnation": 1, "sequence": sequence, "chain": ChainLink(1, NO_LEAF), "type": "t",
            "topic": topic, "subject": "", "time": hlc(at * 1000), "data": {},
        }  # fmt: skip
        if fields.get("version") is not None:
            told["epoch"] = 1
        return Event(**{**told, **fields})

    def speaker(self, name):
        """The key that a name signs with; the root's own is that of the realm."""
        return self.root if name == "root" else self.identities[name].key

    def revocation(self, key_id, *, by, **more):
        """The fact with which somebody revokes a key."""
        event = self.event(topic_of(key_id, by), source=by, **more)
        return seal([event], self.speaker(by))[0]

    def revoke(self, store, name, *, by="root"):
        """Have a store hear that somebody revokes the key of a name."""
        store.revoke(self.revocation(self.identities[name].key.key_id, by=by))

    def says(self, name, topic, *, key=None, at=NOW + 100, source=None):
        """The bytes of an event that a source signed."""
        signer = key or self.identities[name].key
        return seal([self.event(topic, source=source or name, at=at)], signer)[0].raw


@pytest.fixture(scope="session")
def realm():
    return RealmForTests()


@pytest.fixture(scope="session")
def other_realm():
    return RealmForTests("elsewhere")

"""Names of the realm in these tests, and what a store says to what it refuses."""

import msgspec
import pytest

from dsmt.errors import UnusableEventError

AGENT, NODE = "agent/n1/web/app/0", "node/n1"
STATUS = "service/web/status/app/0/n1/application"


def refusal(store, raw):
    with pytest.raises(UnusableEventError) as caught:
        store.open(raw)
    assert caught.value.message, "a refusal is a sentence"
    return caught.value.code


def refused(store, raw):
    with pytest.raises(UnusableEventError) as caught:
        store.add(raw)
    assert caught.value.message, "a refusal is a sentence"
    return caught.value.code


def certificate(realm, name, **changes):
    """The certificate of a name with changes."""
    return msgspec.structs.replace(realm.identities[name].certificate, **changes)

"""Coming up: what was started is announced, and waited for."""

from __future__ import annotations

from collections.abc import Mapping

from dsmt.errors import FailedError, RefusedError, TimedOutError, TransportError
from dsmt.event.phrases import another_certificate, counted, some
from dsmt.operations.connection import Reading, connect, reading
from dsmt.operations.local import following
from dsmt.operations.local.brokers import made_ms, meshed, note_announced
from dsmt.operations.local.home import Home
from dsmt.operations.local.machine import StartedRealm
from dsmt.operations.read.certificates import ended_brokers, in_use
from dsmt.operations.read.outside import revoked
from dsmt.operations.read.sight import Sight
from dsmt.operations.read.waiting import until
from dsmt.operations.words.telling import Tell, silent
from dsmt.operations.write.brokers import announce
from dsmt.operations.write.revoking import NO_BROKER, WAY_BACK
from dsmt.programs.configuration import IDENTITY, read_identity
from dsmt.programs.node_process import bus_of_manager
from dsmt.programs.pings import AGAIN_S, SILENT_S
from dsmt.system.failures import little_left
from dsmt.system.files import DiskFiles
from dsmt.trust.keys import key_id_of

PATIENCE_S = 30.0


async def announced(home: Home) -> list[str]:
    """Say which brokers are here, before nodes are waited for: those that ran already know of a new one by this alone.

    It is said at each of them: what the new one alone is told no other one hears. What went amiss is returned.
    """
    known, made, realm = meshed(home), made_ms(home), home.realm()
    if len(known) < 2:
        return []
    asked = [] if realm.nats is not None else [[one] for one in known.values()]
    gone: set[str] = set()
    told, unheard = False, []
    for brokers in asked:
        try:
            async with connect(home.operator(), realm, brokers=brokers) as connection:
                gone.update(await announce(connection.bus, known, by=connection.by, made_ms=made))
                told = True
        except TransportError as error:  # another one is told
            unheard.append(error.message)
        except RefusedError:  # it was removed
            continue
    if not told:
        async with connect(home.operator(), realm, patience_s=PATIENCE_S) as connection:
            gone.update(await announce(connection.bus, known, by=connection.by, made_ms=made))
    note_announced(home, known.keys() - gone)
    removed = (
        f"broker {one} does not belong to the realm any more, but is still here: dsmt broker remove {one} ends it"
        for one in sorted(gone)
    )
    return [*unheard, *removed]


async def attached(home: Home, started: StartedRealm, *, limit_s: float = PATIENCE_S, tell: Tell = silent) -> list[str]:
    """Wait until all nodes are attached and alive, as long as within the limit one more of them is, and then controllers.

    Which controllers are not alive after a while, in words; they are started, and one that hangs is ended (C15).
    Raises `TimedOutError`, and `FailedError` where a key has ended.
    """
    keys = {node: read_identity(home.part("nodes", node) / IDENTITY).certificate.key_id.hex() for node in started.nodes}
    missing = list(started.nodes)

    def all_alive(sight: Sight) -> bool | None:
        nonlocal missing
        missing = _missing(connection, sight, keys)
        return None if missing else True

    def far(_: Sight) -> str:
        return f"{len(keys) - len(missing)} of {len(keys)}; not {some(missing)}"

    joined = home.part("nodes", started.nodes[0]) if home.is_joined else None
    reader = home.operator() if joined is None else read_identity(joined / IDENTITY)
    known = None if joined is None else DiskFiles(bus_of_manager(str(joined)), durable=False)
    async with reading(reader, home.realm(), known=known, patience_s=limit_s) as connection:
        while missing:
            before, unmet = len(missing), "not all nodes are attached and alive"
            try:
                await until(connection.bus, all_alive, limit_s=limit_s, unmet=unmet, look="dsmt nodes", far=far, tell=tell)
            except TimedOutError as error:
                if len(missing) >= before:
                    here = f"{len(keys) - before} of {counted(len(keys), 'node')} attached and alive"
                    said = f"{here}; no other node came within {limit_s:g} s: {some(missing)} did not; the start goes on"
                    full = little_left(str(home.root))
                    said, advice = (f"{said}; {full}", "free space there") if full else (said, error.next)
                    raise TimedOutError(error.code, said, next=advice) from error
        late = await following.here(connection.bus, started.controllers)
    hangs = f"not alive yet; one that hangs is ended after {round(SILENT_S + AGAIN_S)} s, and started again"
    return [f"controller {one} is {hangs}" for one in late]


def _missing(connection: Reading, sight: Sight, keys: Mapping[str, str]) -> list[str]:
    """The nodes that are not attached and alive, of those with these keys. Raises `FailedError` where one never will be."""
    if all(connection.trust.is_revoked(key_id_of(public)) for _, public in connection.realm.brokers):
        said = f"the key of the only broker was revoked: {NO_BROKER}"
        raise FailedError("broker.revoked", said, next=WAY_BACK)
    known = sight.view.nodes
    for node, key in keys.items():
        ended = revoked(sight, known[node]) if node in known else None
        if ended is not None and ended.event.topic.split("/")[2] == key:
            said = f"the key of node/{node} was revoked: it cannot attach"
            raise FailedError("node.revoked", said, next=f"dsmt cert rotate node/{node}, then dsmt up again")
    missing = [node for node in keys if sight.fleet.state(node) != "alive" or not known[node].attributes]
    ours = {public for _, public in connection.realm.brokers}  # one that was removed does not matter any more
    now_s = sight.now_ms // 1000
    ended_ones = ended_brokers(in_use(connection.trust, now_s), now_s) if missing else {}
    for broker in (name for name, one in ended_ones.items() if one.public in ours):
        said = f"the certificate of {broker} has ended: what it says of nodes is not believed"
        raise FailedError("broker.expired", said, next=another_certificate(broker))
    return missing

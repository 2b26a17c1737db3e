"""Revoking: the root ends a key; what it had said and shall stay is signed anew before.

Rule 1: who comes after a revocation believes nothing that the key has signed. So what an operator's key had said for all
    (specs, holds, node sets, controls) is said again by another operator first, with the same content, or ended.
    A revision that was rolled back stands by its slots alone: it is not signed anew, and what they implement is. So where
    either was said by that key, the next revision is what runs, and nothing of it is started anew.
    A move that was done keeps its number, and is not done again.
    A spec that is signed anew names as its causes what it says again: so controllers know that it is as good as that was.
    Where only an earlier one is the key's, which says the same and to which slots would go back, it is signed anew, too.
    One that says something else, for an update is under way, is not: who revokes is told which service would wait for it.
    A token that nobody has used is ended: its own key stands below the one that ends (J2).
    Nobody ends the key that speaks for them now: they rotate it first.
Rule 2: what a controller's key had said is said again first, too, by a controller that is made for that, also where an
    operator could: nobody is to sign a thief's words. Of those that run none may outlive the key, and who begins later
    sees nothing of it and could follow none of it. What the key says meanwhile the other controllers say again by
    themselves; it is waited for.
Rule 3: what an operator's key says meanwhile at a broker that is not heard here nobody signs anew: it is void (J3), and who
    revokes is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from dsmt.controllers.intents import draft_of
from dsmt.controllers.loop.resaying import again
from dsmt.errors import DsmtError, FailedError, InputError, NotFoundError, RefusedError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.realm import Revoked
from dsmt.event.kinds.service import SpecFact
from dsmt.event.phrases import some
from dsmt.event.records import from_data, to_data
from dsmt.operations.connection import Connection, Reading
from dsmt.operations.read.realm.facts import retained
from dsmt.operations.read.realm.patience import patience
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.certificates import in_use
from dsmt.operations.read.rows.revisions import earlier
from dsmt.operations.words.names import meant_whole
from dsmt.operations.write.tokens import ending, is_unused
from dsmt.operations.write.writing import say
from dsmt.ports.bus import BusReader, Draft
from dsmt.spec.plain import from_plain
from dsmt.trust.grants import may_write
from dsmt.trust.keys import key_id_of
from dsmt.trust.revocations import revoked_by, topic_of
from dsmt.trust.store import TrustStore
from dsmt.view import ServiceEntry, View
from dsmt.view.sessions import word

Reverted = dict[str, dict[str, SignedEvent]]
"""By the topic of a spec, of each component that was rolled back: the earlier spec that its slots implement."""

SUCCESSORS_S: Final = 10.0
TRIES: Final = 3
"""How often what has changed meanwhile is looked at anew."""
LOOK_S: Final = 0.2
ITS_SIGNER: Final = "its signer was revoked"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is to end, and on which topics what it has said for all stands now."""

    name: str
    key: str
    ours: list[str]
    """What an operator may say again, and no controller had said."""
    theirs: list[str]
    """What the controllers say again."""
    only_broker: bool = False
    """No broker of the realm would be left."""
    below: list[str] = []
    """The nodes that an issuer has certified, and that end with it."""


class EndedKey(msgspec.Struct, frozen=True, kw_only=True):
    """Whose key was ended, by whom, when and why; `signer`: the source that has said so."""

    key: str
    name: str
    by: str
    at: str
    reason: str
    signer: str


class RevokedKey(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: what was signed anew, what was ended, and what nobody has said again yet."""

    name: str
    key: str
    kept: list[str]
    dropped: list[str]
    left: list[str]
    warnings: list[str] = []


async def shared_facts(bus: BusReader) -> list[SignedEvent]:
    """All shared facts that are believed now."""
    found = await retained(bus, "/", "the realm's facts")
    return list({one.event.topic: one for one in found if one.event.version is not None}.values())


async def revoked_keys(bus: BusReader) -> dict[str, EndedKey]:
    """By their ids the keys that a revocation names, each with the first one; all the realm's certificates are shown."""
    found: dict[str, EndedKey] = {}
    told = [signed.event for signed in await retained(bus, "/", "the realm's facts")]
    for event in sorted(told, key=lambda event: event.time_ms):
        key_id = revoked_by(event.topic)
        if key_id is not None:
            said, at = from_data(Revoked, event.data), rfc3339(event.time_ms)
            one = EndedKey(key=key_id.hex(), name=said.name, by=said.by, at=at, reason=said.reason, signer=event.source)
            found.setdefault(one.key, one)
    return found


def key_of(connection: Reading, what: str) -> tuple[bytes, str]:
    """The one key, not revoked yet, that a name or the beginning of its id means, and its name. Raises `InputError`."""
    trust = connection.trust
    known = {(one.key_id, one.subject) for one in trust.certificates()}
    found = sorted(
        (key_id, name)
        for key_id, name in known
        if (name == what or (len(what) >= 4 and key_id.hex().startswith(what))) and not trust.is_revoked(key_id, name)
    )
    if len({key_id for key_id, _ in found}) == 1:
        return found[0]
    if found:
        keys = ", ".join(key_id.hex() for key_id, _ in found)
        raise InputError(
            "cert.ambiguous",
            f"{what} has several keys: {keys}",
            next=f"dsmt cert show {what}; then name one: dsmt cert revoke KEY",
        )
    if len(what) == 32 and all(letter in "0123456789abcdef" for letter in what):
        return bytes.fromhex(what), ""
    close = meant_whole(what, {name for key_id, name in known if not trust.is_revoked(key_id, name)})
    said = f"no valid key of {what or repr(what)} is known here"
    raise NotFoundError("cert.unknown", said, next=f"{close}dsmt cert list shows them")


async def claim(connection: Reading, what: str) -> Claim:
    """What a revocation would leave without a believed signer.

    Raises `InputError` for what names no key, `RefusedError` for the one that is in use here.
    """
    facts = await shared_facts(connection.bus)
    reverted, good = await _reverted(connection.bus, facts), await _good(connection.bus, facts)
    key_id, name = key_of(connection, what)
    after = connection.trust.without(key_id)  # with the certificates of all that was asked for
    if after.is_revoked(connection.identity.certificate.key_id):
        said = f"{connection.bus.source} would end with it, and no command would reach the realm from here"
        raise RefusedError(
            "trust.own", said, next=f"dsmt cert rotate operator/{connection.by}, and revoke the former key then"
        )
    brokers = {key_id_of(public) for _, public in connection.realm.brokers}
    disowned = {signed.event.topic for signed in facts if after.disowns(signed)}
    disowned |= {topic for topic, specs in reverted.items() if any(map(after.disowns, specs.values()))}
    disowned |= {signed.event.topic for signed in good if after.disowns(signed)}
    by_controllers = {one.event.topic for one in facts if one.event.source.startswith("controller/") and after.disowns(one)}
    ours = {topic for topic in disowned - by_controllers if may_write(connection.bus.source, topic)}
    return Claim(
        name=name,
        key=key_id.hex(),
        ours=sorted(ours),
        theirs=sorted(disowned - ours),
        only_broker=key_id in brokers and all(map(after.is_revoked, brokers)),
        below=[] if name.startswith("node/") else _nodes_ended(connection.trust, after),
    )


async def live(connection: Reading, claim: Claim) -> list[str]:
    """The members that live now with certificates that end with a key: who is attached, and brokers that are heard."""
    sight, trust = await look(connection.bus, passing=True), connection.trust
    after = trust.without(bytes.fromhex(claim.key))
    ended = sorted(
        name
        for name, one in in_use(trust, sight.now_ms // 1000).items()
        if after.is_revoked(one.key_id, name) and not trust.is_revoked(one.key_id, name)
    )
    sessions, lost = sight.view.sessions.of, sight.fleet.lost_brokers
    said = {name: word(sessions[name], lost) for name in ended if name in sessions}
    attached = {name for name, one in said.items() if one is not None and one.state == "open"}
    present = sight.passing.stats.keys() - sight.passing.removed - lost.keys()
    brokers = {f"broker/{name}" for name in present if sight.passing.hears(name, sight.now_ms)}
    return [name for name in ended if name in attached or name in brokers]


async def unheard(connection: Reading) -> list[str]:
    """The warning that what a key has said at a broker which is lost is neither known nor signed anew (rule 3)."""
    sight = await look(connection.bus)
    lost = sight.unheard_brokers
    if not lost:
        return []
    said = f"{some(lost)} {'are' if len(lost) > 1 else 'is'} not heard at {sight.broker}: what the key has said there since"
    return [f"{said} is not known here; when all are linked again it counts no more, and what it has started runs on"]


async def updating(connection: Reading, claim: Claim, *, drop: Sequence[str]) -> list[str]:
    """The warning of services of which instances have, or would go back to, what the key has said and nobody says again."""
    before = dict[str, list[SignedEvent]]()
    if not claim.name.startswith("operator/"):
        return []  # nobody else applies anything
    for entry in _services(await shared_facts(connection.bus)):
        facts = [slot.fact.record for slot in entry.slots.values() if slot.fact is not None and entry.name not in drop]
        named = {one.spec for fact in facts if fact.desired != "gone" for one in (fact.implements, fact.good) if one}
        earlier_ones = [one for one in sorted(named) if not entry.says_again(one) and entry.refusal() is None]
        before[entry.name] = [signed for one in earlier_ones for signed in await _spec(connection.bus, one)]
    after = connection.trust.without(bytes.fromhex(claim.key))  # with the certificates of all that was asked for
    found = [name for name, specs in before.items() if any(map(after.disowns, specs))]
    if not found:
        return []
    said = f"an update of {some(found)} is under way, and what was there before was applied with this key"
    then = "an instance that goes back to it, or begins elsewhere with it, waits for ever"
    return [f"{said}: {then}. If it fails, apply a file that works"]


def _nodes_ended(before: TrustStore, after: TrustStore) -> list[str]:
    """The nodes that one store believes, and another does not."""
    nodes = {(one.key_id, one.subject) for one in before.certificates() if one.role == "node"}
    return sorted(name for key_id, name in nodes if after.is_revoked(key_id, name) and not before.is_revoked(key_id, name))


async def sign_anew(connection: Connection, claim: Claim, *, drop: Sequence[str]) -> tuple[list[str], list[str]]:
    """Say again what stays; end the services that do not. The topics of both. Raises `InputError`, `RefusedError`."""
    ended = {f"service/{service}/spec" for service in drop}
    unknown = sorted(ended - set(claim.ours))
    if unknown:
        raise InputError("cert.drop", f"{', '.join(unknown)} was not said by that key", next="leave it out of --drop")
    facts = {signed.event.topic: signed for signed in await shared_facts(connection.bus)}
    standing = [facts[topic] for topic in claim.ours if topic in facts]
    if standing:
        reverted = await _reverted(
            connection.bus, standing + [one for one in facts.values() if one.event.type == "dsmt.slot"]
        )
        unused = {one.event.topic: one for one in standing if is_unused(one)}
        drafts = [
            _successor(one, reverted.get(one.event.topic, {}), connection.by, removed=one.event.topic in ended)
            for one in standing
            if one.event.topic not in unused
        ]
        await say(connection.bus, [*drafts, *(ending(connection, one, reason=ITS_SIGNER) for one in unused.values())])
        ended |= set(unused)
    return [topic for topic in claim.ours if topic not in ended], sorted(ended)


async def stand_in(controller: Connection, claim: Claim) -> None:
    """Say again, as a controller, what controllers may write (rule 2); what keeps changing is left to those that run."""
    after = controller.trust.without(bytes.fromhex(claim.key))
    for _ in range(TRIES):
        wanted = again(await shared_facts(controller.bus), controller.bus.source, after.disowns)
        with suppress(FailedError):
            await say(controller.bus, [draft_of(one) for one in wanted])
            return


async def _reverted(bus: BusReader, facts: Iterable[SignedEvent]) -> Reverted:
    """What was rolled back; a spec that is not had any more is left out."""
    found = Reverted()
    for entry in _services(facts):
        for component in () if entry.parsed is None else entry.parsed.components:
            refusal = entry.refusal(component)
            if refusal is not None:
                for spec in await _spec(bus, refusal.record.spec):
                    if component in _components(entry, spec):
                        found.setdefault(f"service/{entry.name}/spec", {})[component] = spec
    return found


async def _good(bus: BusReader, facts: Iterable[SignedEvent]) -> list[SignedEvent]:
    """Earlier specs to which slots would go back, and which say what stands now but for how many instances there are."""
    found: list[SignedEvent] = []
    for entry in _services(facts):
        goods = (None if slot.fact is None else slot.fact.record.good for slot in entry.slots.values())
        for spec in sorted({good.spec for good in goods if good is not None and entry.says_again(good.spec)}):
            found += await _spec(bus, spec)
    return found


def _services(facts: Iterable[SignedEvent]) -> list[ServiceEntry]:
    """The services that stand."""
    view = View()
    for signed in facts:
        view.apply(signed)
    return [entry for entry in view.services.values() if entry.spec is not None and not entry.spec.record.removed]


async def _spec(bus: BusReader, name: str) -> list[SignedEvent]:
    """A spec by its id, if it is had."""
    try:
        return await bus.fetch([EventId.parse(name)])
    except (DsmtError, ValueError):
        return []


def _components(entry: ServiceEntry, signed: SignedEvent) -> Collection[str]:
    """Those of a spec of a service; none where a slot's fact names anything else as what it went back to."""
    with suppress(UnusableEventError):
        if signed.event.topic == f"service/{entry.name}/spec":
            return from_plain(from_data(SpecFact, signed.event.data).spec).components
    return ()


def _as_it_runs(own: str, data: dict[str, Any], reverted: Mapping[str, SignedEvent]) -> dict[str, Any]:
    """A spec with each component that was rolled back as its slots have it, but as many of them as it says."""
    fact = from_data(SpecFact, data)
    components = dict(fact.spec["components"])
    for name, spec in reverted.items():
        before = from_data(SpecFact, spec.event.data).spec["components"][name]
        components[name] = {**before, "instances": components[name]["instances"]}
    after = {**fact.spec, "components": components}
    return to_data(msgspec.structs.replace(fact, spec=after, same=(), earlier=earlier(fact, own, after)))


def _successor(signed: SignedEvent, reverted: Mapping[str, SignedEvent], by: str, *, removed: bool) -> Draft:
    event, data = signed.event, signed.event.data
    if removed:
        record = from_data(SpecFact, data)
        data = to_data(msgspec.structs.replace(record, by=by, reason=ITS_SIGNER, removed=True))
    elif reverted:
        data = _as_it_runs(str(signed.id), data, reverted)
    elif event.type == "dsmt.service.spec":
        data = {**data, "same": [str(signed.id), *data.get("same", ())]}
    cause = dict.fromkeys((signed.id, *(spec.id for spec in reverted.values())))
    return Draft(event.topic, data, subject=event.subject, cause=tuple(cause), to=event.to, replaces=signed)


async def revoke(root: Connection, claim: Claim, *, by: str, reason: str) -> None:
    """Have the root end the key. Raises `RefusedError`, `TransportError`."""
    draft = Draft(
        topic_of(bytes.fromhex(claim.key), root.bus.source),
        to_data(Revoked(by=by, name=claim.name, reason=reason)),
        subject=claim.name or claim.key,
    )
    async with patience("the acknowledgement"):
        await root.bus.publish(draft)


async def wait_for_successors(bus: BusReader, topics: Iterable[str]) -> list[str]:
    """Wait until everything that others say again is said; what is left after a while (rule 2)."""
    left = set(topics)
    deadline = asyncio.get_running_loop().time() + SUCCESSORS_S
    while left and asyncio.get_running_loop().time() < deadline:
        left -= {signed.event.topic for signed in await shared_facts(bus)}
        if left:
            await asyncio.sleep(LOOK_S)
    return sorted(left)

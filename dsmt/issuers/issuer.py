"""The issuer: answers who holds a token, and nodes whose certificate is to be renewed; a shell over the bus (rules J1, J2).

Rule 1: it keeps nothing: what tokens are good for and who has used them are facts. What it says first is the use, which the
    broker compares with what stands; so any number of issuers answer side by side, and one of them is heard.
Rule 2: what it has certified for a token of which something else stands, or under a name that had been given, it revokes
    whenever it sees both.
Rule 3: a request that it does not answer in time is asked again; none makes it fail, and no word of a token does.
    What it has to end by tokens is looked for once for all that come together: at a start those are all that there are.
    Of the requests of one source `ASKS` are looked at at once, and one more each second: it runs beside a controller.
Rule 4: who has a name is known by what was shown of it and, where nobody holds that any more (D2), by the token it used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from dsmt.errors import DsmtError, RefusedError, TransportError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import milliseconds
from dsmt.event.kinds.joining import JoinRefused, JoinRequest, RenewalRequest, Renewed, TokenFact
from dsmt.event.kinds.node import NodeVerdict
from dsmt.event.kinds.realm import Revoked
from dsmt.event.order import newer
from dsmt.event.records import from_data, to_data
from dsmt.logs import Logger
from dsmt.newest import Newest
from dsmt.ports.bus import Arrived, Bus, Draft, Interest
from dsmt.trust.certificate import Certificate, SignedCertificate
from dsmt.trust.identity import Identity
from dsmt.trust.joining import ID_BYTES, TOKENS, Use, check_request, is_due, lost, node_certificate
from dsmt.trust.keys import key_id_of
from dsmt.trust.revocations import KEY_ID_BYTES, topic_of
from dsmt.trust.store import TrustStore

INTEREST: Final = Interest(
    (TOKENS, "joining/+/request", "node/+/renewal", "node/+/attributes", "node/+/verdict"), conflate=True
)
"""With the attributes of nodes come their certificates: so it knows who has which name."""
ANSWER_S: Final = 10.0
ASKS: Final = 16
_ASKED_KNOWN: Final = 4096
_STALE: Final = ("stale", "unanswered")


class Issuer:
    """Answers as the source of a bus; `trust` is what that bus has been shown."""

    def __init__(self, bus: Bus, identity: Identity, trust: TrustStore) -> None:
        self._bus, self._identity, self._trust = bus, identity, trust
        self._facts: dict[str, SignedEvent] = {}
        self._tokens: dict[str, Use] = {}
        self._heard: dict[str, int] = {}
        self._left: dict[str, int] = {}
        """By node: when it has joined or said its attributes last, and when an operator has removed it (hybrid time)."""
        self._asked: Newest[str, tuple[float, int]] = Newest(_ASKED_KNOWN)
        """By source: how many requests were looked at, less one for each second since, and when the last one was."""
        self._log = Logger(source=identity.name)

    async def run(self) -> None:
        """Answer until cancelled."""
        async with self._bus.subscribe(INTEREST) as batches:
            async for batch in batches:
                came = [one.signed for one in batch if isinstance(one, Arrived)]
                for signed in came:
                    await self._in_time(signed.event.topic, self._take(signed))
                if any(signed.event.topic.startswith(TOKENS) for signed in came):
                    await self._in_time(TOKENS, self._end(self._trust.certificates()))

    async def _in_time(self, topic: str, work: Coroutine[Any, Any, None]) -> None:
        """Rule 3."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await work
        except TimeoutError:
            self._log.warning("not answered in time", topic=topic)
        except DsmtError as error:
            self._log.warning("not answered", topic=topic, code=error.code, reason=error.message)

    async def _take(self, signed: SignedEvent) -> None:
        event = signed.event
        match event.type:
            case "dsmt.trust.token":
                self._learn(event.topic.removeprefix(TOKENS), signed)
            case "dsmt.joining.request" | "dsmt.node.renewal" if not self._is_heard(event.source):
                pass
            case "dsmt.joining.request":
                await self._answer(event.topic.split("/")[1], from_data(JoinRequest, event.data), signed)
            case "dsmt.node.renewal":
                await self._renew(signed)
            case "dsmt.node.verdict":
                if from_data(NodeVerdict, event.data).state == "left":
                    self._left[event.topic.split("/")[1]] = event.time
            case _:
                self._hear(event.topic.split("/")[1], event.time)
                await self._end(self._above(signed))

    def _learn(self, token: str, signed: SignedEvent) -> None:
        if not _is_id(token, ID_BYTES):
            return
        held = self._facts.get(token)
        if held is None or self._trust.disowns(held) or newer(signed.event, held.event):
            said = from_data(TokenFact, signed.event.data)
            self._facts[token] = signed
            self._tokens[token] = Use(signed.event.time_ms, signed.event.version or 0, token, said)
            if said.key:
                self._hear(said.member, signed.event.time)
                with suppress(UnusableEventError):  # who is certified has a name, before anybody hears them
                    self._trust.add(said.certificate)

    def _hear(self, node: str, said: int) -> None:
        self._heard[node] = max(self._heard.get(node, 0), said)

    def _above(self, signed: SignedEvent) -> Sequence[Certificate]:
        return [one.certificate for one in self._trust.chain(signed.key_id, signed.event.source)]

    def _holders(self, name: str) -> list[bytes]:
        """The ids of the keys of a name that stand, as far as this has been shown any; none for a node that was removed."""
        node = name.partition("/")[2]
        if self._left.get(node, 0) > self._heard.get(node, 0):
            return []
        known = {one.key_id.hex() for one in self._trust.certificates() if one.subject == name}
        known.update(one.fact.key for one in self._tokens.values() if one.fact.member == node)
        return [bytes.fromhex(one) for one in known if self._stands(one, name)]

    def _is_heard(self, source: str) -> bool:
        """Whether a request is looked at (rule 3)."""
        now_ms = self._bus.now_ms()
        count, at_ms = self._asked.get(source, (0.0, now_ms))
        left = max(0.0, count - (now_ms - at_ms) / 1000)
        if left + 1 > ASKS:
            return False
        self._asked[source] = left + 1, now_ms
        return True

    def _stands(self, key: str, name: str) -> bool:
        if not _is_id(key, KEY_ID_BYTES):
            return False
        key_id, now_s = bytes.fromhex(key), self._bus.now_ms() // 1000
        held = self._trust.certificate(key_id, name) or self._recalled(key_id, name)
        return held is not None and held.certificate.not_after > now_s and not self._trust.is_revoked(key_id, name)

    def _recalled(self, key_id: bytes, name: str) -> SignedCertificate | None:
        """What a token gave to a key, of which no broker holds anything any more (rule 4)."""
        for use in self._tokens.values():
            if use.fact.key == key_id.hex():
                with suppress(UnusableEventError):
                    self._trust.add(use.fact.certificate)
        return self._trust.certificate(key_id, name)

    async def _answer(self, token: str, asked: JoinRequest, request: SignedEvent) -> None:
        key, topic = key_id_of(asked.public), f"joining/{token}/refused"
        held = self._tokens.get(token)
        try:
            fact = None if held is None else held.fact
            check_request(asked, fact, now_ms=self._bus.now_ms(), holders=self._holders)
        except RefusedError as error:
            said = JoinRefused(key=key.hex(), code=error.code, message=error.message, next=error.next)
            self._bus.emit(Draft(topic, to_data(said), subject=f"joining/{token}", cause=(request.id,)))
            return
        if fact is None or fact.key:
            return  # it has its answer, which it reads
        now_s = self._bus.now_ms() // 1000
        made = node_certificate(self._identity, asked.name, asked.public, now_s=now_s, serial=bytes.fromhex(token))
        freed_ms = milliseconds(self._left.get(asked.name, 0))
        used = msgspec.structs.replace(fact, key=key.hex(), member=asked.name, certificate=made.raw, freed_ms=freed_ms)
        draft = Draft(
            f"{TOKENS}{token}", to_data(used), subject=f"node/{asked.name}", cause=(request.id,), replaces=self._facts[token]
        )
        using = self._bus.emit(draft)
        try:
            await using.acknowledged()
        except DsmtError as error:
            if error.code not in _STALE:
                raise  # else another issuer was first, or nobody knows: who asks asks again
            return
        if using.signed is not None:  # what comes next may ask for this name, before this is heard
            self._learn(token, using.signed)

    async def _renew(self, request: SignedEvent) -> None:
        """Give a node its next certificate, if it has one whose time for that has come."""
        source, now_s = request.event.source, self._bus.now_ms() // 1000
        held = self._shown(request)
        if held is None or not is_due(held.certificate, now_s) or self._trust.is_revoked(request.key_id, source):
            return
        name, old = source.partition("/")[2], held.certificate
        made = node_certificate(self._identity, name, old.public, now_s=now_s, serial=old.serial)
        if made.certificate.not_after <= old.not_after:  # this issuer ends before: the node would ask again in a minute
            return
        said = Renewed(certificate=made.raw)
        await self._bus.publish(Draft(f"node/{name}/certificate", to_data(said), subject=source, cause=(request.id,)))

    def _shown(self, request: SignedEvent) -> SignedCertificate | None:
        """The certificate that a node asks with: of a machine that was put back from an older copy it is not its newest."""
        ends_s = from_data(RenewalRequest, request.event.data).expires_ms // 1000
        known = (one for one in self._trust.in_memory(request.key_id) if one.certificate.subject == request.event.source)
        shown = next((one for one in known if one.certificate.not_after == ends_s), None)
        return shown or self._trust.certificate(request.key_id, request.event.source)

    async def _end(self, certificates: Iterable[Certificate]) -> None:
        """Revoke what this issuer has certified in vain (rule 2)."""
        own = self._identity.certificate
        for one, why in lost(certificates, self._tokens, self._stands, now_ms=self._bus.now_ms()):
            if one.issuer != own.subject or self._trust.is_revoked(one.key_id, one.subject):
                continue
            if not self._trust.may_revoke(own.key_id, one.key_id):
                continue
            said = Revoked(by=self._identity.name, name=one.subject, reason=why)
            self._log.warning("a certificate was given in vain", why=why, revoked=one.subject, key=one.key_id.hex())
            with suppress(TransportError, RefusedError):  # no broker has heard of it yet: when its node comes
                draft = Draft(topic_of(one.key_id, self._identity.name), to_data(said), subject=one.subject)
                await self._bus.publish(draft)


def _is_id(text: str, size: int) -> bool:
    """Whether a text is an id of so many bytes, as all write it: whoever signs with a good key may write anything else."""
    try:
        return len(text) == 2 * size and bytes.fromhex(text).hex() == text
    except ValueError:
        return False

"""Summaries: services and the realm, as `services` and `status` show them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal

import msgspec

from dsmt.controllers.brake import acts_above
from dsmt.controllers.replacing import any_replaced
from dsmt.event.hlc import rfc3339
from dsmt.event.phrases import whose
from dsmt.event.reason import Reason
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.broker_rows import BrokerRow, broker_rows
from dsmt.operations.read.rows.certificates import STAND_IN, in_use
from dsmt.operations.read.rows.controller_rows import Controller, controller_rows, nobody_decides
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances, is_on_its_way, is_problem, is_ready, is_wanted, serves
from dsmt.operations.read.rows.limits import loose_limits
from dsmt.operations.read.rows.node_rows import NodeRow, node_rows
from dsmt.operations.read.rows.revisions import RefusedRevision, by_component, refused, running
from dsmt.operations.read.screens.alert import Alert, Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.why.fitting import nowhere
from dsmt.operations.words.names import in_order
from dsmt.operations.words.targets import Target
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.certificate import Certificate
from dsmt.trust.store import TrustStore
from dsmt.view import SlotEntry

State = Literal["ok", "starting", "degraded", "down"]
RENEW_SOON_MS: Final = 14 * 24 * 3_600_000


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service. `state`: `ok`, `starting`, `degraded`, `down`, `held`, `removing`.

    `reason` is that of the first instance for which a person must act, else of the first that has one.
    `ready` counts what is served, also by the copy before; `next_try_at` is when that one is tried again. `revision` is what
    was applied last; `running` are those that its instances implement, the newest first. `limits` tells which limits are not
    kept as they are written; `to_restart` are the instances whose restart was asked for, and is to come.
    """

    service: str
    state: str
    ready: int
    wanted: int
    held: int
    revision: int
    by: str
    at: str | None
    note: str
    description: str
    owner: str
    reason: Reason | None
    next_try_at: str | None
    running: list[int]
    refused: RefusedRevision | None
    limits: list[str] = []
    to_restart: list[str] = []
    parts: dict[str, list[int]] = {}
    """What each component runs, where one was refused in part."""
    also: dict[str, str] = {}
    """The instances that have another problem than `reason`, and which."""


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """How far the view can be believed."""

    age_s: float
    broker: str
    brokers_seen: int
    brokers_total: int
    gaps: int
    whole: bool


class NodeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes in numbers; `dead` and the like name them."""

    total: int
    alive: int
    suspect: list[str]
    dead: list[str]
    draining: list[str]
    excluded: list[str]
    drained: list[str] = []
    """Those of `draining` on which nothing is left."""
    out: list[str] = []
    """Those that are let in no more, by their certificate."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many there are, and how many of them are alive; of those `in_doubt` that is not known yet."""

    total: int
    alive: int
    in_doubt: int = 0


class BrakeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The brake on replacing: `on` by itself or `held` by somebody, and above how many silent nodes it acts.

    `silent` are those with something to replace, `dead` all that are dead.
    """

    on: bool
    held: bool
    silent: list[str]
    total: int
    acts_above: int
    by: str | None
    reason: str | None
    since: str | None
    quarantined: list[str] = []
    dead: list[str] = []


class Certs(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates: whether none ends soon, whether one has half of its life behind it, and which ends first."""

    ok: bool
    renew: bool
    next: str | None
    expires: str | None


class RealmStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The realm in one document. `state` is `ok` once every service has all that it wants; until then `starting`."""

    realm: str
    state: State
    view: Freshness
    services: list[Service]
    nodes: NodeCounts
    brokers: Counts
    leaves: dict[str, str | None]
    """The brokers of sites, and to which other one each is linked; null for none (E5)."""
    controllers: Counts
    brake: BrakeSummary
    certs: Certs
    alerts: list[Alert]


def services(sight: Sight) -> list[Service]:
    """Every service that has a spec, sorted."""
    found = []
    for name in in_order(sight.view.services):
        one = service(sight, name)
        if one is not None:
            found.append(one)
    return found


def service(sight: Sight, name: str, part: Target | None = None) -> Service | None:
    """One service, or a part of it; None when it has no spec. Raises `NotFoundError` for a part that is not there."""
    entry = sight.view.services.get(name)
    if entry is None or entry.spec is None:
        return None
    target = part or Target(name)
    rows = instances(sight, target)
    spec = entry.spec.record
    held = sum(row.held is not None for row in rows)
    asked = [row for row in rows if sight.view.slot(row.key).fact is not None or is_wanted(sight, row.key)]
    wanted = [row for row in asked if not row.rests]
    ready = sum(serves(sight, row) for row in wanted)
    sick = [row for row in rows if is_problem(sight, row) and not row.is_quiet]
    told = sorted(((row, row.reason) for row in sick if row.reason is not None), key=lambda one: one[1].who != "you")
    worst, why = told[0] if told else (None, nowhere(sight, target))
    parsed, denied = entry.parsed, refused(entry)
    return Service(
        service=name,
        state=_state(sight, wanted, removed=spec.removed, held=held, ready=ready),
        ready=ready,
        wanted=len(wanted),
        held=held,
        revision=entry.spec.version,
        by=whose(spec.by, entry.spec.id.source),
        at=rfc3339(entry.spec.time_ms),
        note=spec.reason,
        description="" if parsed is None else parsed.description,
        owner="" if parsed is None else parsed.owner,
        reason=why,
        next_try_at=None if worst is None else worst.next_try_at,
        running=running(entry, target),
        refused=denied,
        limits=[] if parsed is None else loose_limits(sight, parsed, rows),
        to_restart=[row.instance for row in rows if row.held is None and _is_to_restart(sight.view.slot(row.key))],
        parts=by_component(entry) if denied is not None and denied.by else {},
        also={row.instance: other.code for row, other in told if why is not None and other.code != why.code},
    )


def _is_to_restart(slot: SlotEntry) -> bool:
    asked = 0 if slot.control is None else slot.control.record.restart
    return slot.fact is not None and asked > slot.fact.record.restart


def _state(sight: Sight, wanted: list[InstanceRow], *, removed: bool, held: int, ready: int) -> str:
    if removed:
        return "removing"
    if held and not wanted:
        return "held"
    unready = [row for row in wanted if not is_ready(sight, row)]
    if all(is_on_its_way(sight, row) for row in unready):
        return "ok" if ready >= len(wanted) else "starting"
    return "degraded" if ready or any(row.is_unknown for row in unready) else "down"


def brake(sight: Sight) -> BrakeSummary:
    """How the brake stands."""
    stands = sight.brake
    fact = sight.view.brake
    held = fact is not None and fact.record.held
    total = stands.total or len(sight.fleet.members)
    return BrakeSummary(
        on=stands.on,
        held=stands.held,
        silent=list(stands.silent) or _to_replace(sight),
        total=total,
        acts_above=acts_above(total),
        by=whose(fact.record.by, fact.id.source) if fact is not None and held else None,
        reason=fact.record.reason if fact is not None and held else None,
        since=rfc3339(fact.time_ms) if fact is not None and held else None,
        quarantined=sorted(sight.view.quarantined),
        dead=[name for name in in_order(sight.view.nodes) if sight.fleet.state(name) == "dead"],
    )


def certs(used: Mapping[str, Certificate], now_ms: int, without: Collection[str] = ()) -> Certs:
    """The certificate in use that ends first, of those that this reader has met, but of who stood in once.

    It is one of nobody who is `without`: nobody renews the certificate of who has left, or whose key is revoked.
    """
    known = [one for name, one in used.items() if name not in without and not name.startswith(STAND_IN)]
    first = min(known, key=lambda one: (one.not_after, one.subject), default=None)
    if first is None:
        return Certs(ok=True, renew=False, next=None, expires=None)
    return Certs(
        ok=first.not_after * 1000 - now_ms > RENEW_SOON_MS,
        renew=now_ms >= first.renew_s * 1000,
        next=first.subject,
        expires=rfc3339(first.not_after * 1000),
    )


def status(sight: Sight, trust: TrustStore, known: list[BrokerAddress]) -> RealmStatus:
    """The realm now."""
    used = in_use(trust, sight.now_ms // 1000)
    of_nodes, of_brokers, of_controllers = node_rows(sight, used), broker_rows(sight, known), controller_rows(sight)
    of_services = services(sight)
    gone = {name for name in sight.view.nodes if sight.fleet.state(name) == "left"}
    along = gone - {one.controller for one in of_controllers}  # a controller beside a node that has left, and its issuer
    left = {f"node/{name}" for name in gone} | {f"broker/{name}" for name in sight.passing.removed}
    left |= {f"{role}/{name}" for role in ("controller", "issuer") for name in along}
    revoked = {name for name, one in used.items() if trust.is_revoked(one.key_id, name)}
    found = Found(of_nodes, of_brokers, of_controllers, of_services, used, revoked, left)
    stands, valid = brake(sight), certs(used, sight.now_ms, left | revoked)
    return RealmStatus(
        realm=trust.realm.name,
        state=_realm_state(of_nodes, of_brokers, of_controllers, of_services, brake_on=stands.on, certs_ok=valid.ok),
        view=Freshness(
            age_s=round(sight.age_s, 3),
            broker=sight.broker,
            brokers_seen=sum(broker.alive for broker in of_brokers),
            brokers_total=len(of_brokers),
            gaps=sight.passing.gaps,
            whole=sight.whole,
        ),
        services=of_services,
        nodes=NodeCounts(
            total=len(of_nodes),
            alive=sum(node.liveness == "alive" for node in of_nodes),
            suspect=[node.node for node in of_nodes if node.liveness == "suspect"],
            dead=[node.node for node in of_nodes if node.liveness == "dead"],
            draining=[node.node for node in of_nodes if node.mode in ("draining", "drained")],
            excluded=[node.node for node in of_nodes if node.mode == "excluded"],
            drained=[node.node for node in of_nodes if node.mode == "drained"],
            out=[node.node for node in of_nodes if node.out is not None and node.out.why != "twice"],
        ),
        brokers=Counts(total=len(of_brokers), alive=sum(broker.alive for broker in of_brokers)),
        leaves={one.broker: one.upstream for one in of_brokers if one.broker is not None and one.leaf},
        controllers=_counted(of_controllers),
        brake=stands,
        certs=valid,
        alerts=alerts(sight, found),
    )


def _counted(found: list[Controller]) -> Counts:
    return Counts(total=len(found), alive=sum(one.alive for one in found), in_doubt=sum(one.in_doubt for one in found))


def _realm_state(
    of_nodes: list[NodeRow],
    of_brokers: list[BrokerRow],
    of_controllers: list[Controller],
    of_services: list[Service],
    *,
    brake_on: bool,
    certs_ok: bool,
) -> State:
    if (of_nodes and not any(node.liveness == "alive" for node in of_nodes)) or (
        of_services and nobody_decides(of_controllers)
    ):
        return "down"
    well = (
        all(node.liveness == "alive" and node.out is None for node in of_nodes)
        and all(broker.alive for broker in of_brokers)
        and any(one.alive for one in of_controllers)
        and all(one.state in ("ok", "held", "removing", "starting") for one in of_services)
    )
    if not well or brake_on or not certs_ok:
        return "degraded"
    return "starting" if any(one.state == "starting" for one in of_services) else "ok"


def _to_replace(sight: Sight) -> list[str]:
    """The nodes that are dead by silence and have something that is replaced elsewhere."""
    return sorted(node for node in sight.view.silenced if any_replaced(sight.governing, node))

"""Takes a launch: everything is checked first, then written in one transaction, or nothing is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import Connection

from gpuyard.catalog import images
from gpuyard.control import quotas
from gpuyard.control.affording import hold_for_launch, must_have_money
from gpuyard.control.bidding import must_be_a_bid
from gpuyard.control.cpu_only import cpu_only_price_nano
from gpuyard.control.launching_claims import claim_of
from gpuyard.control.offering import Allowance, SliceWish, resolve
from gpuyard.control.placement import request_for, take_snapshot
from gpuyard.control.sharing_wishes import must_be_shared_so, under_mps
from gpuyard.control.volumes import must_be_encrypted
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.names import check_name, new_id
from gpuyard.model.slices import Guarantee
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.tenants import Tenant
from gpuyard.model.units import format_size
from gpuyard.model.workloads import (
    Desired,
    Mount,
    RestartPolicy,
    SliceRequest,
    WhenReclaimed,
    Workload,
    WorkloadKind,
    WorkloadSpec,
)
from gpuyard.scheduling.plan import Plan
from gpuyard.slicing.ladder import guarantee
from gpuyard.store import events, idempotency, leases, shares, workloads

DEFAULT_DISK_BYTES = 10 << 30
_DEFAULT_RESTART = {
    WorkloadKind.INSTANCE: RestartPolicy.NEVER,
    WorkloadKind.JOB: RestartPolicy.NEVER,
    WorkloadKind.SERVICE: RestartPolicy.ALWAYS,
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch as it was asked for; what is None is filled in."""

    kind: WorkloadKind
    slices: SliceWish
    name: str | None = None
    command: tuple[str, ...] = ()
    image: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])
    mounts: tuple[Mount, ...] = ()
    ports: tuple[int, ...] = ()
    working_directory: str | None = None
    cpu_milli: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    replicas: int = 1
    restart: RestartPolicy | None = None
    max_restarts: int = 3
    stop_grace_us: int = 10_000_000
    time_limit_us: int | None = None
    checkpoint_command: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    option: PurchaseOption = PurchaseOption.ON_DEMAND
    priority: int = 0
    when_reclaimed: WhenReclaimed = WhenReclaimed.WAIT
    runtime: str = "auto"
    max_price_nano: int | None = None
    cpu_only: bool = False  # its first start is without its cards


@dataclass(frozen=True, slots=True)
class Prepared:
    """A launch that was checked: what would run, in which runtime, and what comes with its slices. Without its cards,
    the price is that of such a start."""

    spec: WorkloadSpec
    runtime: str
    allowance: Allowance
    cpu_only: bool = False


def prepare(yard: Yard, wish: Launch) -> Prepared:
    """Checks a launch against this yard without changing anything.

    Raises YardError for everything that could never work.
    """
    if wish.replicas > 1 and wish.kind is WorkloadKind.INSTANCE:
        raise YardError("invalid_request", reason="replicas_of_one", kind=wish.kind.value)
    restart = wish.restart or _DEFAULT_RESTART[wish.kind]
    if wish.kind is WorkloadKind.SERVICE and restart is not RestartPolicy.ALWAYS:
        raise YardError("invalid_request", reason="service_restarts")
    if len(set(wish.ports)) != len(wish.ports):
        raise YardError("invalid_request", reason="port_twice")
    reference, ports = _image(wish)
    command = wish.command
    if not command and reference is None:
        if wish.kind is not WorkloadKind.INSTANCE:
            raise YardError("invalid_request", reason="no_command", kind=wish.kind.value)
        command = ("sleep", "infinity")
    slices, allowance = resolve(yard, wish.slices, wish.option)
    if wish.cpu_only:
        price_nano = cpu_only_price_nano(yard, wish.kind, wish.option)
        allowance = replace(allowance, price_per_hour_nano=price_nano)
    must_be_a_bid(yard, wish.option, slices, wish.max_price_nano)
    runtime = yard.engine.choose(wish.runtime, reference)
    must_be_shared_so(yard, slices, runtime.kind)
    _check_one_card_under_mps(yard, slices, runtime.kind)
    if slices.mig and runtime.kind == "container":
        raise YardError("mig_no_containers", model=slices.card_model)
    spec = WorkloadSpec(
        kind=wish.kind,
        command=command,
        slices=slices,
        image=reference,
        environment=dict(wish.environment),
        secret_names=tuple(sorted(wish.secrets)),
        mounts=wish.mounts,
        ports=wish.ports or ports,
        working_directory=wish.working_directory,
        cpu_milli=_limit("CPU", wish.cpu_milli, allowance.cpu_milli, lambda milli: f"{milli}m"),
        memory_bytes=_limit("memory", wish.memory_bytes, allowance.memory_bytes, format_size),
        disk_bytes=wish.disk_bytes or DEFAULT_DISK_BYTES,
        replicas=wish.replicas,
        restart=restart,
        max_restarts=wish.max_restarts,
        stop_grace_us=wish.stop_grace_us,
        time_limit_us=wish.time_limit_us,
        checkpoint_command=wish.checkpoint_command,
        labels=dict(wish.labels),
        option=wish.option,
        priority=wish.priority,
        when_reclaimed=wish.when_reclaimed,
        max_price_nano=wish.max_price_nano,
    )
    return Prepared(spec, runtime.kind, allowance, wish.cpu_only)


def _image(wish: Launch) -> tuple[str | None, tuple[int, ...]]:
    """The full reference (None: this machine's own programs) and the ports that the image listens on by itself."""
    if wish.image is None:
        return None, ()
    row = images.load().get(wish.image)
    ports = row.ports if row is not None and wish.kind is not WorkloadKind.JOB else ()
    return images.resolve(wish.image), ports


def _check_one_card_under_mps(yard: Yard, slices: SliceRequest, kind: str) -> None:
    """A program is the client of one MPS daemon, and each card has its own. Raises YardError `mps_one_card`."""
    shim, mps = yard.engine.shim_on(kind), under_mps(yard, slices.sharing, kind)
    for card in yard.roster.cards if slices.count > 1 and mps else ():
        if slices.card_model not in (None, card.model):
            continue
        level = guarantee(card, slices.shape, kind, shim, mps, yard.engine.kernel_on(kind)).guarantee
        if level is Guarantee.MPS or (level is Guarantee.KERNEL and card.uuid in mps):
            raise YardError("mps_one_card", count=slices.count, model=card.model)


def _limit(what: str, wanted: int | None, allowed: int, show: Callable[[int], str]) -> int:
    if wanted is None:
        return allowed
    if wanted > allowed:
        raise YardError("limit_too_large", what=what, wanted=show(wanted), allowed=show(allowed))
    return wanted


def dry_run(yard: Yard, prepared: Prepared) -> Plan:
    """What the scheduler would do with it now."""
    now_us = yard.clock.now_us()
    draft = _workload("wl-dry-run", "dry-run", "dry-run", prepared, now_us)
    with yard.store.read() as c:
        known = {workload.id: workload for workload in workloads.unsettled(c)}
        open_leases = [lease for lease in leases.open_leases(c) if lease.workload_id in known]
        snapshot = take_snapshot(c, yard.roster.nodes, open_leases, known, yard.book.on_demand_nano)
    requests = [request_for(f"replica-{n}", draft, now_us) for n in range(prepared.spec.replicas)]
    return yard.scheduler.plan(snapshot, requests, now_us)


def launch(yard: Yard, tenant: Tenant, actor: str, wish: Launch, key: str | None = None) -> tuple[Workload, bool]:
    """Writes the launch down and wakes the loops. Returns the workload, and whether it is new: the same idempotency key
    with the same request answers with what it made the first time.

    Raises YardError; then nothing was changed.
    """
    made, new = launch_many(yard, tenant, actor, wish, 1, key)
    return made[0], new


def launch_many(
    yard: Yard,
    tenant: Tenant,
    actor: str,
    wish: Launch,
    count: int,
    key: str | None = None,
    fingerprint: str | None = None,
) -> tuple[list[Workload], bool]:
    """`launch` of `count` alike, all in one transaction or none. The name, where there is one, is for one alone.

    `fingerprint` is that of the request where it says more than the wish does; who gives it has asked before what the
    key made. Raises YardError; then nothing was changed.
    """
    if fingerprint is None:
        fingerprint = _fingerprint(wish)
        if key is not None and (known := recall_launch(yard, tenant.id, key, fingerprint)):
            return known, False
    prepared = prepare(yard, wish)
    must_be_encrypted(yard, tenant.id, wish.mounts)
    _must_have_priority(yard, tenant, wish.priority)
    now_us = yard.clock.now_us()
    with yard.store.read() as c:
        must_have_money(c, yard, tenant, now_us)
    sealed = yard.sealer.seal(wish.secrets)
    made: list[Workload] = []
    with yard.store.write() as c:
        if key is not None and (found := _recalled(c, tenant.id, key, fingerprint)):
            return found, False
        for number in range(count):
            workload = _write_down(c, yard, tenant, actor, wish, prepared, sealed, now_us)
            if key is not None:
                idempotency.remember(c, tenant.id, _numbered(key, number), fingerprint, workload.id, now_us)
            made.append(workload)
    yard.wake.set()
    return made, True


def _write_down(
    c: Connection,
    yard: Yard,
    tenant: Tenant,
    actor: str,
    wish: Launch,
    prepared: Prepared,
    sealed: Mapping[str, bytes],
    now_us: int,
) -> Workload:
    workload_id = new_id("wl", now_us)
    name = check_name(wish.name) if wish.name else f"{wish.kind}-{workload_id[-6:]}"
    workload = _workload(workload_id, tenant.id, name, prepared, now_us)
    workloads.insert(c, workload, sealed)
    claim = claim_of(prepared.spec, prepared.allowance.price_per_hour_nano, prepared.cpu_only)
    quotas.take(c, workload.id, tenant.id, actor, claim, now_us)
    fresh = [new_lease(workload, replica, now_us) for replica in range(prepared.spec.replicas)]
    for lease in fresh:
        leases.insert(c, lease)
    price = prepared.spec.slices.offer or "custom", prepared.allowance.price_per_hour_nano
    hold_for_launch(c, yard, tenant, {lease.id: price for lease in fresh}, now_us)
    data = {"name": name, "kind": str(wish.kind), "offer": prepared.spec.slices.offer}
    events.append(c, [Event("workload.pending", workload.id, now_us, tenant.id, actor, data)])
    return workload


def _must_have_priority(yard: Yard, tenant: Tenant, priority: int) -> None:
    """Raises YardError `priority_too_high` for a tier that the tenant may not ask for."""
    if priority == 0:
        return
    with yard.store.read() as c:
        share = shares.of(c, tenant.id)
    if priority > share.max_priority:
        raise YardError("priority_too_high", priority=priority, most=share.max_priority, tenant=tenant.name)


def new_lease(workload: Workload, replica: int, now_us: int) -> Lease:
    """A fresh lease for a replica, waiting for slices."""
    return Lease(
        id=new_id("ls", now_us),
        workload_id=workload.id,
        tenant_id=workload.tenant_id,
        replica=replica,
        state=LeaseState.REQUESTED,
        run=1,
        attempt=1,
        restarts=0,
        node=None,
        option=workload.spec.option,
        created_us=now_us,
        updated_us=now_us,
    )


def _workload(workload_id: str, tenant_id: str, name: str, prepared: Prepared, now_us: int) -> Workload:
    return Workload(
        id=workload_id,
        tenant_id=tenant_id,
        name=name,
        spec=prepared.spec,
        desired=Desired.RUN,
        state=WorkloadState.PENDING,
        reason=None,
        reason_params={},
        runtime=prepared.runtime,
        exit_code=None,
        created_us=now_us,
        updated_us=now_us,
        cpu_only=prepared.cpu_only,
    )


def recall_launch(yard: Yard, tenant_id: str, key: str, fingerprint: str) -> list[Workload]:
    """What a key made before; nothing where it is new.

    Raises YardError `idempotency_mismatch` where it was used with another request.
    """
    with yard.store.read() as c:
        return _recalled(c, tenant_id, key, fingerprint)


def _recalled(c: Connection, tenant_id: str, key: str, fingerprint: str) -> list[Workload]:
    made: list[Workload] = []
    while (found := idempotency.recall(c, tenant_id, _numbered(key, len(made)))) is not None:
        workload = workloads.get(c, found[1])
        if workload is None or found[0] != fingerprint:
            raise YardError("idempotency_mismatch", key=key)
        made.append(workload)
    return made


def _numbered(key: str, number: int) -> str:
    """The key of each of several that one request made; what is sent as a header holds no line feed."""
    return key if number == 0 else f"{key}\n{number}"


def _fingerprint(wish: Launch) -> str:
    """The same for the same request. Secrets count, and only their hash is kept."""
    said = asdict(wish)
    if wish.max_price_nano is None:
        del said["max_price_nano"]  # keys of a time before bids stay good
    if not wish.cpu_only:
        del said["cpu_only"]
    for mount in said["mounts"]:
        if not mount["encrypted"]:
            del mount["encrypted"]  # and of a time before encrypted volumes
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

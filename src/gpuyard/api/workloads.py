"""Workloads over HTTP: launch, look, stop, start, remove."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.asking import MAX_LIMIT, Asking, Caller, decode_cursor, encode_cursor
from gpuyard.api.may_launch import must_be_allowed, must_be_inside
from gpuyard.api.queue import to_goal
from gpuyard.api.rendering import answer, page_bytes
from gpuyard.control import commands
from gpuyard.control.launching import Launch, dry_run, launch, prepare
from gpuyard.control.loops import explain
from gpuyard.control.offering import SliceWish
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.sharing import Sharing
from gpuyard.model.states import WorkloadState
from gpuyard.model.units import format_price, parse_price
from gpuyard.model.workloads import Mount, RestartPolicy, WhenReclaimed, Workload, WorkloadKind
from gpuyard.store import attestations, egress, leases, workloads
from gpuyard.store.attestations import Attestation

router = APIRouter(tags=["workloads"])

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


def to_launch(body: schemas.LaunchRequest) -> Launch:
    """The request as the yard's own value."""
    wish = body.slices
    return Launch(
        kind=WorkloadKind(body.kind),
        slices=SliceWish(
            wish.offer,
            wish.card_model,
            wish.memory_bytes,
            wish.compute_ppm,
            wish.count,
            None if wish.goal is None else to_goal(wish.goal),
            Sharing(wish.sharing),
        ),
        name=body.name,
        command=tuple(body.command),
        image=body.image,
        environment=body.environment,
        secrets=body.secrets,
        mounts=tuple(Mount(mount.volume, mount.path, mount.read_only, mount.encrypted) for mount in body.mounts),
        ports=tuple(body.ports),
        working_directory=body.working_directory,
        cpu_milli=body.cpu_milli,
        memory_bytes=body.memory_bytes,
        disk_bytes=body.disk_bytes,
        replicas=body.replicas,
        restart=RestartPolicy(body.restart) if body.restart else None,
        max_restarts=body.max_restarts,
        stop_grace_us=body.stop_grace_us,
        time_limit_us=body.time_limit_us,
        checkpoint_command=tuple(body.checkpoint_command),
        labels=body.labels,
        option=PurchaseOption(body.option),
        priority=body.priority,
        when_reclaimed=WhenReclaimed(body.when_reclaimed),
        runtime=body.runtime,
        max_price_nano=None if body.max_price is None else parse_price(body.max_price),
        cpu_only=body.cpu_only,
    )


@router.post(
    "/workloads",
    status_code=201,
    responses={201: {"model": schemas.WorkloadView}, 200: {"model": schemas.PlanView | schemas.WorkloadView}},
)
async def launch_workload(
    caller: Caller,
    body: schemas.LaunchRequest,
    dry: Annotated[bool, Query(alias="dry_run")] = False,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Launches a workload, or with `dry_run` says what a launch would do now and cost."""
    wish = to_launch(body)

    def work() -> Response:
        tenant = caller.tenant(body.tenant)
        must_be_allowed(caller, tenant.id, wish)
        if dry:
            return answer(_plan(caller, wish))
        must_be_inside(caller, tenant.id, wish)
        workload, new = launch(caller.yard, tenant, caller.identity.user, wish, idempotency_key)
        return answer(one(caller, workload), 201 if new else 200)

    return await caller.write(work)


def _plan(caller: Asking, wish: Launch) -> views.View:
    prepared = prepare(caller.yard, wish)
    plan = dry_run(caller.yard, prepared)
    isolation = caller.yard.engine.isolation(prepared.runtime)
    refusals = [explain(refusal) for refusal in plan.refusals]
    return {
        "fits": not plan.refusals,
        "placements": [
            {"replica": n, "node": placed.node, "card_uuids": list(placed.card_uuids), "why": placed.why}
            for n, placed in enumerate(plan.placements)
        ],
        "refusals": [
            {**facts, "text": views.reason_view("waiting_for_slices", facts, caller.language)} for facts in refusals
        ],
        "offer": prepared.spec.slices.offer or "custom",
        "price_per_hour": format_price(prepared.allowance.price_per_hour_nano * prepared.spec.replicas),
        "currency": caller.yard.book.currency,
        "runtime": prepared.runtime,
        "isolation": views.isolation_view(isolation, caller.language) if isolation else {},
    }


@router.get("/workloads", responses={200: {"model": schemas.Page[schemas.WorkloadView]}})
async def list_workloads(
    caller: Caller,
    kind: WorkloadKind | None = None,
    state: Annotated[list[WorkloadState] | None, Query()] = None,
    tenant: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Response:
    """Workloads, newest first; removed ones only where asked for."""
    before = decode_cursor(cursor, "workloads", 1)

    def work() -> bytes:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            found = workloads.page(c, scope, kind, state, limit, before[0] if before else None)
            held = leases.of_workloads(c, [workload.id for workload in found])
        next_cursor = encode_cursor("workloads", found[-1].id) if len(found) == limit else None
        return page_bytes(many(caller, found, held), next_cursor)

    question = ("workloads", kind, tuple(state or ()), tenant, limit, cursor)
    return await caller.remembered(question, work)


@router.get("/workloads/{workload}", responses={200: {"model": schemas.WorkloadView}})
async def show_workload(caller: Caller, workload: str, tenant: str | None = None) -> Response:
    """One workload by id or name."""
    return await caller.read(lambda: answer(one(caller, caller.workload(Action.READ, workload, tenant))))


@router.post("/workloads/{workload}/stop", status_code=202, responses={202: {"model": schemas.WorkloadView}})
async def stop_workload(caller: Caller, workload: str, tenant: str | None = None) -> Response:
    """Stops it and keeps its disk."""
    return await _command(caller, workload, tenant, commands.stop, "ec2:StopInstances")


@router.post("/workloads/{workload}/start", status_code=202, responses={202: {"model": schemas.WorkloadView}})
async def start_workload(caller: Caller, workload: str, tenant: str | None = None, cpu_only: bool = False) -> Response:
    """Starts it again on the disk that it left; an instance with `cpu_only` without its cards, at the price of that."""
    command = commands.start_cpu_only if cpu_only else commands.start
    return await _command(caller, workload, tenant, command, "ec2:StartInstances")


@router.post("/workloads/{workload}/reboot", status_code=202, responses={202: {"model": schemas.WorkloadView}})
async def reboot_workload(caller: Caller, workload: str, tenant: str | None = None) -> Response:
    """Ends its units and starts them anew, on the slices and disks that they have. It is billed through, and no failure
    is counted."""
    return await _command(caller, workload, tenant, commands.reboot, "ec2:RebootInstances")


@router.delete("/workloads/{workload}", status_code=202, responses={202: {"model": schemas.WorkloadView}})
async def remove_workload(caller: Caller, workload: str, tenant: str | None = None) -> Response:
    """Stops it and deletes it, disk and logs included."""
    return await _command(caller, workload, tenant, commands.remove, "ec2:TerminateInstances")


async def _command(caller: Asking, name: str, tenant: str | None, command: commands.Command, verb: str) -> Response:
    def work() -> Response:
        found = caller.workload(Action.CONTROL, name, tenant, verb)
        return answer(one(caller, command(caller.yard, found.id, caller.identity.user)), 202)

    return await caller.write(work)


def one(caller: Asking, workload: Workload) -> views.View:
    """One workload with its leases; those that have ended only where there is no other."""
    with caller.yard.store.read() as c:
        held = leases.of_workloads(c, [workload.id])
    return many(caller, [workload], held)[0]


def many(caller: Asking, found: Sequence[Workload], held: Sequence[Lease]) -> list[views.View]:
    """Workloads with the newest lease of each replica."""
    newest: dict[str, dict[int, Lease]] = defaultdict(dict)
    for lease in sorted(held, key=lambda lease: lease.id):
        newest[lease.workload_id][lease.replica] = lease
    with caller.yard.store.read() as c:
        attested = attestations.open_ones(c, [workload.id for workload in found])
        sold = caller.yard.book.egress_per_gib_nano
        sent = egress.by_workload(c, [workload.id for workload in found]) if sold else {}
    of: dict[str, list[Attestation]] = defaultdict(list)
    for one in attested:
        of[one.workload_id].append(one)
    return [
        {
            **views.workload_view(
                caller.yard, w, [newest[w.id][n] for n in sorted(newest[w.id])], of.get(w.id, ()), caller.language
            ),
            "sent_bytes": sent.get(w.id),
        }
        for w in found
    ]

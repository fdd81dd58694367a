"""The web application: every route under /v1, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

import gpuyard
from gpuyard.access.rates import Buckets
from gpuyard.access.rules import Action
from gpuyard.api import (
    access,
    access_keys,
    attesting,
    audit,
    authority,
    costs,
    document,
    events,
    fleet,
    idle,
    incidents,
    inside,
    invoices,
    limits,
    login,
    machines,
    money,
    oidc,
    problems,
    queue,
    rate_limits,
    reconciling,
    residency,
    sockets,
    tenants,
    users,
    verifying,
    views,
    volumes,
    wallet,
    workloads,
)
from gpuyard.api.asking import Caller
from gpuyard.api.dialects.door import Door
from gpuyard.api.guard import Guard
from gpuyard.api.remembering import Answers
from gpuyard.api.rendering import answer
from gpuyard.control.oidc import Provider
from gpuyard.control.pool import pool_use
from gpuyard.control.yard import Yard
from gpuyard.model.times import to_text
from gpuyard.store import workloads as stored_workloads

router = APIRouter(tags=["yard"])


@dataclass(frozen=True, slots=True)
class About:
    """What the yard's own page tells of how it was started."""

    address: str
    state_dir: str
    database: str
    authority: str | None = None  # the certificate of its own authority (PEM), where it signs for itself


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether this server answers. Needs no token."""
    yard: Yard = request.app.state.yard
    return answer({"status": "ok", "version": gpuyard.__version__, "yard": yard.id})


@router.get("/yard")
async def show_yard(request: Request, caller: Caller) -> Response:
    """The yard at a glance: its size, its workloads by state, its runtimes and its troubles."""
    caller.must(Action.OPERATE_YARD, None)
    about: About = request.app.state.about

    def work() -> Response:
        yard = caller.yard
        with yard.store.read() as c:
            states = Counter(workload.state.value for workload in stored_workloads.unsettled(c))
        return answer(
            {
                "version": gpuyard.__version__,
                "yard_id": yard.id,
                "address": about.address,
                "state_dir": about.state_dir,
                "database": about.database,
                "now": to_text(yard.clock.now_us()),
                "clock_offset_us": yard.clock.offset_us(),
                "nodes": len(yard.roster.nodes),
                "cards": len(yard.roster.cards),
                "workloads": dict(states),
                "runtimes": [
                    {"kind": kind, **views.isolation_view(isolation, caller.language)}
                    for kind in yard.engine.runtimes
                    if (isolation := yard.engine.isolation(kind)) is not None
                ],
                "engine_error": yard.trouble,
                "pool": asdict(pool_use(yard, yard.clock.now_us())),
            }
        )

    return await caller.read(work)


def build(yard: Yard, about: About) -> FastAPI:
    """The application over one yard."""
    app = FastAPI(
        title="gpuyard",
        version=gpuyard.__version__,
        summary="Pools graphics cards, cuts them into slices and leases the slices by the second.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the Host header, which may be anything
    )
    app.state.yard = yard
    app.state.about = about
    app.state.stopping = asyncio.Event()
    app.state.answers = Answers()
    app.state.strangers = Buckets(per_second=20, burst=200)  # tokens that were none, by address
    app.state.logins, app.state.provider_logins = login.by_password(), login.by_provider()
    app.state.provider = Provider(yard)
    app.state.machines, app.state.joins = None, machines.by_address()  # set where the yard listens for machines
    problems.install(app)
    for part in (router, tenants.router, fleet.router, workloads.router, inside.router, money.router, events.router):
        app.include_router(part, prefix="/v1")
    for part in (invoices.router, costs.router, wallet.router, reconciling.router, idle.router, incidents.router):
        app.include_router(part, prefix="/v1")
    app.include_router(verifying.router, prefix="/v1")
    app.include_router(attesting.router, prefix="/v1")
    app.include_router(volumes.router, prefix="/v1")
    app.include_router(authority.router, prefix="/v1")
    for part in (rate_limits.router, users.router, login.router, oidc.router):
        app.include_router(part, prefix="/v1")
    app.include_router(machines.router, prefix="/v1")
    app.include_router(queue.router, prefix="/v1")
    app.include_router(access_keys.router, prefix="/v1")
    for part in (access.router, limits.router, residency.router, audit.router):
        app.include_router(part, prefix="/v1")
    app.include_router(sockets.router, prefix="/v1")
    app.add_middleware(Guard)
    app.add_middleware(Door, yard=yard)
    document.install(app)
    return app

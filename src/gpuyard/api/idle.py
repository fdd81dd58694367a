"""Idle policies and what they found, over HTTP."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import views, wallet_schemas
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import answer
from gpuyard.billing.idle import ALL_QUIET, Signal, saved_nano
from gpuyard.control.idle_watch import policy_of
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Tenant
from gpuyard.model.times import to_text
from gpuyard.model.units import SECOND_US, format_money, parse_duration
from gpuyard.store import events, idle, workloads
from gpuyard.store.idle import Spell

router = APIRouter(tags=["wallet"])


def _view(c: Connection, caller: Asking, tenant: Tenant) -> views.View:
    now_us = caller.yard.clock.now_us()
    policy = policy_of(c, tenant.id)
    spells = list(idle.spells(c, tenant.id).values())
    shown = [_spell(c, spell, now_us) for spell in spells if spell.since_us >= 0]
    return {
        "tenant_id": tenant.id,
        "signals": [signal.value for signal in policy.signals] if policy else [],
        "warn_seconds": policy.warn_us // SECOND_US if policy else None,
        "pause_seconds": policy.pause_us // SECOND_US if policy else None,
        "idle": shown,
        "saved": format_money(sum(_saved(spell, now_us) for spell in spells), 9),
        "currency": tenant.currency,
    }


def _saved(spell: Spell, now_us: int) -> int:
    going_on = 0 if spell.paused_us is None else saved_nano(spell.price_per_hour_nano, spell.paused_us, now_us)
    return spell.saved_nano + going_on


def _spell(c: Connection, spell: Spell, now_us: int) -> views.View:
    workload = workloads.get(c, spell.workload_id)
    return {
        "workload_id": spell.workload_id,
        "workload": workload.name if workload else spell.workload_id,
        "since": to_text(spell.since_us),
        "warned_at": None if spell.warned_us is None else to_text(spell.warned_us),
        "paused_at": None if spell.paused_us is None else to_text(spell.paused_us),
        "saved": format_money(_saved(spell, now_us), 9),
    }


@router.get("/idle", responses={200: {"model": wallet_schemas.IdleView}})
async def show_idle(caller: Caller, tenant: str | None = None) -> Response:
    """A tenant's idle policy, what is idle now, and what pausing saved."""

    def work() -> Response:
        found = caller.tenant(tenant)
        caller.must(Action.READ, found.id)
        with caller.yard.store.read() as c:
            return answer(_view(c, caller, found))

    return await caller.read(work)


@router.put("/tenants/{tenant}/idle-policy", responses={200: {"model": wallet_schemas.IdleView}})
async def set_idle_policy(caller: Caller, tenant: str, body: wallet_schemas.IdleRequest) -> Response:
    """Sets an idle policy. A tenant may set its own."""

    def work() -> Response:
        found = caller.tenant(tenant)
        caller.must(Action.CONTROL, found.id)
        warn_us, pause_us = parse_duration(body.warn), parse_duration(body.pause)
        if warn_us > pause_us:
            raise YardError("invalid_duration", value=body.warn)
        signals = [Signal(name).value for name in dict.fromkeys(body.signals or ALL_QUIET)]
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            idle.put(c, found.id, signals, warn_us, pause_us)
            data = {"signals": signals, "warn": body.warn, "pause": body.pause}
            events.append(c, [Event("idle_policy.set", found.id, now_us, found.id, caller.identity.user, data)])
            return answer(_view(c, caller, found))

    return await caller.write(work)


@router.delete("/tenants/{tenant}/idle-policy", status_code=204)
async def remove_idle_policy(caller: Caller, tenant: str) -> Response:
    """Removes a policy: nothing more is warned of or paused."""

    def work() -> Response:
        found = caller.tenant(tenant)
        caller.must(Action.CONTROL, found.id)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            if not idle.remove(c, found.id):
                raise YardError("not_found")
            events.append(c, [Event("idle_policy.removed", found.id, now_us, found.id, caller.identity.user)])
        return Response(status_code=204)

    return await caller.write(work)

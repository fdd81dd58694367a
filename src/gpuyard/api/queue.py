"""The queue over HTTP: why something waits or is where it is, what a goal comes to, and tenants' shares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import queue_schemas as schemas
from gpuyard.api import views
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import answer
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.states import LeaseState
from gpuyard.model.tenants import Share
from gpuyard.model.times import from_text, to_text
from gpuyard.model.units import HOUR_US, SECOND_US, format_money, format_price, parse_price
from gpuyard.scheduling.tiers import Goal
from gpuyard.store import events, leases, placements, shares
from gpuyard.texts import text

if TYPE_CHECKING:
    from gpuyard.control.goals import Comparison
    from gpuyard.scheduling.tiers import Tier

router = APIRouter(tags=["queue"])


def to_goal(wish: schemas.GoalWish) -> Goal:
    """The request as the yard's own value. Raises YardError `invalid_time`, `invalid_price` or `invalid_request`."""
    whole, _, rest = wish.card_hours.partition(".")
    work_card_us = (int(whole) * 1_000_000 + int(rest.ljust(6, "0") or "0")) * (HOUR_US // 1_000_000)
    if work_card_us == 0:
        raise YardError("invalid_request", reason="no_work")
    return Goal(
        reference=wish.card_model,
        work_card_us=work_card_us,
        deadline_us=None if wish.deadline is None else from_text(wish.deadline),
        budget_nano=None if wish.budget is None else parse_price(wish.budget),
    )


@router.post("/plans", responses={200: {"model": schemas.ComparisonView}})
async def compare_tiers(caller: Caller, body: schemas.PlanRequest) -> Response:
    """What a goal would cost on each card model and when it would be done; changes nothing."""
    caller.must(Action.READ_FLEET, None)
    option = None if body.option is None else PurchaseOption(body.option)

    def work() -> Response:
        from gpuyard.control.goals import compare  # rare, and the server is to stay small

        found = compare(caller.yard, to_goal(body.goal), body.count, option)
        return answer(_comparison(caller, found))

    return await caller.write(work)


def _comparison(caller: Asking, found: Comparison) -> views.View:
    chosen, currency = found.chosen, caller.yard.book.currency
    if chosen is None:
        told = text("plan.none", caller.language)
    else:
        key = (
            "plan.cheapest" if found.goal.deadline_us is not None or found.goal.budget_nano is None else "plan.fastest"
        )
        facts = {"model": chosen.model, "cost": format_money(chosen.cost_nano), "currency": currency}
        told = text(key, caller.language, option=text(f"plan.{chosen.option}", caller.language), **facts)
        told += _cheaper_on_spot(caller, found, chosen)
    return {
        "tiers": [_tier(tier, currency, tier == chosen) for tier in found.tiers],
        "chosen": None if chosen is None else chosen.model,
        "text": told,
    }


def _cheaper_on_spot(caller: Asking, found: Comparison, chosen: Tier) -> str:
    """Why a row that costs less is not the one that is chosen; nothing where there is none."""
    on_spot = (tier for tier in found.tiers if tier.option is PurchaseOption.SPOT and not tier.misses)
    cheaper = next((tier for tier in on_spot if tier.cost_nano < chosen.cost_nano), None)
    if cheaper is None or chosen.option is PurchaseOption.SPOT:
        return ""
    facts = {"model": cheaper.model, "cost": format_money(cheaper.cost_nano), "currency": caller.yard.book.currency}
    return " " + text("plan.spot_is_cheaper", caller.language, **facts)


def _tier(tier: Tier, currency: str, chosen: bool) -> views.View:
    return {
        "card_model": tier.model,
        "option": tier.option.value,
        "count": tier.count,
        "price_per_hour": format_price(tier.price_per_hour_nano),
        "start_at": None if tier.start_us is None else to_text(tier.start_us),
        "seconds": -(-tier.runtime_us // SECOND_US),
        "finish_at": None if tier.finish_us is None else to_text(tier.finish_us),
        "cost": format_money(tier.cost_nano),
        "currency": currency,
        "misses": list(tier.misses),
        "chosen": chosen,
    }


@router.get("/workloads/{workload}/why", responses={200: {"model": schemas.WhyView}})
async def explain_workload(caller: Caller, workload: str, tenant: str | None = None) -> Response:
    """Why it is where it is, or why it waits, what would have to change, and when it starts."""

    def work() -> Response:
        from gpuyard.api.why_view import why_view
        from gpuyard.control.explaining import why

        found = caller.workload(Action.READ, workload, tenant)
        return answer(why_view(why(caller.yard, found), caller.language))

    return await caller.write(work)  # in a thread: it plans


@router.post("/workloads/{workload}/checkpoint", responses={200: {"model": schemas.CheckpointView}})
async def note_checkpoint(caller: Caller, workload: str, tenant: str | None = None) -> Response:
    """Tells the yard that the work so far is safe: a spot lease whose loss would cost little goes before others."""

    def work() -> Response:
        yard = caller.yard
        found = caller.workload(Action.CONTROL, workload, tenant)
        now_us = yard.clock.now_us()
        with yard.store.write() as c:
            running = [x.id for x in leases.of_workload(c, found.id) if x.state is LeaseState.ACTIVE]
            if not running:
                raise YardError("not_running", workload=found.name, state=found.state.value)
            placements.checkpoint(c, running, now_us)
        return answer({"workload_id": found.id, "leases": len(running), "at": to_text(now_us)})

    return await caller.write(work)


@router.get("/tenants/{tenant}/share", responses={200: {"model": schemas.ShareView}})
async def show_share(caller: Caller, tenant: str) -> Response:
    """A tenant's standing in the queue."""

    def work() -> Response:
        found = caller.tenant(tenant)
        with caller.yard.store.read() as c:
            return answer(_share(found.id, shares.of(c, found.id)))

    return await caller.read(work)


@router.put("/tenants/{tenant}/share", responses={200: {"model": schemas.ShareView}})
async def set_share(caller: Caller, tenant: str, body: schemas.ShareRequest) -> Response:
    """Sets a tenant's weight, quota, borrowing and highest tier."""
    caller.must(Action.MANAGE_TENANTS, None)
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    for name in ("weight", "may_borrow", "max_priority"):
        if name in changes and changes[name] is None:
            raise YardError("invalid_request", reason=f"{name}: null")

    def work() -> Response:
        yard = caller.yard
        found = caller.tenant(tenant)
        now_us = yard.clock.now_us()
        with yard.store.write() as c:
            share = replace(shares.of(c, found.id), **changes)
            shares.put(c, found.id, share)
            told = _share(found.id, share)
            events.append(c, [Event("tenant.share_set", found.id, now_us, found.id, caller.identity.user, told)])
        yard.waiting_generation += 1
        yard.wake.set()
        return answer(told)

    return await caller.write(work)


def _share(tenant_id: str, share: Share) -> views.View:
    return {
        "tenant_id": tenant_id,
        "weight": share.weight,
        "quota_compute_ppm": share.quota_compute_ppm,
        "quota_memory_bytes": share.quota_memory_bytes,
        "may_borrow": share.may_borrow,
        "max_priority": share.max_priority,
    }

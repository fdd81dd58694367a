"""Reconciliation over HTTP."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views, wallet_schemas
from gpuyard.api.asking import Caller
from gpuyard.api.rendering import answer, page
from gpuyard.api.workloads import Limit
from gpuyard.control.reconciling import reconcile
from gpuyard.model.times import to_text
from gpuyard.model.units import format_money
from gpuyard.store import reconciliation

router = APIRouter(tags=["wallet"])


def _seconds(us: int) -> str:
    return format_money(us * 1000, 6)  # microseconds as seconds, exactly


def _known(us: int | None) -> str | None:
    return None if us is None else _seconds(us)


def _view(found: reconciliation.Discrepancy) -> views.View:
    return {
        "id": found.id,
        "lease_id": found.lease_id,
        "tenant_id": found.tenant_id,
        "found_at": to_text(found.found_us),
        "scheduler_seconds": _seconds(found.scheduler_us),
        "node_seconds": _known(found.node_us),
        "billed_seconds": _seconds(found.billed_us),
        "scheduler_card_seconds": _known(found.scheduler_card_us),
        "node_card_seconds": _known(found.node_card_us),
        "billed_card_seconds": _known(found.billed_card_us),
        "posted": format_money(found.posted_nano, 9),
        "rated": format_money(found.rated_nano, 9),
        "resolved_at": None if found.resolved_us is None else to_text(found.resolved_us),
    }


@router.post("/reconciliation", responses={200: {"model": wallet_schemas.ReconciliationView}})
async def reconcile_now(caller: Caller) -> Response:
    """Compares scheduler, node and bill for every lease (what runs as far as it is billed), and the ledger with its
    transfers."""
    caller.must(Action.OPERATE_YARD, None)

    def work() -> Response:
        done = reconcile(caller.yard, caller.yard.clock.now_us(), everything=True)
        return answer(
            {
                "leases": done.leases,
                "without_node_record": done.without_node_record,
                "scheduler_seconds": _seconds(done.scheduler_us),
                "node_seconds": _seconds(done.node_us),
                "billed_seconds": _seconds(done.billed_us),
                "scheduler_card_seconds": _seconds(done.scheduler_card_us),
                "node_card_seconds": _seconds(done.node_card_us),
                "billed_card_seconds": _seconds(done.billed_card_us),
                "faults": list(done.faults),
                "discrepancies": [_view(each) for each in done.found],
            }
        )

    return await caller.write(work)


@router.get("/discrepancies", responses={200: {"model": schemas.Page[wallet_schemas.DiscrepancyView]}})
async def list_discrepancies(caller: Caller, limit: Limit = 50) -> Response:
    """Where the three differed, newest first, resolved ones included."""
    caller.must(Action.OPERATE_YARD, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            return page([_view(each) for each in reconciliation.listing(c, limit)], None)

    return await caller.read(work)

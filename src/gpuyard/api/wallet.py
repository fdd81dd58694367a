"""Wallets, transfers, payments, vouchers and budgets over HTTP."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views, wallet_schemas
from gpuyard.api.asking import Asking, Caller, decode_cursor, encode_cursor
from gpuyard.api.rendering import answer, page
from gpuyard.api.workloads import Limit
from gpuyard.billing.budgets import Budget, is_used_up, period_of
from gpuyard.billing.payments import StripeNotices
from gpuyard.billing.runway import runway_us
from gpuyard.control import budget_watch, paying
from gpuyard.control.credit import burn_per_hour_nano
from gpuyard.control.settling import unposted_nano
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Tenant
from gpuyard.model.times import to_text
from gpuyard.model.units import SECOND_US, format_money, parse_duration, parse_price
from gpuyard.store import budgets, events, ledger, vouchers, wallets

router = APIRouter(tags=["wallet"])


def _when(at_us: int | None) -> str | None:
    return None if at_us is None else to_text(at_us)


def wallet_view(c: Connection, yard: Yard, tenant: Tenant) -> views.View:
    row = wallets.find(c, tenant.id)
    available, held = ledger.wallet(c, tenant.id, tenant.currency)
    unposted = unposted_nano(c, yard, tenant.id)
    burn = burn_per_hour_nano(c, tenant.id)
    balance = available + held - unposted
    runway = runway_us(balance, burn) if row.prepaid else None
    kept_us = None if row.exhausted_us is None else row.exhausted_us + yard.wallet_terms.keep_disks_us
    return {
        "tenant_id": tenant.id,
        "tenant": tenant.name,
        "currency": tenant.currency,
        "prepaid": row.prepaid,
        "balance": format_money(balance, 9),
        "available": format_money(available, 9),
        "held": format_money(held, 9),
        "unposted": format_money(unposted, 9),
        "burn_per_hour": format_money(burn, 9),
        "runway_seconds": None if runway is None else runway // SECOND_US,
        "exhausted_at": _when(row.exhausted_us),
        "disks_kept_until": _when(kept_us),
    }


@router.get("/wallet", responses={200: {"model": wallet_schemas.WalletView}})
async def show_wallet(caller: Caller, tenant: str | None = None) -> Response:
    """What a tenant has left, what is held, and how long it lasts."""

    def work() -> Response:
        found = caller.tenant(tenant)
        caller.must(Action.READ, found.id)
        with caller.yard.store.read() as c:
            return answer(wallet_view(c, caller.yard, found))

    return await caller.read(work)


@router.get("/transfers", responses={200: {"model": schemas.Page[wallet_schemas.TransferView]}})
async def list_transfers(
    caller: Caller, tenant: str | None = None, limit: Limit = 50, cursor: str | None = None
) -> Response:
    """The ledger's transfers, newest first. None of them is ever changed."""
    before = decode_cursor(cursor, "transfers", 1)
    if before is not None and not (before[0].isascii() and before[0].isdecimal() and len(before[0]) < 19):
        raise YardError("invalid_cursor", value=before[0][:80])

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            found = ledger.page(c, scope, int(before[0]) if before else None, limit)
        more = encode_cursor("transfers", found[-1][0]) if len(found) == limit else None
        return page(
            [
                {
                    "id": transfer.id,
                    "sequence": sequence,
                    "at": to_text(transfer.at_us),
                    "kind": transfer.kind.value,
                    "debit": transfer.debit,
                    "credit": transfer.credit,
                    "amount": format_money(transfer.amount_nano, 9),
                    "currency": transfer.currency,
                    "tenant_id": transfer.tenant_id,
                    "subject": transfer.subject,
                }
                for sequence, transfer in found
            ],
            more,
        )

    return await caller.read(work)


@router.post("/tenants/{tenant}/top-ups", responses={200: {"model": wallet_schemas.ReceivedView}})
async def top_up(caller: Caller, tenant: str, body: wallet_schemas.TopUpRequest) -> Response:
    """Money that an operator took in."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        amount = parse_price(body.amount)
        if amount == 0:
            raise YardError("invalid_price", value=body.amount)
        received = paying.top_up(caller.yard, caller.tenant(tenant), amount, caller.identity.user, body.key)
        return answer({"transfer_id": received.transfer_id, "new": received.new})

    return await caller.write(work)


@router.post("/transfers/{transfer}/refund", responses={200: {"model": wallet_schemas.AmountView}})
async def refund(caller: Caller, transfer: str) -> Response:
    """Takes a payment back: whole, once, and only as far as it was not spent."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        back = paying.refund(caller.yard, transfer, caller.identity.user)
        return answer({"amount": format_money(back.amount_nano, 9), "currency": back.currency})

    return await caller.write(work)


@router.post("/tenants/{tenant}/write-off", responses={200: {"model": wallet_schemas.AmountView}})
async def write_off(caller: Caller, tenant: str) -> Response:
    """Gives up what a wallet is below zero."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        found = caller.tenant(tenant)
        owed = paying.write_off(caller.yard, found, caller.identity.user)
        return answer({"amount": format_money(owed, 9), "currency": found.currency})

    return await caller.write(work)


@router.post("/payments/stripe", status_code=200, responses={200: {"model": wallet_schemas.ReceivedView}})
async def stripe_calls(request: Request) -> Response:
    """Calls of Stripe's webhook. No token: the signature over the raw body is the proof."""
    yard: Yard = request.app.state.yard
    if yard.stripe_secret is None:
        raise YardError("payments_off", provider="stripe")
    notices = StripeNotices(yard.stripe_secret)
    payment = notices.read(await request.body(), request.headers, yard.clock.now_us())
    if payment is None:
        return answer({"transfer_id": "", "new": False})
    import asyncio

    received = await asyncio.to_thread(paying.receive, yard, payment, "stripe")
    return answer({"transfer_id": received.transfer_id, "new": received.new})


@router.get("/vouchers", responses={200: {"model": schemas.Page[wallet_schemas.VoucherView]}})
async def list_vouchers(caller: Caller) -> Response:
    """Vouchers, without their codes."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        with caller.yard.store.read() as c:
            return page([_voucher_view(voucher) for voucher in vouchers.listing(c)], None)

    return await caller.read(work)


def _voucher_view(voucher: vouchers.Voucher) -> views.View:
    return {
        "id": voucher.id,
        "amount": format_money(voucher.amount_nano, 9),
        "currency": voucher.currency,
        "created_at": to_text(voucher.created_us),
        "expires_at": to_text(voucher.expires_us),
        "redeemed_at": _when(voucher.redeemed_us),
        "redeemed_by": voucher.redeemed_by,
    }


@router.post("/vouchers", status_code=201, responses={201: {"model": wallet_schemas.NewVoucherView}})
async def add_voucher(caller: Caller, body: wallet_schemas.VoucherRequest) -> Response:
    """A new voucher; its code is shown this once."""
    caller.must(Action.MANAGE_TENANTS, None)

    def work() -> Response:
        amount, lasts_us = parse_price(body.amount), parse_duration(body.lasts)
        code, voucher = paying.add_voucher(caller.yard, amount, lasts_us, caller.identity.user)
        return answer({**_voucher_view(voucher), "code": code}, 201)

    return await caller.write(work)


@router.post("/vouchers/redeem", responses={200: {"model": wallet_schemas.ReceivedView}})
async def redeem_voucher(caller: Caller, body: wallet_schemas.RedeemRequest) -> Response:
    """Turns a voucher into credit of the caller's tenant."""

    def work() -> Response:
        tenant = caller.tenant(body.tenant)
        caller.must(Action.CONTROL, tenant.id)
        received = paying.redeem(caller.yard, tenant, body.code, caller.identity.user)
        return answer({"transfer_id": received.transfer_id, "new": received.new})

    return await caller.write(work)


@router.get("/budgets", responses={200: {"model": schemas.Page[wallet_schemas.BudgetView]}})
async def list_budgets(caller: Caller, tenant: str | None = None) -> Response:
    """A tenant's budgets and what was spent of them."""

    def work() -> Response:
        found = caller.tenant(tenant)
        caller.must(Action.READ, found.id)
        with caller.yard.store.read() as c:
            return page(_budget_views(c, caller, found), None)

    return await caller.read(work)


def _budget_views(c: Connection, caller: Asking, tenant: Tenant) -> list[views.View]:
    now_us = caller.yard.clock.now_us()
    known = budget_watch.budgets_of(c, tenant.id)
    spent = budget_watch.spent_of(c, caller.yard, tenant.id, {budget.period for budget in known}, now_us)
    return [_budget_view(budget, spent[budget.period], tenant, now_us) for budget in known]


def _budget_view(budget: Budget, spent: int, tenant: Tenant, now_us: int) -> views.View:
    return {
        "tenant_id": tenant.id,
        "period": budget.period.value,
        "action": budget.action.value,
        "amount": format_money(budget.amount_nano, 9),
        "spent": format_money(spent, 9),
        "currency": tenant.currency,
        "used_up": is_used_up(budget, spent),
        "now": period_of(budget.period, now_us),
    }


@router.put("/tenants/{tenant}/budgets", responses={200: {"model": schemas.Page[wallet_schemas.BudgetView]}})
async def set_budget(caller: Caller, tenant: str, body: wallet_schemas.BudgetRequest) -> Response:
    """Sets a budget of a day or a month. A tenant may set its own."""

    def work() -> Response:
        found = caller.tenant(tenant)
        caller.must(Action.CONTROL, found.id)
        amount = parse_price(body.amount)
        if amount == 0:
            raise YardError("invalid_price", value=body.amount)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            budgets.put(c, found.id, body.period, body.action, amount)
            data = {"period": body.period, "action": body.action, "amount": body.amount}
            events.append(c, [Event("budget.set", found.id, now_us, found.id, caller.identity.user, data)])
            return page(_budget_views(c, caller, found), None)

    return await caller.write(work)


@router.delete("/tenants/{tenant}/budgets/{period}/{action}", status_code=204)
async def remove_budget(
    caller: Caller, tenant: str, period: Literal["day", "month"], action: Literal["soft", "hard"]
) -> Response:
    """Removes a budget; what it stopped may be started again."""

    def work() -> Response:
        found = caller.tenant(tenant)
        caller.must(Action.CONTROL, found.id)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            if not budgets.remove(c, found.id, period, action):
                raise YardError("not_found")
            data = {"period": period, "action": action}
            events.append(c, [Event("budget.removed", found.id, now_us, found.id, caller.identity.user, data)])
        return Response(status_code=204)

    return await caller.write(work)

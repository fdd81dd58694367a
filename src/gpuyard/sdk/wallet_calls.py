"""Calls about wallets, payments, vouchers, budgets and reconciliation."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import quote

from gpuyard.sdk.calls import Call, params_of
from gpuyard.sdk.types import Page


class Wallet(TypedDict):
    tenant_id: str
    tenant: str
    currency: str
    prepaid: bool
    balance: str
    available: str
    held: str
    unposted: str
    burn_per_hour: str
    runway_seconds: int | None
    exhausted_at: str | None
    disks_kept_until: str | None


class Transfer(TypedDict):
    id: str
    sequence: int
    at: str
    kind: str
    debit: str
    credit: str
    amount: str
    currency: str
    tenant_id: str
    subject: str


class Received(TypedDict):
    transfer_id: str
    new: bool


class Amount(TypedDict):
    amount: str
    currency: str


class Voucher(TypedDict):
    id: str
    amount: str
    currency: str
    created_at: str
    expires_at: str
    redeemed_at: str | None
    redeemed_by: str | None


class NewVoucher(Voucher):
    code: str


class Budget(TypedDict):
    tenant_id: str
    period: str
    action: str
    amount: str
    spent: str
    currency: str
    used_up: bool
    now: str


class Discrepancy(TypedDict):
    id: str
    lease_id: str
    tenant_id: str
    found_at: str
    scheduler_seconds: str
    node_seconds: str | None
    billed_seconds: str
    scheduler_card_seconds: str | None
    node_card_seconds: str | None
    billed_card_seconds: str | None
    posted: str
    rated: str
    resolved_at: str | None


class Reconciliation(TypedDict):
    leases: int
    without_node_record: int
    scheduler_seconds: str
    node_seconds: str
    billed_seconds: str
    scheduler_card_seconds: str
    node_card_seconds: str
    billed_card_seconds: str
    faults: list[str]
    discrepancies: list[Discrepancy]


def wallet(tenant: str | None = None) -> Call[Wallet]:
    return Call("GET", "/v1/wallet", Wallet, params_of(tenant=tenant))


def transfers(tenant: str | None = None, limit: int = 50, cursor: str | None = None) -> Call[Page[Transfer]]:
    return Call("GET", "/v1/transfers", Page[Transfer], params_of(tenant=tenant, limit=limit, cursor=cursor))


def top_up(tenant: str, amount: str, key: str | None = None) -> Call[Received]:
    """With a key it may be sent again: it counts once."""
    path = f"/v1/tenants/{quote(tenant, safe='')}/top-ups"
    return Call("POST", path, Received, body={"amount": amount, "key": key}, repeatable=key is not None)


def refund(transfer: str) -> Call[Amount]:
    return Call("POST", f"/v1/transfers/{quote(transfer, safe='')}/refund", Amount, repeatable=False)


def write_off(tenant: str) -> Call[Amount]:
    return Call("POST", f"/v1/tenants/{quote(tenant, safe='')}/write-off", Amount, repeatable=False)


def vouchers() -> Call[Page[Voucher]]:
    return Call("GET", "/v1/vouchers", Page[Voucher])


def add_voucher(amount: str, lasts: str = "30d") -> Call[NewVoucher]:
    return Call("POST", "/v1/vouchers", NewVoucher, body={"amount": amount, "lasts": lasts}, repeatable=False)


def redeem_voucher(code: str, tenant: str | None = None) -> Call[Received]:
    return Call("POST", "/v1/vouchers/redeem", Received, body={"code": code, "tenant": tenant}, repeatable=False)


def budgets(tenant: str | None = None) -> Call[Page[Budget]]:
    return Call("GET", "/v1/budgets", Page[Budget], params_of(tenant=tenant))


def set_budget(tenant: str, period: str, amount: str, action: str = "soft") -> Call[Page[Budget]]:
    body: dict[str, object] = {"period": period, "action": action, "amount": amount}
    return Call("PUT", f"/v1/tenants/{quote(tenant, safe='')}/budgets", Page[Budget], body=body)


def remove_budget(tenant: str, period: str, action: str) -> Call[None]:
    parts = (quote(each, safe="") for each in (tenant, period, action))
    return Call("DELETE", "/v1/tenants/{}/budgets/{}/{}".format(*parts), type(None))


def reconcile() -> Call[Reconciliation]:
    return Call("POST", "/v1/reconciliation", Reconciliation)


def discrepancies() -> Call[Page[Discrepancy]]:
    return Call("GET", "/v1/discrepancies", Page[Discrepancy])


class IdleSpell(TypedDict):
    workload_id: str
    workload: str
    since: str
    warned_at: str | None
    paused_at: str | None
    saved: str


class Idle(TypedDict):
    tenant_id: str
    signals: list[str]
    warn_seconds: int | None
    pause_seconds: int | None
    idle: list[IdleSpell]
    saved: str
    currency: str


def idle(tenant: str | None = None) -> Call[Idle]:
    return Call("GET", "/v1/idle", Idle, params_of(tenant=tenant))


def set_idle_policy(tenant: str, warn: str, pause: str, signals: list[str] | None = None) -> Call[Idle]:
    body: dict[str, object] = {"warn": warn, "pause": pause, "signals": signals}
    return Call("PUT", f"/v1/tenants/{quote(tenant, safe='')}/idle-policy", Idle, body=body)


def remove_idle_policy(tenant: str) -> Call[None]:
    return Call("DELETE", f"/v1/tenants/{quote(tenant, safe='')}/idle-policy", type(None))

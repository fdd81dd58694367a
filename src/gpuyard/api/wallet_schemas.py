"""What wallets, budgets, vouchers and reconciliation look like over HTTP. Money is a decimal in a string."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_Money = Annotated[str, Field(max_length=40, examples=["25.00"])]
_Short = Annotated[str, Field(min_length=1, max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WalletView(BaseModel):
    tenant_id: str
    tenant: str
    currency: str
    prepaid: bool
    balance: str = Field(description="what is left after everything used so far")
    available: str = Field(description="what can still be held for something new")
    held: str
    unposted: str = Field(description="used, and not in the ledger yet")
    burn_per_hour: str
    runway_seconds: int | None
    exhausted_at: str | None
    disks_kept_until: str | None


class TransferView(BaseModel):
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


class TopUpRequest(_Strict):
    amount: _Money
    key: _Short | None = Field(None, description="the same key with the same amount counts once")


class ReceivedView(BaseModel):
    transfer_id: str
    new: bool


class VoucherRequest(_Strict):
    amount: _Money
    lasts: _Short = Field("30d", examples=["30d"])


class RedeemRequest(_Strict):
    code: _Short
    tenant: _Short | None = None


class VoucherView(BaseModel):
    id: str
    amount: str
    currency: str
    created_at: str
    expires_at: str
    redeemed_at: str | None
    redeemed_by: str | None


class NewVoucherView(VoucherView):
    code: str = Field(description="shown this once; only its hash is stored")


class BudgetRequest(_Strict):
    period: Literal["day", "month"]
    action: Literal["soft", "hard"] = "soft"
    amount: _Money


class BudgetView(BaseModel):
    tenant_id: str
    period: str
    action: str
    amount: str
    spent: str
    currency: str
    used_up: bool
    now: str = Field(description="the present period")


class AmountView(BaseModel):
    amount: str
    currency: str


class DiscrepancyView(BaseModel):
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


class ReconciliationView(BaseModel):
    leases: int
    without_node_record: int
    scheduler_seconds: str
    node_seconds: str
    billed_seconds: str
    scheduler_card_seconds: str = Field(description="share of a card x seconds, where all three know the share")
    node_card_seconds: str
    billed_card_seconds: str
    faults: list[str] = Field(description="where balances are not what the transfers make them")
    discrepancies: list[DiscrepancyView]


class IdleRequest(_Strict):
    warn: _Short = Field("1h", examples=["1h"])
    pause: _Short = Field("2h", examples=["2h"])
    signals: list[Literal["card", "memory", "terminal", "network", "cpu"]] | None = Field(
        None, max_length=5, description="what must be quiet; card, memory, terminal and network where absent"
    )


class IdleSpellView(BaseModel):
    workload_id: str
    workload: str
    since: str
    warned_at: str | None
    paused_at: str | None
    saved: str


class IdleView(BaseModel):
    tenant_id: str
    signals: list[str]
    warn_seconds: int | None
    pause_seconds: int | None
    idle: list[IdleSpellView]
    saved: str
    currency: str

"""The shapes of prices, invoices, commitments, costs and the spot market on the wire. Money is decimal text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gpuyard.api.schemas import Short, UserName

MonthText = Annotated[str, StringConstraints(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
LineId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChoiceView(BaseModel):
    option: str  # on_demand, reserved or spot
    by_unit: bool  # on demand, charged by compute units
    per_hour: str  # of an hour that is used
    total: str  # over `years`
    total_a_year: str
    saving: str  # against on demand, over `years`
    years: int
    term_years: int | None
    upfront: str | None
    upfront_amount: str | None
    discount: str | None
    from_hours_a_year: int | None  # from how many hours of a year on it is no dearer than on demand


class BesideView(BaseModel):
    """What is charged beside cards."""

    stopped_per_hour: str = Field(description="for a stopped workload, beside its disk")
    storage_per_gib_hour: str = Field(description="for the disk of a stopped workload")
    cpu_only_per_hour: str | None = Field(description="for an instance started without its cards; null: not sold")
    egress_per_gib: str = Field(description="for what containers send")


class ComparisonView(BaseModel):
    beside: BesideView | None
    offer: str | None
    currency: str
    hours_a_year: int
    years: int
    cheapest: str
    saving: str  # of the cheapest against on demand, over `years`
    on_demand_a_year: str
    choices: list[ChoiceView]


class InvoiceRequest(_Strict):
    tenant: UserName
    month: MonthText | None = Field(None, description="2026-11; absent: this month up to now")


class CreditNoteRequest(_Strict):
    reason: UserName
    lines: Annotated[list[LineId], Field(min_length=1, max_length=10_000)] | None = Field(
        None, description="ids of lines; absent: all that is left of the invoice"
    )


class TaxTotalView(BaseModel):
    name: str
    rate: str
    base: str
    tax: str
    reverse_charge: bool


class InvoiceView(BaseModel):
    number: str
    kind: str  # invoice or credit_note
    tenant_id: str
    buyer: str
    currency: str
    period_from: str
    period_until: str
    issued_at: str
    subtotal: str
    tax: str
    rounding: str
    total: str
    lines: int
    adjustments: int
    taxes: list[TaxTotalView]
    corrects: str | None
    reason: str | None
    hash: str
    previous_hash: str | None


class InvoiceCheckView(BaseModel):
    documents: int
    genuine: bool


class CommitmentRequest(_Strict):
    tenant: UserName
    card_model: Short | None = Field(None, description="any slices of this card model, by their share")
    offer: Short | None = Field(None, description="instead of a card model: slices of this name only")
    count: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    years: Literal[1, 3]
    upfront: Literal["none", "partial", "all"] = "none"


class CommitmentView(BaseModel):
    id: str
    tenant_id: str
    card_model: str
    offer: str | None
    share: str
    years: int
    upfront: str
    start_at: str
    end_at: str
    currency: str
    per_hour: str
    total: str
    upfront_amount: str
    saving: str


class CostView(BaseModel):
    group: str
    amount: str
    effective: str
    listed: str
    card_hours: str


class CostsView(BaseModel):
    currency: str
    by: str
    total: str
    costs: list[CostView]


class ForecastView(BaseModel):
    currency: str
    month: str
    spent: str
    burn_a_day: str
    expected: str
    low: str | None  # absent where fewer than three whole days are known
    high: str | None
    days_known: int


class MarginView(BaseModel):
    card_model: str
    cards: int
    revenue: str
    utilisation: str
    energy_kwh: str | None  # of the cards alone; absent where nothing is known of the model
    energy_measured: str | None  # in how much of the time cards told it themselves; estimated in the rest
    energy_cost: str | None  # cooling and losses included; absent where the price book has no price of power
    margin: str | None
    margin_a_card: str | None
    break_even_hours: int | None  # of use, until a card has paid for itself at this rate


class MarginsView(BaseModel):
    currency: str
    month: str
    cards: list[MarginView]


class SpotPriceView(BaseModel):
    offer: str
    at: str
    price: str
    currency: str


class SpotRoundsView(BaseModel):
    """Rounds as they were published, the newest first: everything that is needed to work them out again."""

    rounds: list[dict[str, object]]

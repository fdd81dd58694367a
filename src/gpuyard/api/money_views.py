"""Money as it is shown: decimals, moments as text, absent things absent."""

from __future__ import annotations

from fractions import Fraction

from gpuyard.api.views import View
from gpuyard.billing.commitments import Commitment
from gpuyard.billing.comparing import Choice, Comparison
from gpuyard.billing.costs import Cost, Forecast
from gpuyard.billing.energy import MILLIJOULES_A_KWH
from gpuyard.billing.invoices import Document
from gpuyard.billing.margin import Margin
from gpuyard.catalog.currencies import minor_digits
from gpuyard.catalog.prices import PriceBook
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.times import to_text
from gpuyard.model.units import HOUR_US, NANO, SHARE_WHOLE_PPM, format_money, format_price


def payable(nano: int | Fraction, currency: str) -> str:
    """An amount as it could be paid, rounded half to even: only for comparisons and forecasts, never for a bill."""
    digits = minor_digits(currency)
    minor = NANO // 10**digits
    return format_money(round(Fraction(nano) / minor) * minor, digits)


def percent(ppm: int) -> str:
    """`45%`, `12.5%`."""
    return f"{ppm / 10_000:g}%"


def beside_view(book: PriceBook) -> View:
    """What the book asks beside cards. None: not sold."""
    cpu_only = book.cpu_only_per_hour_nano
    return {
        "stopped_per_hour": format_price(book.stopped_per_hour_nano),
        "storage_per_gib_hour": format_price(book.storage_per_gib_hour_nano),
        "cpu_only_per_hour": None if cpu_only is None else format_price(cpu_only),
        "egress_per_gib": format_price(book.egress_per_gib_nano),
    }


def comparison_view(found: Comparison, offer: str | None = None, book: PriceBook | None = None) -> View:
    return {
        "beside": None if book is None else beside_view(book),
        "offer": offer,
        "currency": found.currency,
        "hours_a_year": found.pattern.hours_a_year,
        "years": found.years,
        "cheapest": name_of(found.cheapest),
        "saving": payable(found.cheapest.saving_nano, found.currency),
        "on_demand_a_year": payable(Fraction(_on_demand(found).total_nano, found.years), found.currency),
        "choices": [choice_view(choice, found.currency) for choice in found.choices],
    }


def _on_demand(found: Comparison) -> Choice:
    return next(each for each in found.choices if each.option is PurchaseOption.ON_DEMAND and not each.by_unit)


def name_of(choice: Choice) -> str:
    """`reserved 3y none`, `on_demand`."""
    if not choice.term_years:
        return f"{choice.option.value} by unit" if choice.by_unit else choice.option.value
    return f"{choice.option.value} {choice.term_years}y {choice.upfront}"


def choice_view(choice: Choice, currency: str) -> View:
    reserved = bool(choice.term_years)
    return {
        "option": choice.option.value,
        "by_unit": choice.by_unit,
        "per_hour": format_price(round(choice.per_hour_nano)),
        "total": payable(choice.total_nano, currency),
        "total_a_year": payable(Fraction(choice.total_nano, choice.years), currency),
        "saving": payable(choice.saving_nano, currency),
        "years": choice.years,
        "term_years": choice.term_years or None,
        "upfront": choice.upfront.value if choice.upfront else None,
        "upfront_amount": payable(choice.upfront_nano, currency) if reserved else None,
        "discount": percent(choice.discount_ppm) if reserved else None,
        "from_hours_a_year": choice.from_hours_a_year,
    }


def document_view(document: Document) -> View:
    return {
        "number": document.number,
        "kind": document.kind.value,
        "tenant_id": document.tenant_id,
        "buyer": document.buyer.name,
        "currency": document.currency,
        "period_from": to_text(document.from_us),
        "period_until": to_text(document.until_us),
        "issued_at": to_text(document.issued_us),
        "subtotal": format_money(document.subtotal_nano),
        "tax": format_money(document.tax_nano),
        "rounding": format_money(document.rounding_nano),
        "total": format_money(document.total_nano, document.minor_digits),
        "lines": len(document.lines),
        "adjustments": sum(bool(line.adjusts) for line in document.lines),
        "taxes": [
            {
                "name": tax.name,
                "rate": percent(tax.rate_ppm),
                "base": format_money(tax.base_nano),
                "tax": format_money(tax.tax_nano),
                "reverse_charge": tax.reverse_charge,
            }
            for tax in document.taxes
        ],
        "corrects": document.corrects or None,
        "reason": document.reason or None,
        "hash": document.hash,
        "previous_hash": document.previous_hash or None,
    }


def commitment_view(commitment: Commitment) -> View:
    return {
        "id": commitment.id,
        "tenant_id": commitment.tenant_id,
        "card_model": commitment.card_model,
        "offer": commitment.offer,
        "share": percent(commitment.share_ppm),
        "years": commitment.years,
        "upfront": commitment.upfront.value,
        "start_at": to_text(commitment.start_us),
        "end_at": to_text(commitment.end_us),
        "currency": commitment.currency,
        "per_hour": format_price(commitment.per_hour_nano),
        "total": payable(commitment.total_nano, commitment.currency),
        "upfront_amount": payable(commitment.upfront_nano, commitment.currency),
        "saving": payable(commitment.saving_nano, commitment.currency),
    }


def cost_view(cost: Cost) -> View:
    hours = Fraction(cost.card_us_ppm, HOUR_US * SHARE_WHOLE_PPM)
    return {
        "group": cost.group,
        "amount": format_money(cost.amount_nano),
        "effective": format_money(cost.effective_nano),
        "listed": format_money(cost.list_nano),
        "card_hours": format_money(round(hours * NANO / 1000) * 1000),
    }


def forecast_view(found: Forecast, month: str, currency: str) -> View:
    return {
        "currency": currency,
        "month": month,
        "spent": format_money(found.spent_nano),
        "burn_a_day": payable(found.burn_a_day_nano, currency),
        "expected": payable(found.expected_nano, currency),
        "low": None if found.low_nano is None else payable(found.low_nano, currency),
        "high": None if found.high_nano is None else payable(found.high_nano, currency),
        "days_known": found.days_known,
    }


def margin_view(found: Margin, currency: str) -> View:
    def shown(nano: int | None) -> str | None:
        return None if nano is None else payable(nano, currency)

    joules = found.energy_millijoules
    return {
        "card_model": found.model,
        "cards": found.cards,
        "revenue": format_money(found.revenue_nano),
        "utilisation": percent(found.utilisation_ppm),
        "energy_kwh": None
        if joules is None
        else format_money(round(Fraction(joules * 1000, MILLIJOULES_A_KWH)) * NANO // 1000, 3),
        "energy_measured": None if found.measured_ppm is None else percent(found.measured_ppm),
        "energy_cost": shown(found.energy_nano),
        "margin": shown(found.margin_nano),
        "margin_a_card": shown(found.margin_a_card_nano),
        "break_even_hours": found.break_even_hours,
    }

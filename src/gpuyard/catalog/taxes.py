"""What an invoice says beside its lines: who sells, who buys, which tax is due. Written down by the operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from gpuyard.catalog import rows
from gpuyard.catalog.price_terms import percent

CODE: Final = "tax_table_invalid"


@dataclass(frozen=True, slots=True)
class Party:
    """Who sells or buys, as it stands on the paper."""

    id: str
    name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    country: str = ""


@dataclass(frozen=True, slots=True)
class TaxRule:
    """The tax of buyers in these countries (none: everywhere), on days from `from_day` to before `until_day`.
    `reverse_charge`: a buyer with a tax number owes it instead of the seller, who charges none."""

    name: str
    rate_ppm: int
    countries: tuple[str, ...] = ()
    reverse_charge: bool = False
    from_day: str = ""
    until_day: str = "9999"


@dataclass(frozen=True, slots=True)
class TaxTable:
    """Rules in the order of the file: the first one that fits decides. No rule: no tax."""

    seller: Party = field(default_factory=lambda: Party("", ""))
    rules: tuple[TaxRule, ...] = ()
    buyers: Mapping[str, Party] = field(default_factory=dict[str, Party])  # by tenant name

    def buyer(self, tenant_id: str, tenant_name: str) -> Party:
        """The buyer as written down, or no more than its name."""
        return self.buyers.get(tenant_name) or Party(tenant_id, tenant_name)

    def rule_for(self, buyer: Party, day: str) -> tuple[TaxRule, bool] | None:
        """The rule for what was used on this day, and whether the buyer owes the tax instead."""
        for rule in self.rules:
            if (not rule.countries or buyer.country in rule.countries) and rule.from_day <= day < rule.until_day:
                return rule, rule.reverse_charge and bool(buyer.tax_id)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartyRow:
    name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    country: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _TaxRow:
    name: str
    rate: str
    countries: tuple[str, ...] = ()
    reverse_charge: bool = False
    from_: str = ""
    until: str = "9999-12-31"


NO_TAX: Final = TaxTable()


def load(path: Path) -> TaxTable:
    """The operator's table. Raises YardError `tax_table_invalid`."""
    return parse(*rows.read(path, CODE))


def parse(values: Mapping[str, Any], place: rows.Place) -> TaxTable:
    """Raises YardError `tax_table_invalid`."""
    rows.only(values, ("seller", "tax", "buyers"), place)
    seller = values.get("seller")
    if not isinstance(seller, dict):
        raise place.refuse("seller", rows.ABSENT if seller is None else seller, "[seller]")
    buyers = values.get("buyers", {})
    if not isinstance(buyers, dict) or not all(isinstance(buyer, dict) for buyer in buyers.values()):
        raise place.refuse("buyers", buyers, "[buyers.NAME]")
    rules = [_rule(row, at) for row, at in rows.tables(values, "tax", place)] if "tax" in values else []
    return TaxTable(
        seller=_party("seller", seller, place.at("seller")),
        rules=tuple(rules),
        buyers={name: _party(name, buyer, place.at(f"buyers.{name[:40]}")) for name, buyer in buyers.items()},
    )


def _party(party_id: str, values: Mapping[str, Any], at: rows.Place) -> Party:
    row = rows.build(_PartyRow, values, at)
    if row.country and re.fullmatch("[A-Z]{2}", row.country) is None:
        raise at.refuse("country", row.country, '"DE" (ISO 3166)')
    return Party(party_id, row.name, row.address, row.tax_id, row.country)


def _rule(values: Mapping[str, Any], at: rows.Place) -> TaxRule:
    row = rows.build(_TaxRow, {("from_" if key == "from" else key): value for key, value in values.items()}, at)
    for name, text in (("from", row.from_), ("until", row.until)):
        if text and not _is_day(text):
            raise at.refuse(name, text, '"2026-12-01"')
    return TaxRule(row.name, percent(row.rate, "rate", at), row.countries, row.reverse_charge, row.from_, row.until)


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False

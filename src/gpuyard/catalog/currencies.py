"""How small an amount of a currency can be paid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from gpuyard.catalog import rows

CODE = "catalog_invalid"


@cache
def _digits() -> Mapping[str, int]:
    values, _ = rows.packaged("currencies.toml", CODE)
    return {currency: int(digits) for digits, currencies in values.items() for currency in currencies}


def minor_digits(currency: str) -> int:
    """Decimal places of a currency: 2 for USD and CNY, 0 for JPY, 3 for KWD."""
    return _digits().get(currency, 2)

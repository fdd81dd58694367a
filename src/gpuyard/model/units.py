"""Sizes, shares, money and durations as exact integers, and the only parsers that make them from text.

Units: memory in bytes, compute in parts per million of one card (`share_ppm`), money in nano-units of a currency
(1 USD = 10**9), durations in microseconds, CPU in milli-cores. Floats never enter.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from gpuyard.model.errors import YardError

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3
TIB: Final = 1024**4

SHARE_WHOLE_PPM: Final = 1_000_000
NANO: Final = 1_000_000_000
SECOND_US: Final = 1_000_000
HOUR_US: Final = 3600 * SECOND_US
DAY_US: Final = 24 * HOUR_US

# Larger than any machine; a guard against 1e30 and against overflow of a 64-bit column.
MAX_BYTES: Final = 1 << 53
MAX_PRICE_NANO: Final = 10**6 * NANO

_SIZE = re.compile(r"([1-9][0-9]{0,15})(KiB|MiB|GiB|TiB|B)?")
_SIZE_UNITS: Final[dict[str, int]] = {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_PRICE = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,9})?")
_FRACTION = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%")
_DURATION = re.compile(r"([1-9][0-9]{0,8})(ms|s|m|h|d)?")
_DURATION_UNITS: Final[dict[str, int]] = {
    "ms": 1000,
    "": SECOND_US,
    "s": SECOND_US,
    "m": 60 * SECOND_US,
    "h": HOUR_US,
    "d": DAY_US,
}


def parse_size(text: str) -> int:
    """Bytes from `12GiB`, `512MiB`, `1048576`. Only whole numbers and binary units are taken, because `1.5g` and `1gb`
    mean different things to different tools.

    Raises YardError `invalid_size`.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise YardError("invalid_size", value=text[:64])
    size = int(match[1]) * _SIZE_UNITS[match[2] or ""]
    if size > MAX_BYTES:
        raise YardError("invalid_size", value=text[:64])
    return size


def format_size(size_bytes: int) -> str:
    """The shortest exact spelling that `parse_size` reads back, e.g. `12GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def parse_share(text: str) -> int:
    """Parts per million of one card from `1/4`, `25%`, `full` or `1`. A fraction that does not divide a million is
    rounded down, so that n slices of 1/n always fit one card.

    Raises YardError `invalid_share` for anything not in (0, 1].
    """
    value: Fraction | None = None
    if text in {"full", "1"}:
        return SHARE_WHOLE_PPM
    if match := _FRACTION.fullmatch(text):
        value = Fraction(int(match[1]), int(match[2]))
    elif match := _PERCENT.fullmatch(text):
        value = Fraction(Decimal(match[1])) / 100
    if value is None or not 0 < value <= 1 or int(value * SHARE_WHOLE_PPM) < 1:
        raise YardError("invalid_share", value=text[:64])
    return int(value * SHARE_WHOLE_PPM)


def format_share(share_ppm: int) -> str:
    """`100%`, `25%`, `6.25%`: exact to a part per million."""
    percent = Decimal(share_ppm) / 10_000
    return f"{percent.normalize():f}%"


def parse_price(text: str) -> int:
    """Nano-units from a decimal string such as `0.60`; at most nine decimals, never negative, at most a million.

    Raises YardError `invalid_price`.
    """
    if _PRICE.fullmatch(text) is None:
        raise YardError("invalid_price", value=text[:64])
    nano = int(Decimal(text) * NANO)
    if nano > MAX_PRICE_NANO:
        raise YardError("invalid_price", value=text[:64])
    return nano


def format_money(nano: int, decimals: int = 6) -> str:
    """A decimal string with exactly `decimals` places. `nano` must already be a multiple of that place: showing is not
    the place to round.

    Raises ValueError where digits would be lost.
    """
    step = 10 ** (9 - decimals)
    if nano % step:
        raise ValueError(f"{nano} nano does not fit {decimals} decimals")
    sign = "-" if nano < 0 else ""
    whole, part = divmod(abs(nano) // step, 10**decimals)
    return f"{sign}{whole}.{part:0{decimals}d}" if decimals else f"{sign}{whole}"


def format_price(nano: int) -> str:
    """A price per hour, exact, with at least two decimals: `0.60`, `0.0375`."""
    text = format_money(nano, 9).rstrip("0")
    whole, _, part = text.partition(".")
    return f"{whole}.{part:0<2}"


_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


def parse_window(text: str) -> tuple[int, int] | None:
    """Minutes since midnight from `01:00-06:00`; None from `none`. Over midnight where the end comes first.

    Raises YardError `invalid_request`.
    """
    if text == "none":
        return None
    match = _WINDOW.fullmatch(text)
    if match is None or match[1] + match[2] == match[3] + match[4]:
        raise YardError("invalid_request", reason=f"'{text[:40]}' is no part of a day: HH:MM-HH:MM or none")
    return int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])


def parse_duration(text: str) -> int:
    """Microseconds from `90`, `90s`, `15m`, `2h`, `1d`, `200ms`.

    Raises YardError `invalid_duration`.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise YardError("invalid_duration", value=text[:64])
    duration_us = int(match[1]) * _DURATION_UNITS[match[2] or ""]
    if duration_us > 3660 * DAY_US:
        raise YardError("invalid_duration", value=text[:64])
    return duration_us

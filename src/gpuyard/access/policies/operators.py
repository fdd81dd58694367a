"""Condition operators: each compiled with its values to a test of one value of the request.

A positive operator holds where any of its values fits; a negated one where none does. Whoever compares values that are
not of the operator's type learns it by `ValueError`: the engine then denies.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from operator import eq, ge, gt, le, lt
from typing import Any, Final

from gpuyard.access.policies.patterns import Context, Matcher, compile_arn, compile_text

Compile = Callable[[Sequence[str], bool], Matcher]
_SETS: Final = {"foranyvalue": "any", "forallvalues": "all"}


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator as it is written: its set qualifier (`any`, `all` or none), its base, and whether absence is fine."""

    name: str
    base: str
    over: str | None
    if_exists: bool

    @property
    def negated(self) -> bool:
        """Whether it holds where nothing fits, and so also where the request has no such key."""
        return self.base in NEGATED


def find(written: str) -> Operator | None:
    """The operator of that name in any case, or None where there is none."""
    name = written.lower()
    over = None
    if ":" in name:
        qualifier, _, name = name.partition(":")
        if (over := _SETS.get(qualifier)) is None:
            return None
    if name == "null":
        return Operator(written, "null", None, False) if over is None else None
    base = name.removesuffix("ifexists")
    return Operator(written, base, over, base != name) if base in BASES else None


def _strings(*, wildcards: bool = False, fold: bool = False) -> Compile:
    def compiled(values: Sequence[str], with_variables: bool) -> Matcher:
        if fold:
            tests = [_folded(value, with_variables) for value in values]
        else:
            if not wildcards and not any("${" in value for value in values):
                fixed = frozenset(values)
                return lambda value, _: value in fixed
            tests = [compile_text(value, wildcards=wildcards, with_variables=with_variables) for value in values]
        return _any(tests)

    return compiled


def _folded(text: str, with_variables: bool) -> Matcher:
    if not with_variables or "${" not in text:
        low = text.lower()
        return lambda value, _: value.lower() == low
    test = compile_text(text.lower(), wildcards=False, with_variables=True)

    def matches(value: str, context: Context) -> bool:
        return test(value.lower(), {k: v.lower() if isinstance(v, str) else v for k, v in context.items()})

    return matches


def _any(tests: list[Matcher]) -> Matcher:
    if len(tests) == 1:
        return tests[0]
    return lambda value, context: any(test(value, context) for test in tests)


def _arns(values: Sequence[str], with_variables: bool) -> Matcher:
    return _any([compile_arn(value, with_variables=with_variables) for value in values])


def _compared(read: Callable[[str], Any], holds: Callable[[Any, Any], bool]) -> Compile:
    def compiled(values: Sequence[str], with_variables: bool) -> Matcher:
        del with_variables  # only strings and ARNs take variables; the linter says so
        wanted = [read(value) for value in values]

        def matches(value: str, context: Context) -> bool:
            del context
            found = read(value)
            return any(holds(found, each) for each in wanted)

        return matches

    return compiled


def number(text: str) -> Decimal:
    """A finite decimal. Raises ValueError."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or text != text.strip() or "_" in text:
        raise ValueError(text)
    return value


def moment(text: str) -> Decimal:
    """Seconds since 1970 of an ISO 8601 date or of plain seconds; without a zone it is UTC. Raises ValueError."""
    if text.lstrip("-").isdecimal():
        return number(text)
    found = datetime.fromisoformat(text)
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    since = found - datetime(1970, 1, 1, tzinfo=UTC)
    return Decimal(since.days * 86400 + since.seconds) + Decimal(since.microseconds) / 1_000_000


def boolean(text: str) -> bool:
    """Raises ValueError for what is neither true nor false."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def octets(text: str) -> bytes:
    """What a Base64 text stands for. Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error


def network(text: str) -> IPv4Network | IPv6Network:
    """Raises ValueError."""
    return ip_network(text, strict=False)


def _addresses(values: Sequence[str], with_variables: bool) -> Matcher:
    del with_variables
    networks = [network(value) for value in values]

    def matches(value: str, context: Context) -> bool:
        del context
        address = real_address(value)
        return any(address in each for each in networks)

    return matches


def real_address(text: str) -> IPv4Address | IPv6Address:
    """The address; an IPv4 one in IPv6 clothes (::ffff:a.b.c.d) is the IPv4 one. Raises ValueError."""
    address = ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


BASES: Final[dict[str, Compile]] = {
    "stringequals": _strings(),
    "stringnotequals": _strings(),
    "stringequalsignorecase": _strings(fold=True),
    "stringnotequalsignorecase": _strings(fold=True),
    "stringlike": _strings(wildcards=True),
    "stringnotlike": _strings(wildcards=True),
    "arnequals": _arns,
    "arnlike": _arns,
    "arnnotequals": _arns,
    "arnnotlike": _arns,
    "numericequals": _compared(number, eq),
    "numericnotequals": _compared(number, eq),
    "numericlessthan": _compared(number, lt),
    "numericlessthanequals": _compared(number, le),
    "numericgreaterthan": _compared(number, gt),
    "numericgreaterthanequals": _compared(number, ge),
    "dateequals": _compared(moment, eq),
    "datenotequals": _compared(moment, eq),
    "datelessthan": _compared(moment, lt),
    "datelessthanequals": _compared(moment, le),
    "dategreaterthan": _compared(moment, gt),
    "dategreaterthanequals": _compared(moment, ge),
    "bool": _compared(boolean, eq),
    "binaryequals": _compared(octets, eq),
    "ipaddress": _addresses,
    "notipaddress": _addresses,
}
NEGATED: Final = frozenset(base for base in BASES if "not" in base)
# What the values of a base operator must read as; strings and ARNs take any text.
READERS: Final[dict[str, Callable[[str], object]]] = {
    **{base: number for base in BASES if base.startswith("numeric")},
    **{base: moment for base in BASES if base.startswith("date")},
    "bool": boolean,
    "null": boolean,
    "binaryequals": octets,
    "ipaddress": network,
    "notipaddress": network,
}
TYPES: Final[dict[str, str]] = {
    base: next(kind for kind in ("string", "arn", "numeric", "date", "bool", "binary", "ip") if kind in base)
    for base in BASES
}

"""Where what may be used: the verified country of the tenant and the country of the caller's network must both be among
those of the card's export class. What is not known is not among them.

An address says where its block was assigned, not where its user is: it is a second signal and never the only one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from gpuyard.model.errors import YardError


@dataclass(frozen=True, slots=True)
class ExportClass:
    """Card models that may be used from some countries alone (ISO 3166-1 alpha-2)."""

    name: str
    card_models: frozenset[str]
    countries: frozenset[str]


@dataclass(frozen=True, slots=True)
class Residence:
    """A tenant's country as somebody verified it. The evidence itself is kept by the verifier; here is its hash."""

    country: str
    verifier: str
    evidence_sha256: str
    expires_us: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Which class refuses, and why: `tenant_unverified`, `tenant_expired`, `tenant_country`, `caller_unknown` or
    `caller_country`."""

    export_class: str
    why: str


def refusal(
    classes: Sequence[ExportClass],
    models: frozenset[str],
    residence: Residence | None,
    caller_country: str | None,
    now_us: int,
    *,
    at_rest: bool = False,
) -> Refused | None:
    """Why cards of these models may not be used, or None. `at_rest`: nobody calls, it only goes on running."""
    for one in classes:
        if not models & one.card_models:
            continue
        why = _tenant(one, residence, now_us)
        if why is None and not at_rest:
            why = _caller(one, caller_country)
        if why is not None:
            return Refused(one.name, why)
    return None


def _tenant(one: ExportClass, residence: Residence | None, now_us: int) -> str | None:
    if residence is None:
        return "tenant_unverified"
    if residence.expires_us <= now_us:
        return "tenant_expired"
    return None if residence.country in one.countries else "tenant_country"


def _caller(one: ExportClass, country: str | None) -> str | None:
    if country is None:
        return "caller_unknown"
    return None if country in one.countries else "caller_country"


def country_in(networks: Mapping[str, str], address: str | None) -> str | None:
    """The country of the narrowest network that holds the address, by the operator's own list."""
    if address is None:
        return None
    try:
        wanted = real(address)
    except ValueError:
        return None
    best: tuple[int, str] | None = None
    for text, country in networks.items():
        network = ip_network(text)
        if wanted in network and (best is None or network.prefixlen > best[0]):
            best = network.prefixlen, country
    return None if best is None else best[1]


def real(address: str) -> IPv4Address | IPv6Address:
    """An address; an IPv4 one that is written as IPv6 is the IPv4 one. Raises ValueError."""
    found = ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped if mapped is not None else found


def caller_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[str]) -> str | None:
    """Who called: the peer itself, unless the peer is a trusted proxy; then the last address of X-Forwarded-For that is
    none. A header that a stranger sent is never read. What cannot be read is nobody."""
    if peer is None:
        return None
    hops = [hop.strip() for line in forwarded for hop in line.split(",")]
    networks = [ip_network(text) for text in trusted]
    address = peer
    while True:
        try:
            known = real(address)
        except ValueError:
            return None
        if not any(known in network for network in networks):
            return str(known)
        if not hops:
            return str(known)
        address = hops.pop()


def told_secure(peer: str | None, forwarded_proto: str | None, trusted: Sequence[str]) -> bool:
    """Whether a trusted proxy says that the caller came to it over TLS. Nobody else's word counts."""
    if peer is None or forwarded_proto is None or forwarded_proto.split(",")[-1].strip().lower() != "https":
        return False
    try:
        known = real(peer)
    except ValueError:
        return False
    return any(known in ip_network(text) for text in trusted)


def check_country(text: str) -> str:
    """A country's two letters. Raises YardError `invalid_request`."""
    found = text.strip().upper()
    if len(found) != 2 or not (found.isascii() and found.isalpha()):
        raise YardError("invalid_request", reason="country", value=text[:20])
    return found


def check_network(text: str) -> str:
    """A network in CIDR notation. Raises YardError `invalid_request`."""
    try:
        return str(ip_network(text.strip()))
    except ValueError:
        raise YardError("invalid_request", reason="network", value=text[:60]) from None

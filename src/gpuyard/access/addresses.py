"""Which addresses the yard may fetch from: only ones on the public internet, and what the operator allows besides.

The tables are IANA's registries of special-purpose addresses, written down here because what the standard library calls
global differs between its versions; and the few public addresses at which clouds answer their guests alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED: Final = {
    ipaddress.ip_network(cidr): why
    for why, cidrs in {
        "loopback": ("127.0.0.0/8",),
        "link_local": ("169.254.0.0/16",),
        "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        "metadata": ("168.63.129.16/32",),
        "special": (
            *("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    }.items()
    for cidr in cidrs
}
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_LOCAL_6: Final = {ipaddress.IPv6Network("fe80::/10"): "link_local", ipaddress.IPv6Network("fc00::/7"): "private"}
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps, or itself: a wrapped one must not be judged by its wrapping."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def why_refused(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """Why the yard fetches nothing from there; None where it may. What the operator allowed is allowed."""
    meant = plain(address)
    if is_allowed(address, allowed):
        return None
    for network, why in _REFUSED.items():
        if meant in network:
            return why
    if isinstance(meant, ipaddress.IPv4Address) or meant in _PUBLIC_6:
        return None
    if meant.is_loopback:
        return "loopback"
    return next((why for network, why in _LOCAL_6.items() if meant in network), "special")


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether the operator named a network that it is in."""
    return any(plain(address) in network for network in allowed)

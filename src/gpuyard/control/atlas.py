"""The operator's geography as one reading of the store, and the country of an address by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection

from gpuyard.access.geography import ExportClass, Residence, country_in
from gpuyard.access.residency import ResidencyClass
from gpuyard.store import limits, residency


@dataclass(frozen=True, slots=True)
class Atlas:
    """The operator's rules as one reading of the store."""

    classes: tuple[ExportClass, ...]
    residences: dict[str, Residence]
    networks: dict[str, str]
    proxies: tuple[str, ...]
    residency: tuple[ResidencyClass, ...] = ()


def read_atlas(c: Connection) -> Atlas:
    """What the store says."""
    found = limits.networks(c)
    return Atlas(
        tuple(
            ExportClass(name, frozenset(models), frozenset(where)) for name, models, where in limits.export_classes(c)
        ),
        {tenant_id: Residence(*row) for tenant_id, row in limits.countries(c).items()},
        {cidr: country for cidr, country in found.items() if country is not None},
        tuple(cidr for cidr, country in found.items() if country is None),
        tuple(ResidencyClass(name, frozenset(where)) for name, where in residency.classes(c).items()),
    )


def country_of(atlas: Atlas, address: str | None) -> str | None:
    """The country of an address: by the operator's list, then by the registries' where the extra is installed."""
    own = country_in(atlas.networks, address)
    if own is not None or address is None:
        return own
    look_up = _registries()
    return None if look_up is None else look_up(address)


@cache
def _registries() -> Callable[[str], str | None] | None:
    try:
        import iptocc  # an extra: it carries the registries' tables  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None

    def look_up(address: str) -> str | None:
        found = iptocc.country_code(address)
        return found if isinstance(found, str) and len(found) == 2 else None

    return look_up

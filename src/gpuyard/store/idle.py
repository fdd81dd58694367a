"""Idle policies, and the spells in which instances were idle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

from sqlalchemy import Connection, select, text

from gpuyard.store.ledger_tables import IDLE_POLICIES, IDLE_SPELLS

PolicyRow = tuple[str, list[str], int, int]  # tenant, signals, warn after, pause after
_PUT = text(
    "INSERT INTO idle_policies (tenant_id, signals, warn_us, pause_us) VALUES (:tenant, :signals, :warn, :pause) "
    "ON CONFLICT (tenant_id) DO UPDATE SET signals = excluded.signals, warn_us = excluded.warn_us, "
    "pause_us = excluded.pause_us"
)


@dataclass(frozen=True, slots=True)
class Spell:
    """Since when an instance is idle, when that was told, when it was paused, and what earlier pauses saved."""

    workload_id: str
    tenant_id: str
    since_us: int
    warned_us: int | None
    paused_us: int | None
    price_per_hour_nano: int
    saved_nano: int


_NAMES = [field.name for field in fields(Spell)]
_KEEP = text(
    f"INSERT INTO idle_spells ({', '.join(_NAMES)}) VALUES ({', '.join(':' + name for name in _NAMES)}) "  # noqa: S608
    "ON CONFLICT (workload_id) DO UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in _NAMES[2:])
)


def put(c: Connection, tenant_id: str, signals: Sequence[str], warn_us: int, pause_us: int) -> None:
    """Sets or replaces a tenant's policy."""
    c.execute(_PUT, {"tenant": tenant_id, "signals": json.dumps(list(signals)), "warn": warn_us, "pause": pause_us})


def remove(c: Connection, tenant_id: str) -> bool:
    """Whether there was one."""
    return c.execute(IDLE_POLICIES.delete().where(IDLE_POLICIES.c.tenant_id == tenant_id)).rowcount == 1


def policies(c: Connection, tenant_id: str | None = None) -> list[PolicyRow]:
    """Policies of one tenant or all."""
    query = select(IDLE_POLICIES)
    if tenant_id is not None:
        query = query.where(IDLE_POLICIES.c.tenant_id == tenant_id)
    return [(r.tenant_id, json.loads(r.signals), r.warn_us, r.pause_us) for r in c.execute(query)]


def spells(c: Connection, tenant_id: str | None = None) -> dict[str, Spell]:
    """Spells by workload, of one tenant or all."""
    query = select(*(IDLE_SPELLS.c[name] for name in _NAMES))
    if tenant_id is not None:
        query = query.where(IDLE_SPELLS.c.tenant_id == tenant_id)
    return {row.workload_id: Spell(*row) for row in c.execute(query)}


def keep(c: Connection, spell: Spell) -> None:
    """Writes a spell down as it is now."""
    c.execute(_KEEP, {name: getattr(spell, name) for name in _NAMES})


def end(c: Connection, workload_id: str) -> None:
    """The spell is over and saved nothing."""
    c.execute(IDLE_SPELLS.delete().where(IDLE_SPELLS.c.workload_id == workload_id))

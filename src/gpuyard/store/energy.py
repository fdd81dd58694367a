"""What the energy counters of cards said, and what that comes to hour by hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select, text

from gpuyard.store.incident_tables import ENERGY_COUNTERS, ENERGY_HOURS

_READ = text(
    "INSERT INTO energy_counters (card_uuid, read_us, millijoules) VALUES (:card_uuid, :read_us, :millijoules) "
    "ON CONFLICT (card_uuid) DO UPDATE SET read_us = excluded.read_us, millijoules = excluded.millijoules"
)
_ADD = text(
    "INSERT INTO energy_hours (card_uuid, hour, millijoules, covered_us) "
    "VALUES (:card_uuid, :hour, :millijoules, :covered_us) ON CONFLICT (card_uuid, hour) DO UPDATE SET "
    "millijoules = energy_hours.millijoules + excluded.millijoules, "
    "covered_us = energy_hours.covered_us + excluded.covered_us"
)


def counters(c: Connection) -> dict[str, tuple[int, int]]:
    """By card when its counter was read last, and what it said."""
    return {row.card_uuid: (row.read_us, row.millijoules) for row in c.execute(select(ENERGY_COUNTERS))}


def keep(c: Connection, read_us: int, said: Mapping[str, int], taken: Sequence[tuple[str, int, int, int]]) -> None:
    """Writes counters down, and (card, hour, millijoules, of how much of the hour) that follow from them."""
    if said:
        c.execute(_READ, [{"card_uuid": u, "read_us": read_us, "millijoules": mj} for u, mj in said.items()])
    if taken:
        names = ("card_uuid", "hour", "millijoules", "covered_us")
        c.execute(_ADD, [dict(zip(names, each, strict=True)) for each in taken])


def hours(c: Connection, from_hour: int, until_hour: int) -> list[tuple[str, int, int, int]]:
    """(card, hour, millijoules, of how much of the hour) of the hours from the first to before the last."""
    query = select(ENERGY_HOURS).where(ENERGY_HOURS.c.hour >= from_hour, ENERGY_HOURS.c.hour < until_hour)
    return [(row.card_uuid, row.hour, row.millijoules, row.covered_us) for row in c.execute(query)]

"""The highest demand of each hour by card model, as it was seen; what is older than the forecast looks is dropped."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select, text

from gpuyard.store.queue_tables import DEMAND

_SEE = text(
    "INSERT INTO demand (model, hour, compute_ppm) VALUES (:model, :hour, :compute_ppm) "
    "ON CONFLICT (model, hour) DO UPDATE SET compute_ppm = excluded.compute_ppm "
    "WHERE demand.compute_ppm < excluded.compute_ppm"
)


def see(c: Connection, hour: int, wanted_ppm: Mapping[str, int], keep_hours: int) -> None:
    """So much is wanted of each model in this hour; the highest stays."""
    if wanted_ppm:
        c.execute(_SEE, [{"model": model, "hour": hour, "compute_ppm": ppm} for model, ppm in wanted_ppm.items()])
    c.execute(DEMAND.delete().where(DEMAND.c.hour < hour - keep_hours))


def history(c: Connection) -> list[tuple[int, str, int]]:
    """All that was seen: hour, model, ppm of a card."""
    return [(row.hour, row.model, row.compute_ppm) for row in c.execute(select(DEMAND))]

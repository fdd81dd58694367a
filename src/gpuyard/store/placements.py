"""Why each lease is where it is, when its work was last safe, and the notice that it got."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, text

from gpuyard.store.queue_tables import PLACEMENTS


@dataclass(frozen=True, slots=True)
class Notice:
    """A spot lease was told to go: since when, until when, and for which workload."""

    lease_id: str
    notice_us: int
    until_us: int
    notice_for: str


@dataclass(frozen=True, slots=True)
class PlacementRow:
    """What is known of a lease's last placement."""

    lease_id: str
    placed_us: int
    why: Mapping[str, object]
    checkpoint_us: int | None
    notice: Notice | None
    reclaimed_us: int | None
    reclaims: int


# A new placement: what was safe is safe still, and when it was reclaimed is not forgotten.
_PLACE = text(
    "INSERT INTO placements (lease_id, placed_us, why, reclaims) VALUES (:lease_id, :placed_us, :why, 0) "
    "ON CONFLICT (lease_id) DO UPDATE SET placed_us = excluded.placed_us, why = excluded.why, "
    "notice_us = NULL, until_us = NULL, notice_for = NULL"
)
_NOTICE = text(
    "UPDATE placements SET notice_us = :notice_us, until_us = :until_us, notice_for = :notice_for "
    "WHERE lease_id = :lease_id AND notice_us IS NULL"
)
_FREE = "notice_us = NULL, until_us = NULL, notice_for = NULL"
_WITHDRAW = text(f"UPDATE placements SET {_FREE} WHERE lease_id = :lease_id")  # noqa: S608
_RECLAIMED = text(
    f"UPDATE placements SET {_FREE}, reclaimed_us = :at_us, reclaims = reclaims + 1 WHERE lease_id = :lease_id"  # noqa: S608
)
_CHECKPOINT = text("UPDATE placements SET checkpoint_us = :at_us WHERE lease_id = :lease_id")
_DROP = text("DELETE FROM placements WHERE lease_id = :lease_id")


def place(c: Connection, lease_id: str, why: Mapping[str, object], now_us: int) -> None:
    """The lease got slices, and this is why there."""
    text_of_why = json.dumps(dict(why), separators=(",", ":"), sort_keys=True)
    c.execute(_PLACE, {"lease_id": lease_id, "placed_us": now_us, "why": text_of_why})


def notify(c: Connection, notice: Notice) -> bool:
    """Tells the lease to go. False where it was told already, or has no placement."""
    values = {
        "lease_id": notice.lease_id,
        "notice_us": notice.notice_us,
        "until_us": notice.until_us,
        "notice_for": notice.notice_for,
    }
    return c.execute(_NOTICE, values).rowcount == 1


def withdraw(c: Connection, lease_id: str) -> None:
    """The lease need not go after all."""
    c.execute(_WITHDRAW, {"lease_id": lease_id})


def reclaimed(c: Connection, lease_id: str, now_us: int) -> None:
    """The lease has gone, and waits again."""
    c.execute(_RECLAIMED, {"lease_id": lease_id, "at_us": now_us})


def checkpoint(c: Connection, lease_ids: Sequence[str], now_us: int) -> None:
    """The work of these leases is safe as of now."""
    if lease_ids:
        c.execute(_CHECKPOINT, [{"lease_id": lease_id, "at_us": now_us} for lease_id in lease_ids])


def drop(c: Connection, lease_id: str) -> None:
    """The lease has ended."""
    c.execute(_DROP, {"lease_id": lease_id})


_NOTICES = select(PLACEMENTS.c.lease_id, PLACEMENTS.c.notice_us, PLACEMENTS.c.until_us, PLACEMENTS.c.notice_for).where(
    PLACEMENTS.c.notice_us.is_not(None)
)


def notices(c: Connection) -> dict[str, Notice]:
    """Every notice that stands, by lease."""
    return {row[0]: Notice(*row) for row in c.execute(_NOTICES)}


def of(c: Connection, lease_ids: Sequence[str]) -> dict[str, PlacementRow]:
    """What is known of these leases' placements; those that never had one are not there."""
    found: dict[str, PlacementRow] = {}
    for start in range(0, len(lease_ids), 500):
        query = select(PLACEMENTS).where(PLACEMENTS.c.lease_id.in_(lease_ids[start : start + 500]))
        found.update({row.lease_id: _row(row) for row in c.execute(query)})
    return found


def _row(row: Row[Any]) -> PlacementRow:
    noticed = row.notice_us is not None
    return PlacementRow(
        lease_id=row.lease_id,
        placed_us=row.placed_us,
        why=json.loads(row.why),
        checkpoint_us=row.checkpoint_us,
        notice=Notice(row.lease_id, row.notice_us, row.until_us, row.notice_for) if noticed else None,
        reclaimed_us=row.reclaimed_us,
        reclaims=row.reclaims,
    )

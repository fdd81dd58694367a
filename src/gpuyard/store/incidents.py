"""Incidents of the hardware. What an incident was about never changes; it is closed once."""

from __future__ import annotations

from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row, select, text

from gpuyard.model.incidents import Cause, Incident, Outcome
from gpuyard.store.incident_tables import INCIDENTS

_NAMES = tuple(INCIDENTS.c.keys())
_INSERT = text(
    f"INSERT INTO incidents ({', '.join(_NAMES)}) VALUES ({', '.join(':' + name for name in _NAMES)}) "  # noqa: S608
    "ON CONFLICT DO NOTHING"
)


def insert(c: Connection, incident: Incident) -> bool:
    """Keeps a new one. False where one about the same is open already: an incident that is told again is told once."""
    values = {name: getattr(incident, name) for name in _NAMES}
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
    return c.execute(_INSERT, plain).rowcount == 1


def find(c: Connection, incident_id: str) -> Incident | None:
    """One by its id."""
    row = c.execute(select(INCIDENTS).where(INCIDENTS.c.id == incident_id)).first()
    return None if row is None else _incident(row)


def close(c: Connection, incident_id: str, at_us: int, by: str, outcome: Outcome) -> bool:
    """It goes on no more. False where it was closed before."""
    open_one = INCIDENTS.update().where(INCIDENTS.c.id == incident_id, INCIDENTS.c.closed_us.is_(None))
    return c.execute(open_one.values(closed_us=at_us, closed_by=by, outcome=outcome.value)).rowcount == 1


def dismiss(c: Connection, incident_id: str, at_us: int, by: str) -> bool:
    """It was none, whether it is closed or not. False where that is known."""
    still = INCIDENTS.c.outcome.is_(None) | (INCIDENTS.c.outcome != Outcome.DISMISSED.value)
    query = INCIDENTS.update().where(INCIDENTS.c.id == incident_id, still)
    values = {"closed_us": at_us, "closed_by": by, "outcome": Outcome.DISMISSED.value}
    return c.execute(query.values(values)).rowcount == 1


def listing(c: Connection, only_open: bool = False, limit: int | None = None) -> list[Incident]:
    """Newest first."""
    query = select(INCIDENTS).order_by(INCIDENTS.c.opened_us.desc(), INCIDENTS.c.id.desc())
    if only_open:
        query = query.where(INCIDENTS.c.closed_us.is_(None))
    return [_incident(row) for row in c.execute(query if limit is None else query.limit(limit))]


def open_about(c: Connection, cause: Cause, node: str, card_uuid: str | None) -> Incident | None:
    """The one of this cause that goes on about a node, or about a card of it."""
    query = select(INCIDENTS).where(INCIDENTS.c.cause == cause.value, INCIDENTS.c.closed_us.is_(None))
    same = INCIDENTS.c.node == node if card_uuid is None else INCIDENTS.c.card_uuid == card_uuid
    row = c.execute(query.where(same)).first()
    return None if row is None else _incident(row)


def giving_back(c: Connection) -> list[Incident]:
    """Those that something is given back for, oldest first."""
    kept = INCIDENTS.c.outcome.is_(None) | (INCIDENTS.c.outcome != Outcome.DISMISSED.value)
    query = select(INCIDENTS).where(INCIDENTS.c.last_good_us.is_not(None), kept).order_by(INCIDENTS.c.id)
    return [_incident(row) for row in c.execute(query)]


def _incident(row: Row[Any]) -> Incident:
    outcome = None if row.outcome is None else Outcome(row.outcome)
    return Incident(**{**row._mapping, "cause": Cause(row.cause), "outcome": outcome})

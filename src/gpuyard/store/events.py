"""The append-only event table: what changed, said once, in commit order."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, func, select, text

from gpuyard.model.events import Event
from gpuyard.store.tables import EVENTS

# The counter's row stays locked until the transaction ends: no later number can be committed before an earlier one.
_TAKE = text("UPDATE counters SET value = value + :count WHERE name = 'events' RETURNING value")
_ADD = EVENTS.insert()


def append(c: Connection, told: Sequence[Event]) -> int:
    """Writes events and returns the last one's sequence; the present last one where there are none to write."""
    if not told:
        return last(c)
    newest: int = c.execute(_TAKE, {"count": len(told)}).scalar_one()
    first = newest - len(told) + 1
    c.execute(
        _ADD,
        [
            {
                "sequence": first + offset,
                "at_us": event.at_us,
                "kind": event.kind,
                "subject": event.subject,
                "tenant_id": event.tenant_id,
                "actor": event.actor,
                "data": json.dumps(dict(event.data)),
            }
            for offset, event in enumerate(told)
        ],
    )
    return newest


def after(c: Connection, sequence: int, tenant_id: str | None, limit: int) -> list[Event]:
    """Events with a larger sequence, in order; of one tenant or all."""
    query = select(EVENTS).where(EVENTS.c.sequence > sequence).order_by(EVENTS.c.sequence).limit(limit)
    if tenant_id is not None:
        query = query.where(EVENTS.c.tenant_id == tenant_id)
    return [
        Event(row.kind, row.subject, row.at_us, row.tenant_id, row.actor, json.loads(row.data), row.sequence)
        for row in c.execute(query)
    ]


def with_reason(c: Connection, kind: str, reason: str, tenant_id: str | None) -> list[tuple[str, int]]:
    """Subject and moment of the events of a kind that give this reason, in order; of one tenant or all."""
    query = select(EVENTS.c.subject, EVENTS.c.at_us, EVENTS.c.data).order_by(EVENTS.c.sequence)
    query = query.where(EVENTS.c.kind == kind, EVENTS.c.data.contains(f'"{reason}"', autoescape=True))
    if tenant_id is not None:
        query = query.where(EVENTS.c.tenant_id == tenant_id)
    return [(row.subject, row.at_us) for row in c.execute(query) if json.loads(row.data).get("reason") == reason]


def last(c: Connection) -> int:
    """The newest sequence; 0 where nothing was ever said."""
    return c.execute(select(func.max(EVENTS.c.sequence))).scalar() or 0


def first_us(c: Connection) -> int | None:
    """When anything was said first."""
    return c.execute(select(EVENTS.c.at_us).order_by(EVENTS.c.sequence).limit(1)).scalar()

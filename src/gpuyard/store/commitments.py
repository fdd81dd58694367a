"""Commitments as they were bought, and spot rounds as they were cleared: both as JSON text that never changes."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from gpuyard.store.money_tables import COMMITMENTS, SPOT_ROUNDS


def insert(c: Connection, commitment_id: str, tenant_id: str, created_us: int, body: str) -> None:
    """Adds one."""
    c.execute(
        COMMITMENTS.insert(), {"id": commitment_id, "tenant_id": tenant_id, "created_us": created_us, "body": body}
    )


def bodies(c: Connection, tenant_id: str | None = None) -> list[str]:
    """By id, which is the order of purchase; of one tenant or of all."""
    query = select(COMMITMENTS.c.body).order_by(COMMITMENTS.c.id)
    if tenant_id is not None:
        query = query.where(COMMITMENTS.c.tenant_id == tenant_id)
    return list(c.execute(query).scalars())


def any_at_all(c: Connection) -> bool:
    """Whether anybody ever bought one."""
    return c.execute(select(COMMITMENTS.c.id).limit(1)).first() is not None


def add_round(c: Connection, offer: str, at_us: int, price_nano: int, body: str) -> None:
    """Adds a round of the spot market."""
    c.execute(SPOT_ROUNDS.insert(), {"offer": offer, "at_us": at_us, "price_nano": price_nano, "body": body})


def spot_prices(c: Connection, offer: str | None = None) -> dict[str, list[tuple[int, int]]]:
    """(from when, price) by offer, oldest first."""
    query = select(SPOT_ROUNDS.c.offer, SPOT_ROUNDS.c.at_us, SPOT_ROUNDS.c.price_nano)
    query = query.order_by(SPOT_ROUNDS.c.offer, SPOT_ROUNDS.c.at_us)
    if offer is not None:
        query = query.where(SPOT_ROUNDS.c.offer == offer)
    found: dict[str, list[tuple[int, int]]] = {}
    for name, at_us, price in c.execute(query):
        found.setdefault(name, []).append((at_us, price))
    return found


def newest_rounds(c: Connection) -> dict[str, tuple[int, int, str]]:
    """By offer when its last round was, its price and its body."""
    last = select(SPOT_ROUNDS.c.offer, func.max(SPOT_ROUNDS.c.at_us).label("at_us")).group_by(SPOT_ROUNDS.c.offer)
    latest = last.subquery()
    query = select(SPOT_ROUNDS).join(
        latest, (SPOT_ROUNDS.c.offer == latest.c.offer) & (SPOT_ROUNDS.c.at_us == latest.c.at_us)
    )
    return {row.offer: (row.at_us, row.price_nano, row.body) for row in c.execute(query)}


def rounds(c: Connection, offer: str, limit: int) -> list[str]:
    """Bodies of an offer's rounds, the newest first."""
    query = select(SPOT_ROUNDS.c.body).where(SPOT_ROUNDS.c.offer == offer)
    return list(c.execute(query.order_by(SPOT_ROUNDS.c.at_us.desc()).limit(limit)).scalars())

"""Idempotency keys, written in the transaction of the launch that they name."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from gpuyard.store.tables import IDEMPOTENCY

# Made once: making a statement takes longer than running it.
_REMEMBER = IDEMPOTENCY.insert()
_RECALL = select(IDEMPOTENCY.c.fingerprint, IDEMPOTENCY.c.workload_id).where(
    IDEMPOTENCY.c.tenant_id == bindparam("tenant"), IDEMPOTENCY.c.key == bindparam("name")
)


def remember(c: Connection, tenant_id: str, key: str, fingerprint: str, workload_id: str, now_us: int) -> None:
    """Ties a key to what it made. The same key twice breaks a rule of the schema."""
    c.execute(
        _REMEMBER,
        {
            "tenant_id": tenant_id,
            "key": key,
            "fingerprint": fingerprint,
            "workload_id": workload_id,
            "created_us": now_us,
        },
    )


def recall(c: Connection, tenant_id: str, key: str) -> tuple[str, str] | None:
    """(fingerprint, workload id) of a key."""
    row = c.execute(_RECALL, {"tenant": tenant_id, "name": key}).first()
    return None if row is None else (row.fingerprint, row.workload_id)


def forget_before(c: Connection, moment_us: int) -> int:
    """Drops old keys; how many."""
    return c.execute(IDEMPOTENCY.delete().where(IDEMPOTENCY.c.created_us < moment_us)).rowcount

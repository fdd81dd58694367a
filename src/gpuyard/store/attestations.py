"""Nonces that were given out, and attestations: what verified evidence proves, until it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from gpuyard.store.attestation_tables import ATTESTATIONS, NONCES


@dataclass(frozen=True, slots=True)
class Nonce:
    """For one start of one instance, and one key of its own."""

    nonce: str
    tenant_id: str
    workload_id: str
    unit: str
    key_sha256: str
    issued_us: int
    used_us: int | None = None


@dataclass(frozen=True, slots=True)
class Attestation:
    """`unit` is the start that it is about; `claims` is JSON. `ended_because` is a stable word."""

    id: str
    tenant_id: str
    workload_id: str
    unit: str
    key_sha256: str
    policy_sha256: str
    evidence_sha256: str
    processor: str
    cards: int
    claims: str
    verified_us: int
    until_us: int
    ended_us: int | None = None
    ended_because: str | None = None


def add_nonce(c: Connection, made: Nonce, forget_before_us: int) -> None:
    """Writes one down, and forgets those that are too old to be used."""
    c.execute(NONCES.delete().where(NONCES.c.issued_us < forget_before_us))
    values = {name: getattr(made, name) for name in Nonce.__slots__}
    c.execute(NONCES.insert().values(values))


def nonce(c: Connection, wanted: str) -> Nonce | None:
    """One that was given out, used or not."""
    row = c.execute(select(NONCES).where(NONCES.c.nonce == wanted)).first()
    return None if row is None else Nonce(*row)


def use_nonce(c: Connection, wanted: str, now_us: int) -> bool:
    """Marks it as used; whether it was not."""
    mine = (NONCES.c.nonce == wanted, NONCES.c.used_us.is_(None))
    return c.execute(NONCES.update().where(*mine).values(used_us=now_us)).rowcount == 1


def add(c: Connection, made: Attestation) -> None:
    """Writes one down; those before it of the same unit end."""
    before = (ATTESTATIONS.c.workload_id == made.workload_id, ATTESTATIONS.c.unit == made.unit)
    ending = ATTESTATIONS.update().where(*before, ATTESTATIONS.c.ended_us.is_(None))
    c.execute(ending.values(ended_us=made.verified_us, ended_because="renewed"))
    c.execute(ATTESTATIONS.insert().values({name: getattr(made, name) for name in Attestation.__slots__}))


def end(c: Connection, attestation_id: str, because: str, now_us: int) -> bool:
    """Ends one; whether it had not ended."""
    mine = (ATTESTATIONS.c.id == attestation_id, ATTESTATIONS.c.ended_us.is_(None))
    return c.execute(ATTESTATIONS.update().where(*mine).values(ended_us=now_us, ended_because=because)).rowcount == 1


def open_ones(c: Connection, workload_ids: Sequence[str] | None = None) -> list[Attestation]:
    """Those that have not ended, of these workloads or all."""
    query = select(ATTESTATIONS).where(ATTESTATIONS.c.ended_us.is_(None)).order_by(ATTESTATIONS.c.id)
    if workload_ids is not None:
        query = query.where(ATTESTATIONS.c.workload_id.in_(list(workload_ids)))
    return [Attestation(*row) for row in c.execute(query)]


def newest(c: Connection, workload_id: str, limit: int) -> list[Attestation]:
    """A workload's, the newest first, ended or not."""
    query = select(ATTESTATIONS).where(ATTESTATIONS.c.workload_id == workload_id)
    return [Attestation(*row) for row in c.execute(query.order_by(ATTESTATIONS.c.id.desc()).limit(limit))]

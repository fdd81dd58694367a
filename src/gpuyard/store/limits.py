"""Quotas with what counts for them, and the geography of tenants and networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, case, func, select

from gpuyard.store.access_tables import CLAIMS, COUNTRIES, EXPORT_CLASSES, NETWORKS, PROJECTS, QUOTAS
from gpuyard.store.tables import WORKLOADS

AMOUNTS = ("card_share_ppm", "card_memory_bytes", "storage_bytes", "spend_per_hour_nano")
# Made once: making a statement takes longer than running it.
_QUOTAS = select(QUOTAS).order_by(QUOTAS.c.kind, QUOTAS.c.subject, QUOTAS.c.what)
_QUOTAS_LOCKED = _QUOTAS.with_for_update()
_CLAIM = CLAIMS.insert()
Row = tuple[str, str, str, int | None, int | None]
# A workload in one of these holds its disk and nothing else.
_RESTING = ("succeeded", "failed", "stopped")


def put_quota(c: Connection, kind: str, subject: str, what: str, soft: int | None, hard: int | None) -> None:
    """Sets a quota; two times None takes it away."""
    mine = (QUOTAS.c.kind == kind, QUOTAS.c.subject == subject, QUOTAS.c.what == what)
    c.execute(QUOTAS.delete().where(*mine))
    if soft is not None or hard is not None:
        c.execute(QUOTAS.insert().values(kind=kind, subject=subject, what=what, soft=soft, hard=hard))


def quotas(c: Connection, subjects: Sequence[tuple[str, str]] | None = None, *, lock: bool = False) -> list[Row]:
    """Quotas (kind, subject, what, soft, hard); of these subjects or all. `lock` makes whoever else asks so wait."""
    rows = c.execute(_QUOTAS_LOCKED if lock else _QUOTAS)
    found = [(row.kind, row.subject, row.what, row.soft, row.hard) for row in rows]
    return [row for row in found if subjects is None or (row[0], row[1]) in subjects]


def claim(c: Connection, workload_id: str, tenant_id: str, user: str, amounts: Mapping[str, int]) -> None:
    """Writes down what a workload counts for while it runs."""
    c.execute(_CLAIM, {"workload_id": workload_id, "tenant_id": tenant_id, "name": user, **amounts})


def claim_anew(c: Connection, workload_id: str, amounts: Mapping[str, int]) -> None:
    """Writes down that it counts for something else now."""
    c.execute(CLAIMS.update().where(CLAIMS.c.workload_id == workload_id).values(**amounts))


def claim_of(c: Connection, workload_id: str) -> tuple[str, dict[str, int]] | None:
    """Whose a workload is and what it counts for; None for one from before there were quotas."""
    row = c.execute(select(CLAIMS).where(CLAIMS.c.workload_id == workload_id)).mappings().first()
    return None if row is None else (row["name"], {name: row[name] for name in AMOUNTS})


def held(c: Connection, kind: str, subject: str) -> dict[str, int]:
    """What a subject's workloads hold now: those at rest their disks alone."""
    resting = WORKLOADS.c.state.in_(_RESTING)
    sums = [
        func.coalesce(
            func.sum(CLAIMS.c[name] if name == "storage_bytes" else case((resting, 0), else_=CLAIMS.c[name])), 0
        )
        for name in AMOUNTS
    ]
    query = select(*sums).join_from(CLAIMS, WORKLOADS, WORKLOADS.c.id == CLAIMS.c.workload_id)
    query = query.where(WORKLOADS.c.state != "removed")
    if kind == "organisation":
        mine = select(PROJECTS.c.tenant_id).where(PROJECTS.c.organisation_id == subject)
        query = query.where(CLAIMS.c.tenant_id.in_(mine))
    elif kind == "project":
        query = query.where(CLAIMS.c.tenant_id == subject)
    else:
        tenant_id, _, user = subject.partition("/")
        query = query.where(CLAIMS.c.tenant_id == tenant_id, CLAIMS.c.name == user)
    return dict(zip(AMOUNTS, (int(each) for each in c.execute(query).one()), strict=True))


def put_export_class(c: Connection, name: str, models: Sequence[str], countries: Sequence[str]) -> None:
    """Sets an export class; one without models is taken away."""
    c.execute(EXPORT_CLASSES.delete().where(EXPORT_CLASSES.c.name == name))
    if models:
        values = {"card_models": json.dumps(sorted(models)), "countries": json.dumps(sorted(countries))}
        c.execute(EXPORT_CLASSES.insert().values(name=name, **values))


def export_classes(c: Connection) -> list[tuple[str, list[str], list[str]]]:
    """(name, card models, countries)."""
    query = select(EXPORT_CLASSES).order_by(EXPORT_CLASSES.c.name)
    return [(row.name, json.loads(row.card_models), json.loads(row.countries)) for row in c.execute(query)]


def put_country(c: Connection, tenant_id: str, country: str, verifier: str, evidence: str, expires_us: int) -> None:
    """A tenant's country as it was verified."""
    c.execute(COUNTRIES.delete().where(COUNTRIES.c.tenant_id == tenant_id))
    values = {"country": country, "verifier": verifier, "evidence_sha256": evidence, "expires_us": expires_us}
    c.execute(COUNTRIES.insert().values(tenant_id=tenant_id, **values))


def countries(c: Connection) -> dict[str, tuple[str, str, str, int]]:
    """(country, verifier, hash of the evidence, expiry) by tenant."""
    rows = c.execute(select(COUNTRIES))
    return {row.tenant_id: (row.country, row.verifier, row.evidence_sha256, row.expires_us) for row in rows}


def put_networks(c: Connection, found: Mapping[str, str | None]) -> None:
    """The operator's list of networks, anew: with a country, or None for a trusted proxy."""
    c.execute(NETWORKS.delete())
    if found:
        c.execute(NETWORKS.insert(), [{"cidr": cidr, "country": country} for cidr, country in found.items()])


def networks(c: Connection) -> dict[str, str | None]:
    """The operator's list of networks."""
    return {row.cidr: row.country for row in c.execute(select(NETWORKS).order_by(NETWORKS.c.cidr))}

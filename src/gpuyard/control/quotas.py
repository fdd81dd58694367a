"""Holds launches and starts against quotas, in the transaction that takes what they ask for."""

from __future__ import annotations

from sqlalchemy import Connection

from gpuyard.access.quotas import Quota, What, breaches
from gpuyard.control.launching_claims import Claim
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.units import NANO, format_size
from gpuyard.store import events, limits, policies


def take(c: Connection, workload_id: str, tenant_id: str, user: str, claim: Claim, now_us: int) -> None:
    """Counts a new workload. Raises YardError `quota_exceeded`."""
    _hold(c, workload_id, tenant_id, user, claim.amounts(), now_us)
    limits.claim(c, workload_id, tenant_id, user, claim.amounts())


def take_again(c: Connection, workload_id: str, tenant_id: str, now_us: int, claim: Claim | None = None) -> None:
    """Counts a workload that rested and shall run again; its disk has counted all the time. `claim`: what it counts for
    from now on, where that is something else than before.

    Raises YardError `quota_exceeded`.
    """
    known = limits.claim_of(c, workload_id)
    if known is not None:
        user, amounts = known
        amounts = amounts if claim is None else claim.amounts()
        _hold(c, workload_id, tenant_id, user, {**amounts, What.STORAGE.value: 0}, now_us)
        if claim is not None:
            limits.claim_anew(c, workload_id, amounts)


def _hold(c: Connection, workload_id: str, tenant_id: str, user: str, amounts: dict[str, int], now_us: int) -> None:
    every = limits.quotas(c, lock=True)
    if not every:
        return
    subjects = [("project", tenant_id), ("user", f"{tenant_id}/{user}")]
    organisation = policies.projects(c).get(tenant_id)
    if organisation is not None:
        subjects.append(("organisation", organisation))
    rows = [row for row in every if (row[0], row[1]) in subjects]
    quotas = [Quota(kind, subject, What(what), soft, hard) for kind, subject, what, soft, hard in rows]
    held = {
        (kind, subject): {What(name): amount for name, amount in limits.held(c, kind, subject).items()}
        for kind, subject in {(quota.kind, quota.subject) for quota in quotas}
    }
    found = breaches(quotas, held, {What(name): amount for name, amount in amounts.items()})
    for breach in found:
        quota = breach.quota
        if breach.hard:
            raise YardError(
                "quota_exceeded",
                subject=f"{quota.kind} {quota.subject}",
                what=quota.what.value,
                wanted=shown(quota.what, breach.wanted),
                limit=shown(quota.what, quota.hard or 0),
            )
    events.append(
        c,
        [
            Event(
                "quota.soft_reached",
                workload_id,
                now_us,
                tenant_id,
                data={
                    "kind": breach.quota.kind,
                    "subject": breach.quota.subject,
                    "what": breach.quota.what.value,
                    "held": breach.wanted,
                    "soft": breach.quota.soft,
                },
            )
            for breach in found
        ],
    )


def shown(what: What, amount: int) -> str:
    """An amount as a person reads it."""
    if what is What.CARDS:
        return f"{amount / 1_000_000:g}"
    if what is What.SPEND:
        return f"{amount / NANO:g}"
    return format_size(amount)

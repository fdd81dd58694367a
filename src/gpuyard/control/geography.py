"""Holds what is used against where it may be used: when it is asked for, when it is entered, and while it runs."""

from __future__ import annotations

from gpuyard.access.audit.entries import Entry
from gpuyard.access.geography import Refused, refusal
from gpuyard.control.atlas import Atlas, country_of, read_atlas
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import Desired, WorkloadSpec
from gpuyard.store import events, leases, workloads

LOOP = "geography"  # who the audit log says decided, where nobody asked
_RUNNING = frozenset({WorkloadState.PENDING, WorkloadState.STARTING, WorkloadState.RUNNING})


def models_of(yard: Yard, spec: WorkloadSpec) -> frozenset[str]:
    """The card models that it could come to run on: every one here, where it takes any."""
    if spec.slices.card_model is not None:
        return frozenset({spec.slices.card_model})
    return frozenset(card.model for card in yard.roster.cards)


def why_not(yard: Yard, atlas: Atlas, tenant_id: str, spec: WorkloadSpec, address: str | None) -> Refused | None:
    """Why a caller at this address may not use it for this tenant, or None."""
    residence = atlas.residences.get(tenant_id)
    country = country_of(atlas, address) if atlas.classes else None
    return refusal(atlas.classes, models_of(yard, spec), residence, country, yard.clock.now_us())


def stop_what_is_outside(yard: Yard, now_us: int) -> None:
    """Asks everything to stop that runs for a tenant whose country, as it is verified now, may not use its cards."""
    with yard.store.read() as c:
        atlas = read_atlas(c)
        if not atlas.classes:
            return
        running = [w for w in workloads.unsettled(c) if w.desired is Desired.RUN and w.state in _RUNNING]
        held = leases.of_workloads(c, [workload.id for workload in running])
    granted = {lease.workload_id: {cut.card_uuid for cut in lease.slices} for lease in held if lease.slices}
    for workload in running:
        cards = [yard.roster.card(uuid) for uuid in granted.get(workload.id, ())]
        models = frozenset(card.model for card in cards if card is not None) or models_of(yard, workload.spec)
        residence = atlas.residences.get(workload.tenant_id)
        refused = refusal(atlas.classes, models, residence, None, now_us, at_rest=True)
        if refused is None:
            continue
        with yard.authority.auditor.carried(), yard.store.write() as c:
            yard.authority.auditor.note(_entry(workload.tenant_id, workload.id, refused, now_us))
            params = {"why": refused.why, "export_class": refused.export_class}
            workloads.set_desired(c, workload.id, Desired.STOP, now_us)
            workloads.set_state(c, workload.id, WorkloadState.STOPPING, "outside_geography", params, None, now_us)
            data = {"name": workload.name, "reason": "outside_geography", **params}
            events.append(c, [Event("workload.stopping", workload.id, now_us, workload.tenant_id, data=data)])


def _entry(tenant_id: str, workload_id: str, refused: Refused, now_us: int) -> Entry:
    return Entry(
        at_us=now_us,
        tenant_id=tenant_id,
        user=LOOP,
        role="yard",
        token_id="--",  # noqa: S106 - nobody's
        action="gpuyard:KeepRunning",
        resource=f"arn:aws:ec2::{tenant_id}:instance/{workload_id}",
        allowed=False,
        because=refused.why,
        statements=(f"export-class/{refused.export_class}",),
    )

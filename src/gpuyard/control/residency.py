"""Holds data to the class of the regions where they were first written: when a workload is launched or started, and
once more when its disk and volumes are mounted."""

from __future__ import annotations

from gpuyard.access.audit.entries import Entry
from gpuyard.access.residency import Misplaced, class_of, misplaced
from gpuyard.control.atlas import Atlas
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease
from gpuyard.model.states import NodeState
from gpuyard.model.workloads import Workload, WorkloadSpec
from gpuyard.store import residency

LOOP = "residency"  # who the audit log says decided, where nobody asked


def data_of(spec: WorkloadSpec, disks: tuple[str, ...] = ()) -> list[str]:
    """What it keeps: its disks, and the volumes that it mounts."""
    return [*(f"disk/{disk}" for disk in disks), *sorted({f"volume/{mount.volume}" for mount in spec.mounts})]


def why_misplaced(
    yard: Yard, atlas: Atlas, tenant_id: str, spec: WorkloadSpec, workload_id: str | None = None
) -> Misplaced | None:
    """Why it may not use its data in every region that it could come to run in, or None."""
    if not atlas.residency:
        return None
    disks = () if workload_id is None else tuple(f"{workload_id}-{n}" for n in range(spec.replicas))
    data = data_of(spec, disks)
    with yard.store.read() as c:
        homes = residency.homes(c, tenant_id, data)
    model = spec.slices.card_model
    regions = {
        node.region
        for node in yard.roster.nodes
        if node.state is NodeState.READY and any(model in (None, card.model) for card in node.cards)
    }
    return misplaced(atlas.residency, homes, data, regions)


def settle_data(yard: Yard, lease: Lease, workload: Workload) -> None:
    """Disk and volumes are about to be mounted on the lease's node: those that are new belong there from now on.

    Raises YardError `outside_residency`, before anything was mounted.
    """
    atlas = yard.authority.atlas()
    if not atlas.residency:
        return
    region = next((node.region for node in yard.roster.nodes if node.name == lease.node), None)
    data, now_us = data_of(workload.spec, (lease.disk_name,)), yard.clock.now_us()
    auditor = yard.authority.auditor
    with auditor.carried(), yard.store.write(tells=False) as c:
        homes = residency.homes(c, lease.tenant_id, data)
        refused = misplaced(atlas.residency, homes, data, {region})
        auditor.note(_entry(lease, refused, class_of(atlas.residency, region) or "--", now_us))
        if refused is None and region is not None:
            fresh = [one for one in data if one not in homes]
            residency.settle(c, lease.tenant_id, fresh, class_of(atlas.residency, region) or "--", region, now_us)
    if refused is not None:
        raise error_of(refused)


def data_may_move(yard: Yard) -> bool:
    """Whether a disk may go to any node there is: a move looks for room, and not for regions."""
    classes = yard.authority.atlas().residency
    here = [node for node in yard.roster.nodes if node.state is not NodeState.LOST]
    return not classes or len({class_of(classes, node.region) for node in here}) == 1


def error_of(refused: Misplaced) -> YardError:
    """The refusal, in words."""
    return YardError(
        "outside_residency",
        data=refused.data,
        residency_class=refused.residency_class,
        region=refused.region,
        why=refused.why,
    )


def _entry(lease: Lease, refused: Misplaced | None, residency_class: str, now_us: int) -> Entry:
    return Entry(
        at_us=now_us,
        tenant_id=lease.tenant_id,
        user=LOOP,
        role="yard",
        token_id="--",  # noqa: S106 - nobody's
        action="gpuyard:MountData",
        resource=f"arn:aws:ec2::{lease.tenant_id}:instance/{lease.workload_id}",
        allowed=refused is None,
        because="own_class" if refused is None else refused.why,
        statements=(f"residency-class/{residency_class if refused is None else refused.residency_class}",),
    )

"""Which running leases may be moved: those that lose little by it, or whose tenant agreed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.states import LeaseState
from gpuyard.model.workloads import Desired, Workload, WorkloadKind

# A tenant's word that the yard may stop an instance and start it elsewhere, or (`no`) that it must not move a workload.
LABEL: Final = "gpuyard/movable"


def is_movable(lease: Lease, workload: Workload, open_leases: Sequence[Lease], idle: Collection[str]) -> bool:
    """A replica of a service while all of its others run, a job that saves its work, an instance whose tenant agreed
    and that is idle now (`idle`: workloads that their tenant's idle policy finds so).

    Never a gang, whose members would wait for the one that is moved, never spot, which is reclaimed instead, and
    never what holds no card or an instance of one (MIG).
    """
    spec = workload.spec
    said = spec.labels.get(LABEL, "").lower()
    steady = lease.state is LeaseState.ACTIVE and workload.desired is Desired.RUN and lease.reason is None
    in_an_instance = any(cut.mig is not None for cut in lease.slices)  # which stays where it was made
    if not steady or not lease.slices or in_an_instance:
        return False
    if spec.is_gang or said == "no" or spec.option is PurchaseOption.SPOT:
        return False
    if spec.kind is WorkloadKind.SERVICE:
        others = [x for x in open_leases if x.workload_id == workload.id and x.id != lease.id]
        return bool(others) and all(other.state is LeaseState.ACTIVE for other in others)
    if spec.kind is WorkloadKind.JOB:
        return bool(spec.checkpoint_command)
    return said == "yes" and workload.id in idle

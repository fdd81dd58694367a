"""Changing the labels of workloads: all of those named, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.store import events, workloads

MOST = 64


def relabel(
    yard: Yard, workload_ids: Sequence[str], change: Callable[[Mapping[str, str]], Mapping[str, str]], actor: str
) -> None:
    """Gives each its labels anew.

    Raises YardError `workload_not_found`, or `invalid_request` for more than MOST labels; nothing was changed then.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        for workload_id in dict.fromkeys(workload_ids):
            workload = workloads.get(c, workload_id)
            if workload is None:
                raise YardError("workload_not_found", workload=workload_id)
            labels = change(workload.spec.labels)
            if len(labels) > MOST:
                raise YardError("invalid_request", reason=f"{len(labels)} labels > {MOST}")
            workloads.set_labels(c, workload, labels, now_us)
            told = {"name": workload.name, "labels": len(labels)}
            events.append(c, [Event("workload.labelled", workload.id, now_us, workload.tenant_id, actor, told)])

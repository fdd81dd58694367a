"""When a workload has got where one waits for it."""

from __future__ import annotations

from gpuyard.model.errors import YardError
from gpuyard.sdk import types

_ENDED = frozenset({"succeeded", "failed", "removed"})
_AT_REST = frozenset({"running", "stopped"}) | _ENDED


def settled(workload: types.Workload, wanted: frozenset[str] | None) -> bool:
    """Whether it is in a wanted state; without one, whether it runs or rests.

    Raises YardError `workload_failed` where it has ended otherwise, and so will never get there.
    """
    state = workload["state"]
    if workload.get("reason") == "rebooting":
        return False  # its old unit may still run
    if state in (wanted if wanted is not None else _AT_REST):
        return True
    if state in _ENDED or (state == "stopped" and wanted is not None and workload["desired"] == "stop"):
        reason = workload["reason_text"] or state
        raise YardError("workload_failed", workload=workload["name"], reason=reason)
    return False

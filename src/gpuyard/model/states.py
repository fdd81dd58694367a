"""The state machines of the nouns, one table each. The drawings in the docs are generated from these tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gpuyard.model.errors import YardError


class NodeState(StrEnum):
    """READY takes leases; CORDONED keeps what it has; LOST is not heard of."""

    READY = "ready"
    CORDONED = "cordoned"
    LOST = "lost"


class CardState(StrEnum):
    """HEALTHY takes slices; CORDONED keeps what it has; MISSING was there and is not found any more."""

    HEALTHY = "healthy"
    CORDONED = "cordoned"
    MISSING = "missing"


class LeaseState(StrEnum):
    """REQUESTED waits for slices; GRANTED holds them while the unit starts; ACTIVE runs; STOPPED keeps only its disk;
    ENDED holds nothing."""

    REQUESTED = "requested"
    GRANTED = "granted"
    ACTIVE = "active"
    STOPPED = "stopped"
    ENDED = "ended"


class WorkloadState(StrEnum):
    """What a tenant sees of a workload: the sum of its leases and of what was asked for."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REMOVING = "removing"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class StateMachine:
    """A noun's states and every arrow between them: (from, why, to)."""

    noun: str
    initial: str
    arrows: tuple[tuple[str, str, str], ...]

    @property
    def states(self) -> tuple[str, ...]:
        """Every state, in the order in which the table names them."""
        seen = [self.initial]
        for source, _, target in self.arrows:
            seen += [source, target]
        return tuple(dict.fromkeys(seen))

    @property
    def final(self) -> frozenset[str]:
        """States that no arrow leaves."""
        return frozenset(self.states) - {source for source, _, _ in self.arrows}

    def allows(self, source: str, target: str) -> bool:
        """Whether an arrow leads from `source` to `target`. Staying is always allowed."""
        return source == target or any(a == source and b == target for a, _, b in self.arrows)

    def check(self, source: str, target: str) -> None:
        """Raises YardError `wrong_state` where no arrow leads from `source` to `target`."""
        if not self.allows(source, target):
            raise YardError("wrong_state", noun=self.noun, state=source, wanted=target)

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}"]
        lines += [f"    {source} --> {target}: {why}" for source, why, target in self.arrows]
        lines += [f"    {state} --> [*]" for state in self.states if state in self.final]
        return "\n".join(lines)


_N, _C, _L, _W = NodeState, CardState, LeaseState, WorkloadState

NODE: Final = StateMachine(
    "node",
    _N.READY,
    (
        (_N.READY, "operator cordons", _N.CORDONED),
        (_N.CORDONED, "operator uncordons", _N.READY),
        (_N.READY, "not heard of", _N.LOST),
        (_N.CORDONED, "not heard of", _N.LOST),
        (_N.LOST, "heard of again", _N.READY),
    ),
)

CARD: Final = StateMachine(
    "card",
    _C.HEALTHY,
    (
        (_C.HEALTHY, "operator cordons", _C.CORDONED),
        (_C.CORDONED, "operator uncordons", _C.HEALTHY),
        (_C.HEALTHY, "probe does not find it", _C.MISSING),
        (_C.CORDONED, "probe does not find it", _C.MISSING),
        (_C.MISSING, "probe finds it again", _C.HEALTHY),
    ),
)

LEASE: Final = StateMachine(
    "lease",
    _L.REQUESTED,
    (
        (_L.REQUESTED, "plan applied: slices held", _L.GRANTED),
        (_L.REQUESTED, "given up before slices were found", _L.ENDED),
        (_L.REQUESTED, "stopped while waiting", _L.STOPPED),
        (_L.GRANTED, "unit runs", _L.ACTIVE),
        (_L.GRANTED, "a card is gone before the unit ran, or reclaimed", _L.REQUESTED),
        (_L.GRANTED, "stopped before the unit ran", _L.STOPPED),
        (_L.GRANTED, "could not start, or given up", _L.ENDED),
        (_L.ACTIVE, "unit died or is rebooted, and is started again", _L.GRANTED),
        (_L.ACTIVE, "stopped; disk kept", _L.STOPPED),
        (_L.ACTIVE, "spot lease reclaimed: waits again", _L.REQUESTED),
        (_L.ACTIVE, "unit ended", _L.ENDED),
        (_L.STOPPED, "started again", _L.REQUESTED),
        (_L.STOPPED, "removed", _L.ENDED),
    ),
)

WORKLOAD: Final = StateMachine(
    "workload",
    _W.PENDING,
    (
        (_W.PENDING, "slices held", _W.STARTING),
        (_W.PENDING, "slices held and units run", _W.RUNNING),
        (_W.PENDING, "stop asked", _W.STOPPING),
        (_W.PENDING, "an instance ran and ended at once", _W.STOPPED),
        (_W.PENDING, "ran and ended with 0 at once", _W.SUCCEEDED),
        (_W.PENDING, "ran and ended badly at once", _W.FAILED),
        (_W.STARTING, "units run", _W.RUNNING),
        (_W.STARTING, "slices lost before a start", _W.PENDING),
        (_W.STARTING, "stop asked", _W.STOPPING),
        (_W.STARTING, "an instance ended by itself", _W.STOPPED),
        (_W.STARTING, "job ended with 0", _W.SUCCEEDED),
        (_W.STARTING, "could not start, or ended badly", _W.FAILED),
        (_W.RUNNING, "a unit died or is rebooted, and is started again", _W.STARTING),
        (_W.RUNNING, "a unit died and its card is gone, or was reclaimed", _W.PENDING),
        (_W.RUNNING, "stop asked", _W.STOPPING),
        (_W.RUNNING, "an instance ended by itself", _W.STOPPED),
        (_W.RUNNING, "ended with 0", _W.SUCCEEDED),
        (_W.RUNNING, "ended badly", _W.FAILED),
        (_W.STOPPING, "units are gone", _W.STOPPED),
        (_W.STOPPING, "ended with 0 meanwhile", _W.SUCCEEDED),
        (_W.STOPPING, "ended badly meanwhile", _W.FAILED),
        (_W.STOPPING, "start asked", _W.PENDING),
        (_W.STOPPED, "start asked", _W.PENDING),
        (_W.FAILED, "start asked", _W.PENDING),
        *(
            (state, "removal asked", _W.REMOVING)
            for state in (_W.PENDING, _W.STARTING, _W.RUNNING, _W.STOPPING, _W.STOPPED, _W.SUCCEEDED, _W.FAILED)
        ),
        (_W.REMOVING, "units and disks are gone", _W.REMOVED),
    ),
)

MACHINES: Final = (NODE, CARD, LEASE, WORKLOAD)

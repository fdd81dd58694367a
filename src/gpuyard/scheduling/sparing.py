"""Whom a plan to reclaim can spare: the scheduler is asked again without each of the victims. Pure.

Most victims cannot be spared, which counting shows: without them the nodes have too few places for the gang, however it
is placed. The scheduler is asked only about the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from gpuyard.scheduling.gangs import slots
from gpuyard.scheduling.plan import NodeView, Scheduler, Snapshot
from gpuyard.scheduling.queue import Gang
from gpuyard.scheduling.running import Running, released


def spare(
    scheduler: Scheduler,
    snapshot: Snapshot,
    gang: Gang,
    victims: Sequence[str],
    leases: Mapping[str, Sequence[Running]],
    now_us: int,
) -> list[str] | None:
    """The victims without which the scheduler itself would not place the gang, in the order given; None where it would
    not even with all gone. Those first in `victims` are spared first."""
    left = _Left(snapshot, gang, {name: leases[name] for name in victims})

    def fits() -> bool:
        return not scheduler.plan(left.snapshot, gang.members, now_us).refusals

    if not fits():
        return None
    for name in victims:
        left.keep(name)
        if not left.has_room() or not fits():
            left.let_go(name)
    return list(left.gone)


class _Left:
    """The fleet without those who go."""

    def __init__(self, snapshot: Snapshot, gang: Gang, gone: dict[str, Sequence[Running]]) -> None:
        self.gone = gone
        self._gang, self._before = gang, {node.name: node for node in snapshot.nodes}
        self._on: dict[str, dict[str, list[Running]]] = defaultdict(lambda: defaultdict(list))
        for name, mine in gone.items():
            for lease in mine:
                if lease.node in self._before:
                    self._on[lease.node][name].append(lease)
        self.snapshot = snapshot
        self._kept: dict[str, Sequence[Running]] = {}
        self._slots: dict[str, int] = {}
        self._renew(list(self._before))

    def keep(self, name: str) -> None:
        """This one stays after all."""
        self._kept[name] = self.gone.pop(name)
        self._renew([lease.node for lease in self._kept[name]])

    def let_go(self, name: str) -> None:
        """This one goes, after those that go already."""
        self.gone[name] = self._kept.pop(name)
        self._renew([lease.node for lease in self.gone[name]])

    def has_room(self) -> bool:
        """Whether the nodes have places for all members, counted so that there are never fewer than in truth."""
        head = self._gang.head
        alike = all(
            (member.shape, member.count, member.card_model, member.cpu_milli, member.memory_bytes, member.mode)
            == (head.shape, head.count, head.card_model, head.cpu_milli, head.memory_bytes, head.mode)
            for member in self._gang.members
        )
        return not alike or sum(self._slots.values()) >= len(self._gang.members)

    def _renew(self, names: Sequence[str]) -> None:
        changed: dict[str, NodeView] = {}
        for name in dict.fromkeys(names):
            if name in self._before:
                gone = [lease for who, mine in self._on[name].items() if who in self.gone for lease in mine]
                alone = Snapshot(0, (self._before[name],))
                changed[name] = released(alone, gone).nodes[0]
                self._slots[name] = slots(changed[name], self._gang.head)
        self.snapshot = self.snapshot.with_nodes(changed)

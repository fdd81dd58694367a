"""Whole cards at peak, shared ones while load is low: a policy over any scheduler. Pure.

In the operator's window slices share cards, as tightly as the inner scheduler packs them. Outside of it a lease that is
not spot gets cards that nothing else is on, for as long as there are any; where there are none, it shares rather than
waits. Spot joins no card of a paying lease then, and waits where nothing else is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gpuyard.scheduling.plan import Learning, NodeView, Placement, Plan, Refusal, Request, Scheduler, Snapshot
from gpuyard.scheduling.windows import Window

_ALONE: Final = "exclusive"


class WholeAtPeak:
    """See `Scheduler`. `sharing`: when cards are shared; the rest of the day is peak."""

    def __init__(self, inner: Scheduler, sharing: Window) -> None:
        self.inner = inner
        self.sharing = sharing

    @property
    def name(self) -> str:
        """The inner scheduler's."""
        return self.inner.name

    def having_seen(self, requests: Sequence[Request]) -> WholeAtPeak:
        """With an inner scheduler that knows of these arrivals too, where it learns."""
        inner = self.inner.having_seen(requests) if isinstance(self.inner, Learning) else self.inner
        return WholeAtPeak(inner, self.sharing)

    def plan(self, snapshot: Snapshot, requests: Sequence[Request], now_us: int) -> Plan:
        """See `Scheduler.plan`."""
        if self.sharing.holds(now_us):
            return self.inner.plan(snapshot, requests, now_us)
        return _Day(self.inner, snapshot, now_us).run(requests)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What two requests have in common of which one is refused wherever the other is."""

    spot: bool
    request: Request

    @classmethod
    def of(cls, members: Sequence[Request]) -> tuple[_Kind, ...]:
        return tuple(
            cls(
                each.spot,
                Request(
                    "",
                    each.shape,
                    each.count,
                    each.card_model,
                    each.cpu_milli,
                    each.memory_bytes,
                    mode=each.mode,
                    instances=each.instances,
                ),
            )
            for each in members
        )


class _Day:
    """One plan at peak in the making."""

    def __init__(self, inner: Scheduler, snapshot: Snapshot, now_us: int) -> None:
        self._inner = inner
        self._snapshot = snapshot
        self._version = snapshot.version
        self._now_us = now_us
        self._short: set[tuple[_Kind, ...]] = set()  # kinds for which no cards of their own are left
        self._placements: list[Placement] = []
        self._refusals: list[Refusal] = []

    def run(self, requests: Sequence[Request]) -> Plan:
        """Gangs stay whole: each is planned as one. What follows each other and goes the same way is planned together,
        so a long queue costs little."""
        gangs = _gangs(requests)
        while gangs:
            way = self._way(gangs[0])
            together: list[tuple[Request, ...]] = []
            while gangs and self._way(gangs[0]) == way:
                together.append(gangs.pop(0))
            gangs[:0] = self._plan(way, together)
        return Plan(self._version, tuple(self._placements), tuple(self._refusals))

    def _way(self, gang: Sequence[Request]) -> str:
        if gang[0].spot:
            return "spot"
        return "shared" if _Kind.of(gang) in self._short or gang[0].mode != "shared" else "alone"

    def _plan(self, way: str, gangs: Sequence[tuple[Request, ...]]) -> list[tuple[Request, ...]]:
        """Plans these; those that have to be planned another way after all, in their order."""
        flat = [request for gang in gangs for request in gang]
        asked = [replace(request, mode=_ALONE) for request in flat] if way == "alone" else flat
        plan = self._inner.plan(_kept(self._snapshot) if way == "spot" else self._snapshot, asked, self._now_us)
        refused = {refusal.lease_id for refusal in plan.refusals}
        if way != "alone" or not refused:
            self._commit(plan.placements, asked, way)
            self._refusals += plan.refusals
            return []
        # From the first that found no card of its own on, the order of the queue is kept: it may share before others
        # are asked.
        first = next(at for at, gang in enumerate(gangs) if any(each.lease_id in refused for each in gang))
        self._short.add(_Kind.of(gangs[first]))
        before = {request.lease_id for gang in gangs[:first] for request in gang}
        self._commit([placed for placed in plan.placements if placed.lease_id in before], asked, way)
        return list(gangs[first:])

    def _commit(self, placements: Sequence[Placement], asked: Sequence[Request], way: str) -> None:
        requests = {request.lease_id: request for request in asked}
        nodes: dict[str, NodeView] = {node.name: node for node in self._snapshot.nodes}
        changed: dict[str, NodeView] = {}
        for placed in placements:
            request = requests[placed.lease_id]
            if way == "alone":  # it may be shared once there is none left: it is not exclusive for good
                request = replace(request, mode="shared")
            node = changed.get(placed.node, nodes[placed.node])
            changed[placed.node] = node.taking(placed.card_uuids, request, placed.mig)
            terms = {**placed.terms, "sharing": "alone"} if way == "alone" and placed.mig is None else placed.terms
            self._placements.append(replace(placed, terms=terms))
        self._snapshot = self._snapshot.with_nodes(changed)


def _gangs(requests: Sequence[Request]) -> list[tuple[Request, ...]]:
    """Members of a group that follow each other, together."""
    found: list[list[Request]] = []
    for request in requests:
        if found and request.group is not None and found[-1][-1].group == request.group:
            found[-1].append(request)
        else:
            found.append([request])
    return [tuple(gang) for gang in found]


def _kept(snapshot: Snapshot) -> Snapshot:
    """The fleet for spot: cards of paying leases take nobody else."""
    changed = {
        node.name: replace(
            node, cards=tuple(replace(card, mode=_ALONE) if card.paid else card for card in node.cards)
        )
        for node in snapshot.nodes
        if any(card.paid for card in node.cards)
    }  # fmt: skip
    return snapshot.with_nodes(changed)

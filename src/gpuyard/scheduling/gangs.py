"""Gangs and near cards over any scheduler: requests of one group are placed together or not at all. Pure.

A gang goes where its members are nearest: on one NVLink island, else on one node, else in one rack, else anywhere.
Where several places of a sort would do, the fullest is taken, so that large empty ones stay for what needs them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling import topology
from gpuyard.scheduling.plan import (
    Learning,
    NodeView,
    Placement,
    Plan,
    Refusal,
    Request,
    Scheduler,
    Shortfall,
    Snapshot,
    Weighing,
)

MAX_DOMAINS: Final = 64  # places of a sort that are tried for one gang


@dataclass(slots=True)
class _Draft:
    """The fleet as it is once what was placed so far is taken."""

    snapshot: Snapshot
    now_us: int
    placements: list[Placement] = field(default_factory=list[Placement])
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    # Placing only ever takes: a gang like one that was refused is refused too, so a long queue costs little.
    refused: dict[object, list[Refusal]] = field(default_factory=dict[object, "list[Refusal]"])


class Gangs:
    """Places single requests as `inner` does, and several cards or several members by topology."""

    def __init__(self, inner: Scheduler) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """The inner scheduler's."""
        return self.inner.name

    def having_seen(self, requests: Sequence[Request]) -> Gangs:
        """With an inner scheduler that knows of these arrivals too, where it learns."""
        return Gangs(self.inner.having_seen(requests)) if isinstance(self.inner, Learning) else self

    def plan(self, snapshot: Snapshot, requests: Sequence[Request], now_us: int) -> Plan:
        """See `Scheduler.plan`. Members of a group that do not follow each other are separate gangs."""
        draft = _Draft(snapshot, now_us)
        for (group, single), members in groupby(requests, key=lambda request: (request.group, _single(request))):
            each = tuple(members)
            if single:
                self._place_singles(draft, each)
            elif group is None and isinstance(self.inner, Weighing) and self.inner.weighs_topology:
                for request in each:
                    self._place_weighed(draft, request)
            elif group is None:
                for request in each:
                    self._place_gang(draft, (request,))
            else:
                self._place_gang(draft, each)
        return Plan(snapshot.version, tuple(draft.placements), tuple(draft.refusals))

    def _place_singles(self, draft: _Draft, requests: Sequence[Request]) -> None:
        plan = self.inner.plan(draft.snapshot, requests, draft.now_us)
        _commit(draft, plan.placements, {request.lease_id: request for request in requests}, "any")
        draft.refusals += plan.refusals

    def _place_weighed(self, draft: _Draft, request: Request) -> None:
        """Several cards of one node, where how near they are is weighed with all else: the inner scheduler decides."""
        kind = (_kind(request),)
        if (known := draft.refused.get(kind)) is not None:
            draft.refusals.append(replace(known[0], lease_id=request.lease_id))
            return
        plan = self.inner.plan(draft.snapshot, (request,), draft.now_us)
        if plan.refusals:
            draft.refused[kind] = list(plan.refusals)
            draft.refusals += plan.refusals
            return
        (placed,) = plan.placements
        node = next(node for node in draft.snapshot.nodes if node.name == placed.node)
        nearest = _nearest(node, request, placed)
        if topology.farthest(node, nearest.card_uuids) < topology.farthest(node, placed.card_uuids):
            placed = nearest
        level = "island" if topology.on_one_island(node, placed.card_uuids) else "node"
        _commit(draft, (placed,), {request.lease_id: request}, level)

    def _place_gang(self, draft: _Draft, members: Sequence[Request]) -> None:
        kind = tuple(_kind(member) for member in members)
        if (known := draft.refused.get(kind)) is not None:
            draft.refusals += [replace(r, lease_id=m.lease_id) for r, m in zip(known, members, strict=True)]
            return
        by_id = {member.lease_id: member for member in members}
        tried: Plan | None = None
        for level, nodes in _domains(draft.snapshot, members):
            part = replace(draft.snapshot, nodes=nodes)
            tried = _together(part, members) or self._near(part, members, draft.now_us)
            if not tried.refusals:
                _commit(draft, tried.placements, by_id, level)
                return
        refused = {refusal.lease_id: refusal for refusal in (tried.refusals if tried else ())}
        first = next(iter(refused.values()), None)
        if first is None:
            raise AssertionError("the last place is the whole fleet, and it refused")
        draft.refused[kind] = [
            replace(_for_gang(refused.get(member.lease_id, first), len(members), tried), lease_id=member.lease_id)
            for member in members
        ]
        draft.refusals += draft.refused[kind]

    def _near(self, snapshot: Snapshot, members: Sequence[Request], now_us: int) -> Plan:
        """One member after the other; what the inner scheduler chose on a node is moved to the nearest cards there."""
        nodes = {node.name: node for node in snapshot.nodes}
        placements: list[Placement] = []
        if all(member.count == 1 for member in members):
            return self.inner.plan(snapshot, members, now_us)
        for member in members:
            plan = self.inner.plan(snapshot, (member,), now_us)
            if plan.refusals:
                return Plan(snapshot.version, tuple(placements), plan.refusals)
            placed = _nearest(nodes[plan.placements[0].node], member, plan.placements[0])
            nodes[placed.node] = nodes[placed.node].taking(placed.card_uuids, member, placed.mig)
            snapshot = snapshot.with_nodes({placed.node: nodes[placed.node]})
            placements.append(placed)
        return Plan(snapshot.version, tuple(placements), ())


def _kind(member: Request) -> tuple[object, ...]:
    return (
        member.shape, member.count, member.card_model, member.cpu_milli, member.memory_bytes, member.mode,
        member.instances,
    )  # fmt: skip


def _single(request: Request) -> bool:
    return request.group is None and request.count == 1


def _commit(draft: _Draft, placements: Sequence[Placement], by_id: dict[str, Request], level: str) -> None:
    """Takes what was placed out of the draft and writes down what spoke for it."""
    nodes = {node.name: node for node in draft.snapshot.nodes} if placements else {}
    changed: dict[str, NodeView] = {}
    for placed in placements:
        node = changed.get(placed.node, nodes.get(placed.node))
        if node is None:
            raise ValueError(f"the scheduler named a node that is not there: {placed.node}")
        terms: dict[str, object] = {**placed.terms}
        if level != "any":
            terms["domain"] = level
        if (link := topology.worst_link(node, placed.card_uuids)) is not None:
            terms["worst_link"] = link
        draft.placements.append(replace(placed, terms=terms, cpus=topology.near_cpus(node, placed.card_uuids)))
        changed[placed.node] = node.taking(placed.card_uuids, by_id[placed.lease_id], placed.mig)
    draft.snapshot = draft.snapshot.with_nodes(changed)


def _nearest(node: NodeView, request: Request, placed: Placement) -> Placement:
    """The same node, with the cards that are nearest to each other among those that hold the request."""
    if request.count < 2 or node.topology is None:
        return placed
    wanted = set(placed.card_uuids)
    model = next(card.model for card in node.cards if card.uuid in wanted)
    fitting = [card for card in node.cards if card.takes(request) and card.model == model]
    chosen = topology.choose_cards(node, fitting, request.count)
    return replace(placed, card_uuids=tuple(card.uuid for card in chosen)) if len(chosen) == request.count else placed


def _together(snapshot: Snapshot, members: Sequence[Request]) -> Plan | None:
    """All members on one node, each on cards of its own: the nearest cards for all of them, parted into the nearest for
    each. None where the members may share cards, or do not fit: then the scheduler itself says where they go."""
    head = members[0]
    alone = 2 * head.shape.compute_ppm > SHARE_WHOLE_PPM and all(_like(member, head) for member in members)
    if len(snapshot.nodes) != 1 or len(members) < 2 or not alone:
        return None
    node = snapshot.nodes[0]
    if slots(node, head) < len(members) or node.topology is None:
        return None
    fitting = [card for card in node.cards if card.takes(head)]
    if len({card.model for card in fitting}) > 1:
        return None
    left = list(topology.choose_cards(node, fitting, head.count * len(members)))
    placements: list[Placement] = []
    for member in members:
        mine = topology.choose_cards(node, left, member.count)
        left = [card for card in left if card not in mine]
        placements.append(Placement(member.lease_id, node.name, tuple(card.uuid for card in mine), "nearest"))
    return Plan(snapshot.version, tuple(placements), ())


def _like(member: Request, head: Request) -> bool:
    return _kind(member) == _kind(head)


def slots(node: NodeView, request: Request) -> int:
    """How many requests like this one the node could take now, if each got whole turns: never less than the truth."""
    if not node.schedulable:
        return 0
    shape = request.shape
    cards = sum(
        1
        if request.mode == "exclusive"
        else min(card.memory_free_bytes // shape.memory_bytes, card.compute_free_ppm // shape.compute_ppm)
        for card in node.cards
        if card.takes(request)
    )
    most = cards // request.count
    if request.cpu_milli:
        most = min(most, node.cpu_free_milli // request.cpu_milli)
    if request.memory_bytes:
        most = min(most, node.memory_free_bytes // request.memory_bytes)
    return max(0, most)


def _domains(snapshot: Snapshot, members: Sequence[Request]) -> Iterator[tuple[str, tuple[NodeView, ...]]]:
    """The places where the gang might go, nearest first: (level, nodes as the gang may see them)."""
    head, wanted = members[0], len(members)
    room = {node.name: slots(node, head) for node in snapshot.nodes}
    alone = sorted((n for n in snapshot.nodes if room[n.name] >= wanted), key=lambda n: (room[n.name], n.name))
    if wanted * head.count > 1:
        islands = [(slots(part, head), part) for node in alone[:MAX_DOMAINS] for part in _islands(node)]
        for _, part in sorted((x for x in islands if x[0] >= wanted), key=lambda x: (x[0], x[1].name)):
            yield "island", (part,)
    for node in alone[:MAX_DOMAINS]:
        yield "node", (node,)
    if wanted > 1:
        yield from _racks(snapshot, room, wanted)
    usable = tuple(node for node in snapshot.nodes if room[node.name]) if wanted > 1 else snapshot.nodes
    if sum(room.values()) < wanted:
        usable = snapshot.nodes  # refused anyway: every node is to say what it lacks
    yield "fleet", usable


def _racks(snapshot: Snapshot, room: dict[str, int], wanted: int) -> Iterator[tuple[str, tuple[NodeView, ...]]]:
    racks: dict[str, list[NodeView]] = defaultdict(list)
    for node in snapshot.nodes:
        if node.rack is not None and room[node.name]:
            racks[node.rack].append(node)
    sized = sorted((sum(room[node.name] for node in nodes), rack) for rack, nodes in racks.items())
    for total, rack in [x for x in sized if x[0] >= wanted][:MAX_DOMAINS]:
        del total
        yield "rack", tuple(racks[rack])


def _islands(node: NodeView) -> Iterator[NodeView]:
    """The node as if it had only the cards of one of its NVLink islands."""
    if node.topology is None:
        return
    for island in node.topology.islands():
        if len(island) > 1:
            names = {node.topology.devices[device] for device in island}
            yield replace(node, cards=tuple(card for card in node.cards if card.pci_address in names))


def _for_gang(refusal: Refusal, members: int, tried: Plan | None) -> Refusal:
    """What a refused gang is told: how many of its members there was room for, then what each node lacked."""
    if members == 1:
        return refusal
    placed = len(tried.placements) if tried else 0
    lack = Shortfall("--", "gang", {"members": members, "fit": placed})
    return replace(refusal, shortfalls=(lack, *refusal.shortfalls))

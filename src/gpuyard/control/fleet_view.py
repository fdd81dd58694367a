"""The fleet as a scheduler sees it, kept from one plan to the next: only nodes that have changed are made anew.

Nodes that are as they were are the same values again, by which whoever plans knows what it need not look at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from gpuyard.control.waiting import HOLDING, RunningView
from gpuyard.model.fleet import Card, Node
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.mig import MigCard, MigCut
from gpuyard.model.states import CardState, NodeState
from gpuyard.model.workloads import Workload
from gpuyard.scheduling.plan import CardView, NodeView, Snapshot
from gpuyard.store import fleet, leases, moves
from gpuyard.store.moves import Move

# A lease, how it shares cards, and the CPUs (milli) and bytes of memory that it holds of its node.
_Held = tuple[Lease, str, int, int]


@dataclass(slots=True)
class FleetView:
    """What was seen last. A new one sees everything anew; what it tells is the same."""

    running: RunningView = field(default_factory=RunningView)
    _seen: dict[str, _Held] = field(default_factory=dict[str, _Held])
    _on: dict[str, dict[str, _Held]] = field(default_factory=lambda: defaultdict[str, dict[str, _Held]](dict))
    _used: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])  # by card: bytes and ppm
    _instances: Mapping[str, tuple[MigCut, ...]] = field(default_factory=dict[str, tuple[MigCut, ...]])  # by card
    _moves: Mapping[str, Move] = field(default_factory=dict[str, Move])
    _nodes: dict[str, tuple[Node, NodeView]] = field(default_factory=dict[str, tuple[Node, NodeView]])

    def take(
        self,
        c: Connection,
        nodes: Sequence[Node],
        open_leases: Iterable[Lease],
        workloads: Mapping[str, Workload],
        prices_nano: Mapping[str, int],
    ) -> Snapshot:
        """The fleet now, from one reading of the store."""
        on_their_way = moves.under_way(c)
        used, instances = _with_moves(leases.usage(c), on_their_way), leases.instances(c)
        stale = self._renew_leases(open_leases, workloads)
        stale |= {move.held.node for move in (*self._moves.values(), *on_their_way.values())}
        cards = {uuid for uuid in used.keys() | self._used.keys() if used.get(uuid) != self._used.get(uuid)}
        cards |= {u for u in instances.keys() | self._instances.keys() if instances.get(u) != self._instances.get(u)}
        self._used, self._instances, self._moves = used, instances, on_their_way
        kept, self._nodes = self._nodes, {}
        for node in nodes:
            before = kept.get(node.name)
            same = before is not None and (before[0] is node or before[0] == node) and node.name not in stale
            if before is None or not same or any(card.uuid in cards for card in node.cards):
                before = node, self._view_of(node)
            self._nodes[node.name] = before
        return Snapshot(fleet.version(c), tuple(view for _, view in self._nodes.values()), prices_nano)

    def _renew_leases(self, open_leases: Iterable[Lease], workloads: Mapping[str, Workload]) -> set[str]:
        """The names of nodes with leases that came, changed or went."""
        stale: set[str] = set()
        before, self._seen = self._seen, {}
        for lease in open_leases:
            workload = workloads[lease.workload_id]
            known = before.pop(lease.id, None)
            held = lease, workload.spec.slices.sharing.value, workload.cpu_milli, workload.memory_bytes
            if known is not None and known[0] is lease and known[1:] == held[1:]:
                self._seen[lease.id] = known
                continue
            self._forget(known, stale)
            self._seen[lease.id] = held
            if lease.state in HOLDING and lease.node is not None:
                self._on[lease.node][lease.id] = held
                stale.add(lease.node)
        for gone in before.values():
            self._forget(gone, stale)
        return stale

    def _forget(self, known: _Held | None, stale: set[str]) -> None:
        if known is not None and known[0].node is not None and self._on[known[0].node].pop(known[0].id, None):
            stale.add(known[0].node)

    def _view_of(self, node: Node) -> NodeView:
        cpu_milli = memory_bytes = 0
        paid: set[str] = set()
        modes: dict[str, str] = {}
        for lease, mode, cpu_held_milli, bytes_held in self._on[node.name].values():
            modes.update((cut.card_uuid, mode) for cut in lease.slices)
            if lease.option is not PurchaseOption.SPOT:
                paid.update(cut.card_uuid for cut in lease.slices)
            cpu_milli += cpu_held_milli
            memory_bytes += bytes_held
        for move in self._moves.values():
            if move.held.node == node.name:
                cpu_milli += move.cpu_milli
                memory_bytes += move.memory_bytes
                if move.lease_id in self._seen:
                    modes.update(dict.fromkeys(move.held.uuids, self._seen[move.lease_id][1]))
        return NodeView(
            name=node.name,
            cpu_free_milli=node.cpu_milli - cpu_milli,
            memory_free_bytes=node.memory_bytes - memory_bytes,
            cards=tuple(
                _card_view(card, self._used.get(card.uuid, (0, 0)), card.uuid in paid, modes.get(card.uuid))
                if card.mig is None
                else _mig_view(card, card.mig, self._used.get(card.uuid, (0, 0)), self._instances.get(card.uuid, ()))
                for card in node.cards
            ),
            schedulable=node.state is NodeState.READY,
            rack=node.rack,
            topology=node.topology,
        )


def _with_moves(used: dict[str, tuple[int, int]], on_their_way: Mapping[str, Move]) -> dict[str, tuple[int, int]]:
    """What leases hold of each card, and the places that moves hold beside them."""
    for uuid, (bytes_held, ppm_held) in moves.held(on_their_way.values()).items():
        of_leases = used.get(uuid, (0, 0))
        used[uuid] = of_leases[0] + bytes_held, of_leases[1] + ppm_held
    return used


def _card_view(card: Card, used: tuple[int, int], paid: bool, mode: str | None) -> CardView:
    return CardView(
        uuid=card.uuid,
        model=card.model,
        memory_bytes=card.memory_bytes,
        memory_free_bytes=card.memory_bytes - used[0],
        compute_free_ppm=1_000_000 - used[1],
        schedulable=card.state is CardState.HEALTHY,
        pci_address=card.pci_address,
        mode=mode,
        paid=paid,
    )


def _mig_view(card: Card, mig: MigCard, used: tuple[int, int], held: Sequence[MigCut]) -> CardView:
    """A card in MIG mode, with what is on it: instances of leases, and those of others, which are there already. What a
    lease holds of it in another way is of a time before the mode: until it ends, nothing can be made of the card."""
    view = _card_view(card, used, False, None)
    for place in mig.taken:
        if (profile := mig.profile(place.profile_id)) is not None:
            shape = mig.shape(profile)
            view = replace(
                view,
                memory_free_bytes=view.memory_free_bytes - shape.memory_bytes,
                compute_free_ppm=view.compute_free_ppm - shape.compute_ppm,
            )
    view = replace(
        view, mig=replace(mig, taken=(*mig.taken, *(cut.place for cut in held if cut.place not in mig.taken)))
    )
    shapes = [mig.shape(p) for cut in held if (p := mig.profile(cut.place.profile_id)) is not None]
    if sum(shape.memory_bytes for shape in shapes) != used[0]:
        view = replace(view, schedulable=False)
    return view

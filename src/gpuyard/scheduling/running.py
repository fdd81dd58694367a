"""What a scheduler needs to know of leases that hold slices already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpuyard.model.mig import MigCut
from gpuyard.model.slices import SliceShape
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.plan import CardView, NodeView, Snapshot


@dataclass(frozen=True, slots=True)
class Running:
    """A lease that holds slices. `ends_us`: when it ends at the latest, by its time limit or by the notice it got;
    None where nobody knows."""

    lease_id: str
    gang: str  # the workload: spot leases of one are reclaimed together
    tenant_id: str
    node: str
    card_uuids: tuple[str, ...]
    shape: SliceShape
    cpu_milli: int
    memory_bytes: int
    priority: int = 0
    spot: bool = False
    started_us: int = 0  # when this attempt began to run, or was granted
    checkpoint_us: int | None = None  # when its work was last safe
    reclaimed_us: int | None = None  # when its gang was last reclaimed
    noticed: bool = False  # it was told to go already
    ends_us: int | None = None
    mode: str = "shared"
    mig: MigCut | None = None  # what backs its one slice, where that is a MIG instance


def released(snapshot: Snapshot, gone: Iterable[Running]) -> Snapshot:
    """The fleet once these leases have given everything back. Leases on nodes that are not there give nothing."""
    by_node: dict[str, list[Running]] = defaultdict(list)
    for lease in gone:
        by_node[lease.node].append(lease)
    return snapshot.with_nodes({node.name: _without(node, by_node[node.name]) for node in _of(snapshot, by_node)})


def _of(snapshot: Snapshot, names: Mapping[str, object]) -> list[NodeView]:
    return [node for node in snapshot.nodes if node.name in names]


def _without(node: NodeView, gone: list[Running]) -> NodeView:
    memory: dict[str, int] = defaultdict(int)
    compute: dict[str, int] = defaultdict(int)
    cuts: dict[str, list[MigCut]] = defaultdict(list)
    for lease in gone:
        for uuid in lease.card_uuids:
            if lease.mig is not None:
                cuts[uuid].append(lease.mig)
                continue
            memory[uuid] += lease.shape.memory_bytes
            compute[uuid] += lease.shape.compute_ppm
    return replace(
        node,
        cpu_free_milli=node.cpu_free_milli + sum(lease.cpu_milli for lease in gone),
        memory_free_bytes=node.memory_free_bytes + sum(lease.memory_bytes for lease in gone),
        cards=tuple(
            _given(_uncut(card, cuts[card.uuid]), memory[card.uuid], compute[card.uuid])
            if card.uuid in compute or card.uuid in cuts
            else card
            for card in node.cards
        ),
    )


def _uncut(card: CardView, cuts: Iterable[MigCut]) -> CardView:
    for cut in cuts if card.mig is not None else ():
        card = card.without_instance(cut)
    return card


def _given(card: CardView, memory_bytes: int, compute_ppm: int) -> CardView:
    free = card.memory_free_bytes + memory_bytes, card.compute_free_ppm + compute_ppm
    empty = free[0] >= card.memory_bytes and free[1] >= SHARE_WHOLE_PPM
    mode, paid = (None, False) if empty else (card.mode, card.paid)
    return replace(card, memory_free_bytes=free[0], compute_free_ppm=free[1], mode=mode, paid=paid)

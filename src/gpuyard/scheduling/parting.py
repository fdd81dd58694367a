"""Leases that came to share a card at night get whole cards by day, where they may be moved and cards are empty. Pure.

Whoever pays and shares a card with anybody is given empty cards of the same model, one lease after the other, until
each card is one lease's own. What may not be moved stays, and the others go from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from gpuyard.scheduling.plan import Request, Scheduler, Snapshot
from gpuyard.scheduling.relocating import Allowed, Relocation
from gpuyard.scheduling.running import Running

_TRIES: Final = 200  # leases for which cards are looked for in one plan


def part(
    scheduler: Scheduler,
    snapshot: Snapshot,
    running: Sequence[Running],
    movable: Collection[str],
    most: int,
    allowed: Allowed,
    now_us: int,
) -> tuple[Relocation, ...]:
    """The moves, at most `most`, each to cards that are empty now. `scheduler` says to which; it is asked for cards
    that a lease has to itself."""
    models = {card.uuid: card.model for node in snapshot.nodes for card in node.cards}
    on_card: dict[str, dict[str, Running]] = defaultdict(dict)
    for lease in running:
        for uuid in lease.card_uuids:
            on_card[uuid][lease.lease_id] = lease
    found: list[Relocation] = []
    nowhere: set[tuple[object, ...]] = set()
    for lease in _who_share(running, on_card, movable)[:_TRIES]:
        if len(found) >= max(0, most):
            break
        request = _alone(lease, models)
        kind = (request.shape, request.count, request.card_model, request.cpu_milli, request.memory_bytes)
        shares = any(len(on_card[uuid]) > 1 for uuid in lease.card_uuids)
        if not shares or kind in nowhere or not allowed([*(move.lease_id for move in found), lease.lease_id]):
            continue
        placed = next(iter(scheduler.plan(snapshot, [request], now_us).placements), None)
        if placed is None:
            nowhere.add(kind)
            continue
        found.append(Relocation(lease.lease_id, placed.node, placed.card_uuids))
        for uuid in lease.card_uuids:
            del on_card[uuid][lease.lease_id]
        node = next(node for node in snapshot.nodes if node.name == placed.node)
        snapshot = snapshot.with_nodes({node.name: node.taking(placed.card_uuids, request)})
    return tuple(found)


def _who_share(
    running: Sequence[Running], on_card: Mapping[str, Mapping[str, Running]], movable: Collection[str]
) -> list[Running]:
    """Those that may be moved apart: first from cards that few share, where a move or two make two leases whole; there
    the smallest first."""

    def crowd(lease: Running) -> int:
        return max(len(on_card[uuid]) for uuid in lease.card_uuids)

    sharing = [
        lease
        for lease in running
        if lease.lease_id in movable and not lease.spot and lease.mode == "shared" and lease.card_uuids
    ]
    return sorted(
        (lease for lease in sharing if crowd(lease) > 1),
        key=lambda lease: (crowd(lease), lease.shape.compute_ppm * len(lease.card_uuids), lease.lease_id),
    )


def _alone(lease: Running, models: Mapping[str, str]) -> Request:
    """A lease stays on the model that it is on, which its price was set for."""
    asked = Request(
        lease.lease_id, lease.shape, len(lease.card_uuids), models.get(lease.card_uuids[0]), lease.cpu_milli,
        lease.memory_bytes, tenant_id=lease.tenant_id,
    )  # fmt: skip
    return replace(asked, mode="exclusive")

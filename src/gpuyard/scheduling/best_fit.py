"""Best fit: the cards that are left with least, on the node that is left with fewest free whole cards broken.

The first scheduler of a yard. A richer one implements the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from heapq import nsmallest

from gpuyard.model.slices import SliceShape
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.plan import CardView, NodeView, Placement, Plan, Refusal, Request, Shortfall, Snapshot


class BestFit:
    """Places each request, in order, where it wastes least. Pure and deterministic."""

    name = "best_fit"

    def plan(self, snapshot: Snapshot, requests: Sequence[Request], now_us: int) -> Plan:
        """See `Scheduler.plan`. `now_us` plays no part: best fit has no memory."""
        del now_us
        nodes = {node.name: node for node in snapshot.nodes}
        placements: list[Placement] = []
        refusals: list[Refusal] = []
        # Placing only ever takes: what was refused once in this plan is refused again, so a long queue costs little.
        refused: dict[object, Refusal] = {}
        for request in requests:
            kind = (
                request.shape, request.count, request.card_model, request.cpu_milli, request.memory_bytes, request.mode
            )  # fmt: skip
            if kind in refused:
                refusals.append(replace(refused[kind], lease_id=request.lease_id))
                continue
            found = min(
                (
                    (_waste(node, cards, request), node.name, cards)
                    for node in nodes.values()
                    if (cards := _choose_cards(node, request)) is not None
                ),
                default=None,
                key=lambda candidate: candidate[:2],
            )
            if found is None:
                refused[kind] = _refuse(tuple(nodes.values()), request)
                refusals.append(refused[kind])
                continue
            _, name, cards = found
            uuids = tuple(card.uuid for card in cards)
            nodes[name] = nodes[name].taking(uuids, request)
            placements.append(Placement(request.lease_id, name, uuids))
        return Plan(snapshot.version, tuple(placements), tuple(refusals))


def _matches(card: CardView, request: Request) -> bool:
    return card.schedulable and request.card_model in (None, card.model)


def _left(card: CardView, shape: SliceShape) -> int:
    """What the tighter and the looser dimension are left with after the shape is taken, in ppm of the card."""
    memory_ppm = (card.memory_free_bytes - shape.memory_bytes) * SHARE_WHOLE_PPM // card.memory_bytes
    return memory_ppm + card.compute_free_ppm - shape.compute_ppm


def _choose_cards(node: NodeView, request: Request) -> tuple[CardView, ...] | None:
    """The `count` best fitting cards of a node, or None where it cannot take the request."""
    if not node.schedulable or node.cpu_free_milli < request.cpu_milli or node.memory_free_bytes < request.memory_bytes:
        return None
    fitting = [card for card in node.cards if card.takes(request)]
    if len(fitting) < request.count:
        return None
    return tuple(nsmallest(request.count, fitting, key=lambda card: (_left(card, request.shape), card.uuid)))


def _waste(node: NodeView, cards: tuple[CardView, ...], request: Request) -> tuple[int, int]:
    """Smaller is better: what the chosen cards are left with, then how much of the node is still free."""
    free = sum(card.compute_free_ppm for card in node.cards)
    return sum(_left(card, request.shape) for card in cards), free


def _refuse(nodes: tuple[NodeView, ...], request: Request) -> Refusal:
    return Refusal(
        request.lease_id,
        tuple(_shortfall(node, request) for node in nodes),
        _largest_fit(nodes, request),
        any(_could_ever(node, request) for node in nodes),
    )


def _shortfall(node: NodeView, request: Request) -> Shortfall:
    """What the node lacked first, in the order in which a person would ask."""
    if not node.schedulable:
        return Shortfall(node.name, "cordoned")
    ofmodel = [card for card in node.cards if _matches(card, request)]
    if not ofmodel:
        return Shortfall(node.name, "other_model", {"model": request.card_model or "--"})
    free = sum(card.holds(request.shape) for card in ofmodel)
    if free < request.count:
        shape = request.shape
        return Shortfall(
            node.name,
            "no_free_card",
            {"count": request.count, "free": free, "memory": shape.memory_bytes, "share": shape.compute_ppm},
        )
    if sum(card.takes(request) for card in ofmodel) < request.count:
        return Shortfall(node.name, "other_mode", {"mode": request.mode})
    if node.cpu_free_milli < request.cpu_milli:
        return Shortfall(node.name, "no_cpu", {"free": node.cpu_free_milli, "wanted": request.cpu_milli})
    return Shortfall(node.name, "no_memory", {"free": node.memory_free_bytes, "wanted": request.memory_bytes})


def _could_ever(node: NodeView, request: Request) -> bool:
    """Whether the node's cards, all empty, could hold the request. CPU and memory totals are the offer's business."""
    shape = request.shape
    big = sum(
        request.card_model in (None, card.model) and card.memory_bytes >= shape.memory_bytes for card in node.cards
    )
    return big >= request.count and shape.compute_ppm <= SHARE_WHOLE_PPM


def _largest_fit(nodes: tuple[NodeView, ...], request: Request) -> SliceShape | None:
    """The largest shape that `count` cards of one node could take now: the largest by its smaller share of a card."""
    best: tuple[int, int, SliceShape] | None = None
    for node in nodes if request.count else ():
        if not node.schedulable:
            continue
        cards = [card for card in node.cards if _matches(card, request) and card.admits(request.mode)]
        if len(cards) < request.count:
            continue
        cards.sort(key=_smaller_share, reverse=True)
        chosen = cards[: request.count]
        shape = SliceShape(
            min(request.shape.memory_bytes, *(card.memory_free_bytes for card in chosen)),
            min(request.shape.compute_ppm, *(card.compute_free_ppm for card in chosen)),
        )
        if shape.memory_bytes < 1 or shape.compute_ppm < 1:
            continue
        rank = (_smaller_share(chosen[-1]), shape.memory_bytes, shape)
        if best is None or rank[:2] > best[:2]:
            best = rank
    return best[2] if best else None


def _smaller_share(card: CardView) -> int:
    return min(card.memory_free_bytes * SHARE_WHOLE_PPM // card.memory_bytes, card.compute_free_ppm)

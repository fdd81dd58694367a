"""Whether cards are shared here the way that a launch asks for."""

from __future__ import annotations

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.sharing import Sharing
from gpuyard.model.workloads import SliceRequest
from gpuyard.slicing.ladder import NOWHERE


def must_be_shared_so(yard: Yard, slices: SliceRequest, kind: str) -> None:
    """Raises YardError: `exclusive_fraction` for part of a card that nobody else may use, `sharing_unavailable` where
    the cards that it could get are not shared that way by the runtime of this kind. A runtime that runs nothing
    shares them any way."""
    able = [
        card
        for card in yard.roster.cards
        if slices.card_model in (None, card.model) and card.memory_bytes >= slices.shape.memory_bytes
    ]
    if slices.sharing is Sharing.EXCLUSIVE:
        if not all(slices.shape.is_whole(card.memory_bytes) for card in able):
            model = slices.card_model or min((card.model for card in able), default="--")
            raise YardError("exclusive_fraction", offer=f"{model.lower()}-full")
        return
    if slices.sharing is Sharing.SHARED or kind == "simulated":
        return
    under_mps = {card.uuid for card in able} & yard.engine.mps_on(kind)
    wants_mps = slices.sharing is Sharing.MPS
    if len(under_mps) < len(able) if wants_mps else under_mps:
        reason = "no_mps" if wants_mps else "only_mps"
        raise YardError("sharing_unavailable", mode=slices.sharing.value, reason=reason)


def under_mps(yard: Yard, sharing: Sharing, kind: str) -> frozenset[str]:
    """The cards on which MPS holds a unit of a lease that shares so."""
    return NOWHERE if sharing is Sharing.TIME_SLICE else yard.engine.mps_on(kind)

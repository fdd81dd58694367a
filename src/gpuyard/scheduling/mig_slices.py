"""Slices of cards in MIG mode, over any scheduler for all other cards. Pure.

Such a card is cut only into what its hardware allows: instances of certain profiles, at certain places. A request for
one slice gets the smallest profile that is at least its shape, where that costs the others least room. Instances are
each other's neighbours in nothing that a mode of sharing is about, so requests of any mode may have one; a request of
mode `mig` gets nothing else. A program computes in one instance, so nothing that wants several cards gets any.

A request goes to an instance first where one will do, so that whole cards stay whole; but where it may have a smaller
model of card it goes there first, as it would without MIG.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from gpuyard.model.mig import MigCard, MigCut, MigPlace, MigProfile
from gpuyard.model.slices import SliceShape
from gpuyard.scheduling.mig_places import best_place, profile_for, room_left
from gpuyard.scheduling.plan import (
    CardView,
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

WHY: Final = "mig"
ONLY_MIG: Final = "mig"  # the mode of a request that is for MIG instances alone
_NOWHERE: Final = "--"


class MigSlices:
    """See `Scheduler`. `inner` plans for the cards that are not in MIG mode, and sees no others."""

    def __init__(self, inner: Scheduler) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """The inner scheduler's."""
        return self.inner.name

    @property
    def weighs_topology(self) -> bool:
        """See `Weighing`."""
        return isinstance(self.inner, Weighing) and self.inner.weighs_topology

    def having_seen(self, requests: Sequence[Request]) -> MigSlices:
        """With an inner scheduler that knows of these arrivals too, where it learns."""
        if not isinstance(self.inner, Learning):
            return self
        return MigSlices(self.inner.having_seen([request for request in requests if request.mode != ONLY_MIG]))

    def plan(self, snapshot: Snapshot, requests: Sequence[Request], now_us: int) -> Plan:
        """See `Scheduler.plan`."""
        if not any(card.mig is not None for node in snapshot.nodes for card in node.cards):
            return self.inner.plan(snapshot, requests, now_us)
        return _Planning(self.inner, snapshot, now_us).run(requests)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where an instance would lie, and what it costs the others there, as `room_left` counts."""

    node: str
    card: CardView
    cut: MigCut
    lost: int
    left: int

    @property
    def rank(self) -> tuple[int, int, str, str]:
        """The least lost first; of equals the fullest card, so that empty ones stay for what needs them."""
        return self.lost, self.left, self.node, self.card.uuid


class _Planning:
    """One plan in the making. Requests for the inner scheduler wait together until one is for an instance."""

    def __init__(self, inner: Scheduler, snapshot: Snapshot, now_us: int) -> None:
        self._inner = inner
        self._version = snapshot.version
        self._snapshot = snapshot
        self._now_us = now_us
        self._waiting: list[Request] = []
        self._placements: list[Placement] = []
        self._refusals: list[Refusal] = []
        # Placing only ever takes: what was refused once in this plan is refused again, so a long queue costs little.
        self._refused: dict[Request, Refusal] = {}
        self._first: dict[Request, bool] = {}

    def run(self, requests: Sequence[Request]) -> Plan:
        for request in requests:
            kind = _kind(request)
            if kind in self._refused:
                self._refuse(request, self._refused[kind])
                continue
            if kind not in self._first:
                self._first[kind] = self._goes_first(request)
            if self._first[kind]:
                self._flush()
                if self._in_an_instance(request):
                    continue
            self._waiting.append(request)
        self._flush()
        return Plan(self._version, tuple(self._placements), tuple(self._refusals))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        others = [request for request in waiting if request.mode != ONLY_MIG]
        by_id = {request.lease_id: request for request in waiting}
        refused = {each.lease_id: _nothing(each) for each in waiting if each.mode == ONLY_MIG}
        if others:
            plan = self._inner.plan(_without_mig(self._snapshot), others, self._now_us)
            for placed in plan.placements:
                self._take(placed, by_id[placed.lease_id])
            refused |= {refusal.lease_id: refusal for refusal in plan.refusals}
        for request in waiting:
            refusal = refused.get(request.lease_id)
            if refusal is None:
                continue
            kind = _kind(request)
            if kind in self._refused or not self._in_an_instance(request):
                if kind not in self._refused:
                    self._refused[kind] = _explained(self._snapshot, request, refusal)
                self._refuse(request, self._refused[kind])

    def _refuse(self, request: Request, refusal: Refusal) -> None:
        self._refusals.append(replace(refusal, lease_id=request.lease_id))

    def _take(self, placed: Placement, request: Request) -> None:
        node = next(node for node in self._snapshot.nodes if node.name == placed.node)
        self._snapshot = self._snapshot.with_nodes({node.name: node.taking(placed.card_uuids, request, placed.mig)})
        self._placements.append(placed)

    def _goes_first(self, request: Request) -> bool:
        """Whether an instance is tried before other cards."""
        able = [card for _, card in _mig_cards(self._snapshot, request) if _profile(card, request) is not None]
        if request.mode == ONLY_MIG or request.card_model is not None:
            return bool(able)
        least = min((card.memory_bytes for card in able), default=0)
        others = (card for node in self._snapshot.nodes for card in node.cards)
        return bool(able) and not any(card.takes(request) and card.memory_bytes < least for card in others)

    def _in_an_instance(self, request: Request) -> bool:
        """Whether it could be placed so."""
        found = min(_places(self._snapshot, request), key=lambda each: each.rank, default=None)
        if found is None:
            return False
        terms: dict[str, object] = {"instance": str(found.cut)}
        self._take(Placement(request.lease_id, found.node, (found.card.uuid,), WHY, terms, mig=found.cut), request)
        return True


def _kind(request: Request) -> Request:
    """The request without whose it is."""
    return Request(
        "", request.shape, request.count, request.card_model, request.cpu_milli, request.memory_bytes,
        mode=request.mode, instances=request.instances,
    )  # fmt: skip


def _without_mig(snapshot: Snapshot) -> Snapshot:
    changed = {
        node.name: replace(node, cards=tuple(card for card in node.cards if card.mig is None))
        for node in snapshot.nodes
        if any(card.mig is not None for card in node.cards)
    }
    return snapshot.with_nodes(changed)


def _mig_cards(snapshot: Snapshot, request: Request) -> Iterator[tuple[NodeView, CardView]]:
    """The cards in MIG mode that the request may have an instance of, if there is one."""
    if request.count != 1 or not request.instances:
        return
    for node in snapshot.nodes:
        for card in node.cards:
            if card.mig is not None and card.schedulable and request.card_model in (None, card.model):
                yield node, card


def _places(snapshot: Snapshot, request: Request) -> Iterator[_Found]:
    for node, card in _mig_cards(snapshot, request):
        if not node.schedulable or node.cpu_free_milli < request.cpu_milli:
            continue
        profile = _profile(card, request)
        if profile is None or card.mig is None or node.memory_free_bytes < request.memory_bytes:
            continue
        found = _best(card.mig, profile)
        if found is not None:
            place, lost, left = found
            yield _Found(node.name, card, MigCut(profile.name, place), lost, left)


def _profile(card: CardView, request: Request) -> MigProfile | None:
    return None if card.mig is None else profile_for(card.mig, request.shape)


@lru_cache(maxsize=4096)  # cards of a fleet are alike, and so is how they are cut
def _best_of(cut: MigCard, profile: MigProfile) -> tuple[MigPlace, int, int] | None:
    place = best_place(cut, profile)
    if place is None:
        return None
    left = room_left(cut.taking(place))
    return place, room_left(cut) - left, left


def _best(card: MigCard, profile: MigProfile) -> tuple[MigPlace, int, int] | None:
    taken = tuple(sorted(card.taken, key=lambda place: (place.start, place.profile_id)))
    return _best_of(replace(card, card_uuid="", taken=taken), profile)


def _nothing(request: Request) -> Refusal:
    return Refusal(request.lease_id, (), None, ever=False)


def _explained(snapshot: Snapshot, request: Request, refusal: Refusal) -> Refusal:
    """The refusal with what cards in MIG mode lack for the request, where that is what there is of its model."""
    told = {shortfall.node: shortfall for shortfall in refusal.shortfalls}
    fits, ever = refusal.largest_fit, refusal.ever
    for node in snapshot.nodes:
        cards = [card for card in node.cards if request.card_model in (None, card.model)]
        cut = [card for card in cards if card.mig is not None and card.schedulable]
        if not cut:
            if node.name not in told:
                told[node.name] = Shortfall(node.name, "other_model", {"model": request.card_model or _NOWHERE})
            continue
        if len(cut) == len(cards) or request.mode == ONLY_MIG:
            told[node.name] = _lack(node, cut, request)
        able = request.count == 1 and request.instances
        ever = ever or (able and any(_profile(card, request) is not None for card in cut))
        if node.schedulable and able:
            fits = max((fits, *map(_largest, cut)), key=_size)
    return replace(refusal, shortfalls=tuple(told.values()), largest_fit=fits, ever=ever)


def _lack(node: NodeView, cut: Sequence[CardView], request: Request) -> Shortfall:
    if not node.schedulable:
        return Shortfall(node.name, "cordoned")
    if request.count > 1:
        return Shortfall(node.name, "mig_one_slice", {"count": request.count})
    if not request.instances:
        return Shortfall(node.name, "mig_no_containers")
    profiles = [profile.name for card in cut if (profile := _profile(card, request)) is not None]
    if not profiles:
        known = [profile for card in cut if card.mig is not None for profile in card.mig.profiles]
        largest = max(known, key=_weight, default=None)
        name, memory = (_NOWHERE, 0) if largest is None else (largest.name, largest.memory_bytes)
        return Shortfall(node.name, "mig_too_large", {"largest": name, "memory": memory})
    if node.cpu_free_milli < request.cpu_milli and _any_place(cut, request):
        return Shortfall(node.name, "no_cpu", {"free": node.cpu_free_milli, "wanted": request.cpu_milli})
    if node.memory_free_bytes < request.memory_bytes and _any_place(cut, request):
        return Shortfall(node.name, "no_memory", {"free": node.memory_free_bytes, "wanted": request.memory_bytes})
    return Shortfall(node.name, "mig_no_place", {"profile": profiles[0], "count": len(cut)})


def _any_place(cut: Sequence[CardView], request: Request) -> bool:
    profiles = ((card.mig, _profile(card, request)) for card in cut)
    return any(mig is not None and profile is not None and _best(mig, profile) for mig, profile in profiles)


def _weight(profile: MigProfile) -> tuple[int, int]:
    return profile.memory_bytes, profile.compute_slices


def _largest(card: CardView) -> SliceShape | None:
    """The shape of the largest instance that the card can take now."""
    if card.mig is None:
        return None
    free = [profile for profile in card.mig.profiles if _best(card.mig, profile) is not None]
    return card.mig.shape(max(free, key=_weight)) if free else None


def _size(shape: SliceShape | None) -> tuple[int, int]:
    return (0, 0) if shape is None else (shape.memory_bytes, shape.compute_ppm)

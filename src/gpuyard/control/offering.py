"""What can be rented now, and what a wish for slices comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from gpuyard.catalog import cards as catalog
from gpuyard.catalog import offers as catalog_offers
from gpuyard.control.instances import with_instances
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Card
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.offers import Offer
from gpuyard.model.sharing import Sharing
from gpuyard.model.slices import SliceShape
from gpuyard.model.states import CardState
from gpuyard.model.units import SHARE_WHOLE_PPM, format_share, format_size
from gpuyard.model.workloads import SliceRequest
from gpuyard.scheduling.mig_places import profile_for, room
from gpuyard.scheduling.tiers import Goal
from gpuyard.store import leases

MIN_CPU_MILLI = 10
MIN_MEMORY_BYTES = 16 << 20
MOST_RESOLVED = 1000


@dataclass(frozen=True, slots=True)
class SliceWish:
    """What was asked for: an offer by name, or a shape, or a whole card."""

    offer: str | None = None
    card_model: str | None = None
    memory_bytes: int | None = None
    compute_ppm: int | None = None
    count: int = 1
    goal: Goal | None = None  # instead of all but the count
    sharing: Sharing = Sharing.SHARED


@dataclass(frozen=True, slots=True)
class Allowance:
    """The CPU and memory that slices come with, and what they cost per hour together."""

    cpu_milli: int
    memory_bytes: int
    price_per_hour_nano: int


def list_offers(yard: Yard, c: Connection) -> list[Offer]:
    """Every offer of the cards that are here, with how many could be granted now."""
    used, cards = leases.usage(c), with_instances(yard.roster.cards, leases.instances(c))
    return [replace(offer, available=_available(offer, cards, used)) for offer in yard.roster.offers]


def free_slots(yard: Yard, c: Connection, name: str | None) -> int:
    """How many of one offer could be granted now; none of what is no offer."""
    offer = next((one for one in yard.roster.offers if one.name == name), None)
    if offer is None:
        return 0
    return _available(offer, with_instances(yard.roster.cards, leases.instances(c)), leases.usage(c))


def _available(offer: Offer, cards: Sequence[Card], used: dict[str, tuple[int, int]]) -> int:
    if offer.mig:
        return sum(_room(card, offer) for card in cards if card.model == offer.card_model)
    each_bytes, each_ppm, model = offer.shape.memory_bytes, offer.shape.compute_ppm, offer.card_model
    whole: dict[int, int] = {}  # how many fit on a card that is free: most are, or are alike
    free = 0
    for card in cards:
        if card.model != model or card.state is not CardState.HEALTHY or card.mig is not None:
            continue
        held = used.get(card.uuid)
        if held is not None:
            free += min((card.memory_bytes - held[0]) // each_bytes, (SHARE_WHOLE_PPM - held[1]) // each_ppm)
            continue
        size = card.memory_bytes
        if size not in whole:
            whole[size] = min(size // each_bytes, SHARE_WHOLE_PPM // each_ppm)
        free += whole[size]
    return free


def _room(card: Card, offer: Offer) -> int:
    """How many more instances of the offer's profile a card in MIG mode takes."""
    if card.mig is None or card.state is not CardState.HEALTHY:
        return 0
    return room(card.mig).get(offer.name.rpartition("-")[2], 0)


def resolve(
    yard: Yard, wish: SliceWish, option: PurchaseOption = PurchaseOption.ON_DEMAND
) -> tuple[SliceRequest, Allowance]:
    """The slices that a wish stands for in this yard, and what comes with them.

    Raises YardError: unknown_offer, unknown_card_model, no_card_of_model, slice_too_large, too_many_slices,
    invalid_request, goal_unreachable.
    """
    if wish.goal is not None:
        if wish.offer or wish.card_model or wish.memory_bytes or wish.compute_ppm:
            raise YardError("invalid_request", reason="goal_and_shape")
        from gpuyard.control.goals import model_for  # rare, and the server is to stay small

        model = model_for(yard, wish.goal, wish.count, option)
        whole = next(o.name for o in yard.roster.offers if o.card_model == model and o.name.endswith("-full"))
        wish = SliceWish(offer=whole, count=wish.count, sharing=wish.sharing)
    return _resolved(yard, wish, option is PurchaseOption.SPOT)


def price_nano(yard: Yard, request: SliceRequest, option: PurchaseOption) -> int:
    """What an hour of these slices costs by the book in force. Raises YardError where they fit no card any more."""
    fitting = _check_fits(request, yard.roster.cards)
    return _allowance(yard, request, fitting, option is PurchaseOption.SPOT).price_per_hour_nano


def _resolved(yard: Yard, wish: SliceWish, spot: bool) -> tuple[SliceRequest, Allowance]:
    """Worked out once for as long as fleet and prices stay: it looks at every card, and a launch asks several times."""
    roster, book = yard.roster, yard.book
    found = roster.resolved.get((wish, spot))
    if found is not None and found[0] is book:
        return found[1]
    request = replace(_request(yard, wish, roster.cards), sharing=wish.sharing)
    made = request, _allowance(yard, request, _check_fits(request, roster.cards), spot)
    if len(roster.resolved) >= MOST_RESOLVED:
        roster.resolved.clear()  # whoever asks for ever new shapes must not fill the memory
    roster.resolved[wish, spot] = book, made
    return made


def _request(yard: Yard, wish: SliceWish, cards: Sequence[Card]) -> SliceRequest:
    if wish.offer is not None:
        if wish.card_model or wish.memory_bytes or wish.compute_ppm:
            raise YardError("invalid_request", reason="offer_and_shape")
        sold = [card for card in cards if yard.book.sells(card.model)]
        known = catalog_offers.shape_of(wish.offer, sold)
        if known.mig and wish.count > 1:
            raise YardError("mig_one_slice", count=wish.count, model=known.card_model)
        return SliceRequest(known.shape, known.card_model, wish.count, wish.offer.lower(), known.mig)
    model: str | None = None
    if wish.card_model is not None:
        model = catalog.find(wish.card_model).name
        if not any(card.model == model for card in cards):
            present = ", ".join(sorted({card.model for card in cards})) or "--"
            raise YardError("no_card_of_model", model=model, present=present)
        if all(card.mig is not None for card in cards if card.model == model):
            return _instance(wish, model, cards)
    return SliceRequest(_shape(wish, model, cards), model, wish.count)


def _instance(wish: SliceWish, model: str, cards: Sequence[Card]) -> SliceRequest:
    """Of a model that is in MIG mode altogether: the smallest instance that has what was asked for. What was not said
    is not asked for.

    Raises YardError `mig_one_slice` and `mig_too_large`.
    """
    if wish.count > 1:
        raise YardError("mig_one_slice", count=wish.count, model=model)
    wanted = SliceShape(wish.memory_bytes or 1, wish.compute_ppm or 1)
    if wish.memory_bytes is None and wish.compute_ppm is None:
        wanted = SliceShape(min(card.memory_bytes for card in cards if card.model == model), SHARE_WHOLE_PPM)
    card = next(card.mig for card in cards if card.model == model and card.mig is not None)
    profile = profile_for(card, wanted)
    if profile is None:
        largest = max(card.profiles, key=lambda each: (each.compute_slices, each.memory_bytes), default=None)
        if largest is None:
            raise YardError("mig_too_large", model=model, largest="--", memory="--", offer="--")
        memory, offer = format_size(largest.memory_bytes), catalog_offers.offer_name(model, largest.name)
        raise YardError("mig_too_large", model=model, largest=largest.name, memory=memory, offer=offer)
    return SliceRequest(card.shape(profile), model, 1, catalog_offers.offer_name(model, profile.name), mig=True)


def _shape(wish: SliceWish, model: str | None, cards: Sequence[Card]) -> SliceShape:
    memory, compute = wish.memory_bytes, wish.compute_ppm
    if memory is not None and compute is not None:
        return SliceShape(memory, compute)
    if model is None:
        raise YardError("invalid_request", reason="no_shape")
    whole = min(card.memory_bytes for card in cards if card.model == model and card.mig is None)
    if memory is not None:
        return SliceShape(memory, max(1, min(SHARE_WHOLE_PPM, memory * SHARE_WHOLE_PPM // whole)))
    if compute is not None:
        return SliceShape(max(1, whole * compute // SHARE_WHOLE_PPM), compute)
    return SliceShape(whole, SHARE_WHOLE_PPM)


def _check_fits(request: SliceRequest, cards: Sequence[Card]) -> list[Card]:
    shape = request.shape
    of_model = [card for card in cards if request.card_model in (None, card.model)]
    if request.count > 1 and any(card.mig is None for card in of_model):
        of_model = [card for card in of_model if card.mig is None]  # a program computes in one instance
    fitting = [card for card in of_model if card.memory_bytes >= shape.memory_bytes]
    if not fitting:
        largest = max((card.memory_bytes for card in of_model), default=0)
        raise YardError(
            "slice_too_large",
            memory=format_size(shape.memory_bytes),
            share=format_share(shape.compute_ppm),
            model=request.card_model or "--",
            card_memory=format_size(largest),
        )
    most = max(Counter(card.node for card in fitting).values())
    if request.count > 1 and all(card.mig is not None for card in fitting):
        raise YardError("mig_one_slice", count=request.count, model=fitting[0].model)
    if request.count > most:
        raise YardError("too_many_slices", count=request.count, most=most)
    return fitting


def _allowance(yard: Yard, request: SliceRequest, fitting: Sequence[Card], spot: bool) -> Allowance:
    """The dominant share of the card's part of its node; of the poorest model where any model will do."""
    whole = {offer.card_model: offer for offer in yard.roster.offers if offer.shape.compute_ppm == SHARE_WHOLE_PPM}
    found: list[Allowance] = []
    for card in {card.model: card for card in fitting}.values():
        offer = whole.get(card.model)
        if offer is None:
            continue  # the price book does not sell it
        share = request.shape.share_of_card_ppm(card.memory_bytes)
        found.append(
            Allowance(
                cpu_milli=max(MIN_CPU_MILLI, offer.cpu_milli * share // SHARE_WHOLE_PPM * request.count),
                memory_bytes=max(MIN_MEMORY_BYTES, offer.memory_bytes * share // SHARE_WHOLE_PPM * request.count),
                price_per_hour_nano=yard.book.price_nano(card.model, share, spot) * request.count,
            )
        )
    if not found:
        raise YardError("no_price", model=", ".join(sorted({card.model for card in fitting})))
    return Allowance(
        min(a.cpu_milli for a in found),
        min(a.memory_bytes for a in found),
        max(a.price_per_hour_nano for a in found),
    )

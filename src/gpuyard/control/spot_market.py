"""Clears the spot market of every offer once a minute and keeps the prices with all of their inputs.

A lease on spot bids what its tenant said, or else what the book asks for spot at most: it pays the price in force,
never more than its bid, and goes when the price rises above it. Who holds or waits for a slot of an offer bids for it.
What others hold of the cards is not for sale.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from gpuyard.billing.spot import ROUND_US, Bid, Clearing, Round, clear, published
from gpuyard.control.bidding import tell_the_outbid
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.offers import Offer
from gpuyard.model.states import CardState, LeaseState
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.store import commitments as stored
from gpuyard.store import events, leases, workloads

_BIDDING = frozenset({LeaseState.REQUESTED, LeaseState.GRANTED, LeaseState.ACTIVE})


def clear_markets(yard: Yard, now_us: int) -> int:
    """One round of every offer that somebody bids for, or whose price has not come down yet; how many changed."""
    with yard.store.read() as c:
        on_spot = leases.bought_otherwise(c, None)
        last = stored.newest_rounds(c)
        if not last and PurchaseOption.SPOT not in on_spot.values():
            return 0
        open_leases = leases.open_leases(c)
        asked = {lease.workload_id: workloads.get(c, lease.workload_id) for lease in open_leases}
    works = {name: work for name, work in asked.items() if work is not None}
    wanted = {name: work.spec.slices for name, work in works.items()}
    bidding: dict[str, list[Lease]] = defaultdict(list)
    for lease in open_leases:
        offer = wanted[lease.workload_id].offer if lease.workload_id in wanted else None
        if lease.option is PurchaseOption.SPOT and lease.state in _BIDDING and offer is not None:
            bidding[offer].append(lease)
    changed = 0
    prices = {name: price for name, (_, price, _) in last.items()}
    for offer in yard.roster.offers:
        before = last.get(offer.name)
        floored = offer.card_model in yard.book.spot_floor_nano  # without a floor the book's price is the price
        if not floored or (offer.name not in bidding and before is None):
            continue
        slots = {lease.id: wanted[lease.workload_id].count for lease in bidding[offer.name]}
        bids = {lease.id: works[lease.workload_id].spec.max_price_nano for lease in bidding[offer.name]}
        previous = before[1] if before else None
        market = round_of(yard, offer, bidding[offer.name], slots, open_leases, previous, now_us, bids)
        cleared = clear(market)
        if _keep(yard, market, cleared, before, bidding[offer.name]):
            changed += 1
            prices[offer.name] = cleared.price_nano
    yard.spot_prices = prices
    tell_the_outbid(yard, open_leases, works, now_us)
    return changed


def round_of(
    yard: Yard,
    offer: Offer,
    bidding: Sequence[Lease],
    slots: Mapping[str, int],
    open_leases: Iterable[Lease],
    previous_nano: int | None,
    now_us: int,
    at_most: Mapping[str, int | None],
) -> Round:
    """The inputs of a round; `at_most` is what leases bid, where their tenants said so. Raises YardError `no_price`."""
    whole = min(card.memory_bytes for card in yard.roster.cards if card.model == offer.card_model)
    floor, cap = yard.book.spot_bounds_nano(offer.card_model, offer.shape.share_of_card_ppm(whole))
    capacity, free = _slots(yard, offer, {lease.id for lease in bidding}, open_leases)
    return Round(
        offer=offer.name,
        at_us=now_us // ROUND_US * ROUND_US,
        capacity_slots=capacity,
        other_slots=capacity - free,
        floor_nano=floor,
        cap_nano=cap,
        previous_nano=previous_nano,
        bids=tuple(
            Bid(name_of(lease.id), _bid(at_most.get(lease.id), cap), slots[lease.id], lease.created_us)
            for lease in bidding
        ),
    )


def _bid(at_most_nano: int | None, cap_nano: int) -> int:
    return cap_nano if at_most_nano is None else min(at_most_nano, cap_nano)


def name_of(lease_id: str) -> str:
    """The name under which a lease bids in public: its tenant can tell, nobody else."""
    return f"bd-{hashlib.sha256(lease_id.encode()).hexdigest()[:16]}"


def _slots(yard: Yard, offer: Offer, own: set[str], open_leases: Iterable[Lease]) -> tuple[int, int]:
    """How many slots of the offer there are, and how many of them no one but its own bidders holds."""
    held: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for lease in open_leases:
        for cut in lease.slices if lease.id not in own else ():
            memory, compute = held[cut.card_uuid]
            held[cut.card_uuid] = memory + cut.shape.memory_bytes, compute + cut.shape.compute_ppm
    capacity = free = 0
    for card in yard.roster.cards:
        if card.model == offer.card_model and card.state is CardState.HEALTHY:
            capacity += _fit(offer, card.memory_bytes, SHARE_WHOLE_PPM)
            memory, compute = held[card.uuid]
            free += _fit(offer, card.memory_bytes - memory, SHARE_WHOLE_PPM - compute)
    return capacity, free


def _fit(offer: Offer, memory_bytes: int, compute_ppm: int) -> int:
    return max(0, min(memory_bytes // offer.shape.memory_bytes, compute_ppm // offer.shape.compute_ppm))


def _keep(
    yard: Yard,
    market: Round,
    clearing: Clearing,
    before: tuple[int, int, str] | None,
    bidding: Sequence[Lease],
) -> int:
    """Writes a round down where its price is new; tells the winners that stand near it. Clearing the same minute twice
    is clearing it once."""
    bidders = {name_of(each.id): each for each in bidding}
    if before is not None and (before[0] >= market.at_us or before[1] == clearing.price_nano):
        return 0
    facts = published(market, clearing)
    told = [
        Event(
            "spot.price",
            market.offer,
            market.at_us,
            data={"price_nano": clearing.price_nano, "currency": yard.book.currency, "digest": facts["digest"]},
        )
    ]
    for bid in clearing.hinted:
        lease = bidders[bid]
        told.append(Event("spot.rebalance_recommended", lease.id, market.at_us, lease.tenant_id, data={"bid": bid}))
    with yard.store.write() as c:
        stored.add_round(c, market.offer, market.at_us, clearing.price_nano, json.dumps(facts, sort_keys=True))
        events.append(c, told)
    return 1

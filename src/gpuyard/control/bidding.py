"""What tenants bid on the spot market: which bids can be, who is outbid, and who has to go because of the price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from gpuyard.billing.spot import NOTICE_US
from gpuyard.control.waiting import HOLDING
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease, PurchaseOption
from gpuyard.model.states import LeaseState
from gpuyard.model.times import to_text
from gpuyard.model.units import format_price
from gpuyard.model.workloads import SliceRequest, Workload
from gpuyard.store import events, placements
from gpuyard.store.placements import Notice

BY_PRICE: Final = "spot price"  # what a notice is for that no other lease waits for


def must_be_a_bid(yard: Yard, option: PurchaseOption, slices: SliceRequest, max_price_nano: int | None) -> None:
    """Raises YardError `bid_refused` for a bid on anything but spot or on no offer, and for one below what the market
    may ever come down to."""
    if max_price_nano is None:
        return
    if option is not PurchaseOption.SPOT:
        raise YardError("bid_refused", why="not_spot")
    offer = next((each for each in yard.roster.offers if each.name == slices.offer), None)
    if offer is None:
        raise YardError("bid_refused", why="no_offer")
    whole = min(card.memory_bytes for card in yard.roster.cards if card.model == offer.card_model)
    floor, _ = yard.book.spot_bounds_nano(offer.card_model, offer.shape.share_of_card_ppm(whole))
    if max_price_nano < floor:
        bid, least = format_price(max_price_nano), format_price(floor)
        raise YardError("bid_refused", why="low", bid=bid, least=least, currency=yard.book.currency)


def outbid(
    yard: Yard, open_leases: Iterable[Lease], workloads: Mapping[str, Workload]
) -> dict[str, Mapping[str, object]]:
    """By waiting lease whose bid is below the price in force, the facts of the reason `waiting_for_slices`."""
    found: dict[str, Mapping[str, object]] = {}
    for lease in open_leases:
        if lease.state is LeaseState.REQUESTED and lease.option is PurchaseOption.SPOT:
            spec = workloads[lease.workload_id].spec
            bid = spec.max_price_nano
            price = price_above(yard, spec.slices.offer, bid)
            if bid is not None and price is not None:
                lack = {
                    "lacks": "outbid",
                    "bid": format_price(bid),
                    "price": format_price(price),
                    "currency": yard.book.currency,
                }
                found[lease.id] = {"shortfalls": [lack], "more_nodes": 0, "ever": True}
    return found


def tell_the_outbid(yard: Yard, open_leases: Iterable[Lease], workloads: Mapping[str, Workload], now_us: int) -> None:
    """Gives notice to leases that run and bid less than the price in force, once; told again, it is told once."""
    going = [each for each in open_leases if each.state in HOLDING and each.workload_id in workloads]
    going = [each for each in going if is_outbid(yard, workloads[each.workload_id])]
    if not going:
        return
    until_us = now_us + max(NOTICE_US, yard.reclaim.notice_us)
    told: list[Event] = []
    with yard.store.write() as c:
        for lease in going:
            if placements.notify(c, Notice(lease.id, now_us, until_us, BY_PRICE)):
                told.append(_notice(yard, lease, workloads[lease.workload_id], until_us, now_us))
        events.append(c, told)


def _notice(yard: Yard, lease: Lease, workload: Workload, until_us: int, now_us: int) -> Event:
    data = {
        "workload_id": lease.workload_id,
        "name": workload.name,
        "until": to_text(until_us),
        "checkpoint": bool(workload.spec.checkpoint_command),
        "price_nano": yard.spot_prices[workload.spec.slices.offer or ""],
        "max_price_nano": workload.spec.max_price_nano,
    }
    return Event("lease.reclaim_notice", lease.id, now_us, lease.tenant_id, data=data)


def is_outbid(yard: Yard, workload: Workload) -> bool:
    """Whether the price in force is above what this workload bids."""
    return price_above(yard, workload.spec.slices.offer, workload.spec.max_price_nano) is not None


def price_above(yard: Yard, offer: str | None, bid_nano: int | None) -> int | None:
    """The price in force of the offer, where it is above the bid; None where it is not, or there is no bid."""
    price = yard.spot_prices.get(offer or "")
    return price if price is not None and bid_nano is not None and bid_nano < price else None

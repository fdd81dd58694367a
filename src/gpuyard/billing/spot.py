"""The spot market of one offer: one price for all, worked out from inputs that anyone may check.

Every round sells the slots that on-demand and reserved leases leave free. Bids stand in order of price, then age, then
id. The fair price is the highest bid that goes without a slot, or the floor (what the power costs) where none does. It
moves by at most a step a round, and never leaves floor and cap (the on-demand price). Bids below the price lose; of the
others those win that come first. Hence: the price is the same for all, no winner pays more than it bid, raising a
losing bid never lowers the price, and the same inputs give the same outcome everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gpuyard.catalog.price_terms import WHOLE_PPM
from gpuyard.model.errors import YardError
from gpuyard.model.units import SECOND_US

ROUND_US: Final = 60 * SECOND_US
NOTICE_US: Final = 120 * SECOND_US  # what a lease that loses its slot still has
STEP_PPM: Final = 50_000  # how far the price moves in a round at most
HINT_PPM: Final = 100_000  # a winner whose bid is less than this above the price is told to look for another place


@dataclass(frozen=True, slots=True)
class Bid:
    """`slots` leases, each for at most `price_nano` an hour. Some of them may win and others not."""

    id: str
    price_nano: int
    slots: int
    since_us: int


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that an outcome depends on. `previous_nano` None: the first round, which no step holds back."""

    offer: str
    at_us: int
    capacity_slots: int
    other_slots: int  # taken by on-demand and reserved leases, which always come first
    floor_nano: int
    cap_nano: int
    previous_nano: int | None
    bids: tuple[Bid, ...]
    step_ppm: int = STEP_PPM

    @property
    def free_slots(self) -> int:
        """What is left to sell."""
        return max(0, self.capacity_slots - self.other_slots)


@dataclass(frozen=True, slots=True)
class Clearing:
    """The outcome: slots by winning bid, and the winners that should not count on the next round."""

    price_nano: int
    fair_nano: int  # what the price is on its way to
    won: Mapping[str, int] = field(default_factory=dict[str, int])
    hinted: tuple[str, ...] = ()


def clear(market: Round) -> Clearing:
    """Works out a round. Raises YardError `bids_invalid` for inputs that no market can have."""
    _must_be_sound(market)
    ordered = sorted(market.bids, key=lambda bid: (-bid.price_nano, bid.since_us, bid.id))
    fair = _within(market.floor_nano, _highest_loser(ordered, market), market.cap_nano)
    price = _within(market.floor_nano, _stepped(fair, market), market.cap_nano)
    left = market.free_slots
    won: dict[str, int] = {}
    for bid in ordered:
        if bid.price_nano < price or left == 0:
            break
        won[bid.id] = min(bid.slots, left)
        left -= won[bid.id]
    near = price + price * HINT_PPM // WHOLE_PPM
    short = left == 0
    hinted = tuple(bid.id for bid in ordered if bid.id in won and short and bid.price_nano < near)
    return Clearing(price, fair, won, hinted)


def losers(clearing: Clearing, running: Mapping[str, int]) -> dict[str, int]:
    """By bid, how many of its running leases have to go. They keep running for `NOTICE_US`."""
    gone = {bid: slots - clearing.won.get(bid, 0) for bid, slots in running.items()}
    return {bid: slots for bid, slots in sorted(gone.items()) if slots > 0}


def published(market: Round, clearing: Clearing) -> dict[str, Any]:
    """What anyone may read: all inputs, the price, and a digest over both. Bids stand under their ids alone."""
    facts: dict[str, Any] = {"round": asdict(market), "price_nano": clearing.price_nano, "won": dict(clearing.won)}
    facts["round"]["bids"] = [asdict(bid) for bid in sorted(market.bids, key=lambda bid: bid.id)]
    return {**facts, "digest": digest(facts)}


def digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 over the one byte form of what was published, without the digest itself."""
    told = {key: value for key, value in facts.items() if key != "digest"}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def recompute(facts: Mapping[str, Any]) -> Clearing:
    """A published round, worked out again. Raises YardError `bids_invalid` where it is not what was published."""
    try:
        told = facts["round"]
        inputs: dict[str, Any] = {**told, "bids": tuple(Bid(**bid) for bid in told["bids"])}
        market = Round(**inputs)
        price, won, said = facts["price_nano"], facts["won"], facts["digest"]
    except (KeyError, TypeError):
        raise YardError("bids_invalid", problem="unreadable") from None
    if digest(facts) != said:
        raise YardError("bids_invalid", problem="digest")
    clearing = clear(market)
    if clearing.price_nano != price or dict(clearing.won) != won:
        raise YardError("bids_invalid", problem="outcome", price=clearing.price_nano)
    return clearing


def _highest_loser(ordered: Sequence[Bid], market: Round) -> int:
    left = market.free_slots
    for bid in ordered:
        if bid.slots > left:
            return bid.price_nano
        left -= bid.slots
    return market.floor_nano


def _stepped(fair_nano: int, market: Round) -> int:
    """At most a step from the price before, and at least a nano where a step comes to less than one."""
    before = market.previous_nano
    if before is None:
        return fair_nano
    step = max(1, before * market.step_ppm // WHOLE_PPM)
    return _within(before - step, fair_nano, before + step)


def _within(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))


def _must_be_sound(market: Round) -> None:
    ids = {bid.id for bid in market.bids}
    if len(ids) != len(market.bids):
        raise YardError("bids_invalid", problem="twice")
    if any(bid.slots < 1 or bid.price_nano < 0 for bid in market.bids):
        raise YardError("bids_invalid", problem="empty")
    if not 0 <= market.floor_nano <= market.cap_nano or market.step_ppm < 0:
        raise YardError("bids_invalid", problem="bounds")

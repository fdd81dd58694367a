"""Which usage a commitment pays for: hour by hour, the dearest first, by the narrowest commitment that fits.

Within one clock hour (UTC) a commitment of share s covers s x 3,600 s of slices. Usage is taken by what a share of a
card costs, dearest first (ties: lease, run, price), and each is covered first by commitments to its very offer, then by
those to its card model, each kind in the order of purchase. As every commitment to an offer is also one to its model,
this covers what saves most: no other assignment saves more. What an hour leaves unused is lost.

Size is flexible by the fraction of a card: a commitment to one full card covers two halves or four quarters. Coverage
counts whole microseconds of a lease; what is left of a commitment below one is lost with the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key

from gpuyard.billing.commitments import Commitment
from gpuyard.model.units import HOUR_US


@dataclass(frozen=True, slots=True)
class Need:
    """What one lease used in one hour at one price. `key` tells it from all others, and orders ties."""

    key: tuple[str | int, ...]
    card_model: str
    offer: str
    share_ppm: int
    price_per_hour_nano: int
    duration_us: int


@dataclass(frozen=True, slots=True)
class Covered:
    """How long a commitment pays for a need."""

    need: Need
    commitment: Commitment
    duration_us: int


def cover(needs: Iterable[Need], commitments: Sequence[Commitment], hour: int) -> tuple[list[Covered], dict[str, int]]:
    """The assignment of one hour (counted from 1970), and by commitment what is left: share x microseconds."""
    narrow_first = sorted(commitments, key=lambda each: (each.offer is None, each.start_us, each.id))
    left = {each.id: capacity(each, hour) for each in narrow_first}
    covered: list[Covered] = []
    for need in sorted(needs, key=cmp_to_key(_dearest_first)):
        open_us = need.duration_us
        for commitment in narrow_first:
            if open_us == 0:
                break
            if commitment.card_model != need.card_model or commitment.offer not in (None, need.offer):
                continue
            paid_us = min(open_us, left[commitment.id] // need.share_ppm)
            if paid_us:
                left[commitment.id] -= paid_us * need.share_ppm
                open_us -= paid_us
                covered.append(Covered(need, commitment, paid_us))
    return covered, left


def capacity(commitment: Commitment, hour: int) -> int:
    """Share x microseconds that a commitment covers in this hour. Terms begin and end on full hours."""
    start_us = hour * HOUR_US
    return commitment.share_ppm * HOUR_US if commitment.start_us <= start_us < commitment.end_us else 0


def saving_nano_hours(covered: Iterable[Covered]) -> int:
    """What coverage saves, as nano-units x microseconds per hour: for comparing assignments exactly."""
    return sum(each.need.price_per_hour_nano * each.duration_us for each in covered)


def by_tenant(commitments: Iterable[Commitment]) -> Mapping[str, list[Commitment]]:
    """Commitments cover what their own tenant uses, and nothing else."""
    found: dict[str, list[Commitment]] = {}
    for commitment in commitments:
        found.setdefault(commitment.tenant_id, []).append(commitment)
    return found


def _dearest_first(one: Need, other: Need) -> int:
    """By price of a share, exactly: a/b > c/d as a x d > c x b."""
    mine, theirs = one.price_per_hour_nano * other.share_ppm, other.price_per_hour_nano * one.share_ppm
    if mine != theirs:
        return -1 if mine > theirs else 1
    return -1 if one.key < other.key else int(one.key > other.key)

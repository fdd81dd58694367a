"""What intervals on spot cost by the market: an independent reckoning, from the rounds that the yard kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from gpuyard.model.leases import Interval
from gpuyard.model.states import LeaseState


def at_market(
    intervals: Iterable[Interval], rounds: Mapping[str, Sequence[tuple[int, int]]], on_spot: Collection[str]
) -> list[Interval]:
    """The same time in pieces, each at the price that was in force, never above the one that was granted; numbered
    anew. `rounds`: by offer, from when on which price; `on_spot`: the leases that pay it."""
    pieces: list[Interval] = []
    numbers: dict[str, int] = defaultdict(int)
    for whole in sorted(intervals, key=lambda each: (each.lease_id, each.sequence)):
        known = rounds.get(whole.offer, ()) if whole.lease_id in on_spot and whole.state is LeaseState.ACTIVE else ()
        moments = [at for at, _ in known if whole.start_us < at < whole.end_us]
        for start_us, end_us in zip([whole.start_us, *moments], [*moments, whole.end_us], strict=True):
            before = [price for at, price in known if at <= start_us]
            most = whole.price_per_hour_nano
            price_nano = min(most, len(whole.card_uuids) * before[-1]) if before else most
            numbers[whole.lease_id] += 1
            piece = replace(whole, start_us=start_us, end_us=end_us, price_per_hour_nano=price_nano)
            pieces.append(replace(piece, sequence=numbers[whole.lease_id]))
    return pieces

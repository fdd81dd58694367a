"""What workloads send: counters are read every ten seconds and when a unit has ended, and what they grew by is charged.

A counter and what follows from it are written in one transaction: a yard that is killed counts nothing twice, and the
next one goes on from where the counter was. A counter that is lower than before began anew. What nobody read before a
unit was gone is not charged; what a runtime cannot tell apart is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from gpuyard.billing.conditions import Transfer
from gpuyard.control.yard import Yard
from gpuyard.engines.runtime import Observation, Runtime, UnitState
from gpuyard.model.leases import Lease
from gpuyard.model.units import DAY_US
from gpuyard.store import charges, egress, leases, meters, workloads
from gpuyard.store.egress import Counter, Sent

EVERY_US: Final = 10_000_000


class EgressWatch:
    """Reads the counters of one yard. What it remembers only spares it work: which ended units it has read for the last
    time, and what counters said that need not be looked up again."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._done: frozenset[str] = frozenset()
        self._said: dict[str, int] = {}
        self._next_us = 0

    def look(self, observations: Mapping[str, Observation], owner: Mapping[str, Runtime], now_us: int) -> None:
        """Nothing where no book ever asks a price for it."""
        if not _is_sold(self._yard):
            return
        ended = frozenset(name for name, seen in observations.items() if seen.state is UnitState.EXITED)
        due: Iterable[str] = ended - self._done
        if now_us >= self._next_us:
            due = {*due, *(name for name, seen in observations.items() if seen.state is UnitState.RUNNING)}
            self._next_us = now_us + EVERY_US
        told = {name: self._yard.engine.sent_bytes(owner[name], name) for name in sorted(due)}
        read = {name: sent for name, sent in told.items() if sent and sent != self._said.get(name)}
        if read:
            self._keep(read, ended, now_us)
        self._said = {name: sent for name, sent in {**self._said, **read}.items() if name in observations}
        self._done = ended

    def _keep(self, read: Mapping[str, int], ended: frozenset[str], now_us: int) -> None:
        last = [name.rpartition("-")[0] for name in read if name in ended]
        with self._yard.store.write() as c:
            known = egress.counters(c, {name.rpartition("-")[0] for name in read})
            changed: list[Counter] = []
            sent: list[Sent] = []
            for name, bytes_out in read.items():
                lease = leases.get(c, name.rpartition("-")[0])
                before = None if lease is None else _counter(c, self._yard, lease, name, known.get(lease.id))
                if lease is None or before is None:
                    continue
                price = before.price_per_gib_nano
                after = replace(before, bytes_out=bytes_out) if price else before  # else the price is all to remember
                if after != known.get(lease.id):
                    changed.append(after)
                if price and (grown := _grown(before.bytes_out, bytes_out)):
                    sent.append(_sent(c, lease, price, now_us // DAY_US, grown))
            egress.keep(c, changed, sent)
            for lease_id in {each.lease_id for each in sent} & set(last):
                charges.mark_due(c, lease_id)  # with what it sent or not at all; what runs is posted anyway


def _is_sold(yard: Yard) -> bool:
    books = yard.prices.books if yard.prices is not None else (yard.book,)
    return any(book.egress_per_gib_nano for book in books)


def _grown(before: int | None, now: int) -> int:
    if before is None:
        return 0
    return now - before if now >= before else now


def _counter(c: Connection, yard: Yard, lease: Lease, unit: str, known: Counter | None) -> Counter | None:
    """Where the counter of this unit stood; a new unit's at nothing. None for a unit before the one known. All of a run
    is charged at the price that was in force when the run was granted."""
    if known is not None and known.unit == unit:
        return known
    if known is not None and _attempt(known.unit) > _attempt(unit):
        return None
    if known is not None and known.run == lease.run:
        return replace(known, unit=unit, bytes_out=0 if known.unit else None)
    began_us = meters.run_began(c, lease.id, lease.run)
    book = yard.prices.known_at(began_us) if yard.prices is not None and began_us is not None else yard.book
    return Counter(lease.id, unit, lease.run, book.egress_per_gib_nano if book is not None else 0, 0)


def _attempt(unit: str) -> int:
    number = unit.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _sent(c: Connection, lease: Lease, price_nano: int, day: int, bytes_out: int) -> Sent:
    workload = workloads.get(c, lease.workload_id)
    name, offer = ("", None) if workload is None else (workload.name, workload.spec.slices.offer)
    currency = "" if lease.terms is None else lease.terms.currency
    return Sent(
        lease.id, day, price_nano, lease.tenant_id, lease.workload_id, name, offer or "custom", currency, bytes_out
    )


def transfers(sent: Iterable[Sent]) -> tuple[Transfer, ...]:
    """As rating takes them."""
    return tuple(
        Transfer(
            id=f"{each.lease_id}/{each.day}/{each.price_per_gib_nano}",
            tenant_id=each.tenant_id,
            workload_id=each.workload_id,
            workload_name=each.workload_name,
            lease_id=each.lease_id,
            offer=each.offer,
            at_us=each.day * DAY_US,
            quantity_bytes=each.bytes_out,
            price_per_gib_nano=each.price_per_gib_nano,
            currency=each.currency,
        )
        for each in sent
    )

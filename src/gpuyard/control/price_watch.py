"""Brings the price book into force whose time has come."""

from __future__ import annotations

from gpuyard.control.roster import Roster
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.store import events


def follow_prices(yard: Yard, now_us: int) -> None:
    """Leases that were granted keep their terms; offers and what is granted from now on follow the book in force."""
    if yard.prices is None:
        return
    book = yard.prices.at(now_us)
    if book is yard.book:
        return
    yard.book = book
    kind = yard.engine.default
    yard.roster = Roster.of(list(yard.roster.nodes), book, kind, yard.engine.shim_on(kind), yard.engine.mps_on(kind))
    with yard.store.write() as c:
        events.append(c, [Event("prices.changed", book.version, now_us, data={"currency": book.currency})])

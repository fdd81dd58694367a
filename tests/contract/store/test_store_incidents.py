"""Incidents as the store keeps them, on every database."""

from __future__ import annotations

from dataclasses import replace

from gpuyard.model.incidents import Cause, Incident, Outcome
from gpuyard.store import incidents
from gpuyard.store.database import Store

ONE = Incident("in-1", Cause.CARD_LOST, "n1", "GPU-1", None, "", 100, "yard", 90)


def test_an_incident_comes_back_as_it_was_told_and_about_the_same_there_is_one_open(store: Store) -> None:
    with store.write() as c:
        assert incidents.insert(c, ONE)
        assert not incidents.insert(c, replace(ONE, id="in-2"))
        assert incidents.insert(c, replace(ONE, id="in-3", card_uuid="GPU-2"))
        assert incidents.insert(c, replace(ONE, id="in-4", cause=Cause.HARDWARE))
    with store.read() as c:
        assert incidents.find(c, "in-1") == ONE
        assert incidents.find(c, "in-2") is None
        assert incidents.open_about(c, Cause.CARD_LOST, "n1", "GPU-1") == ONE
        assert incidents.open_about(c, Cause.NODE_LOST, "n1", None) is None
        assert [each.id for each in incidents.listing(c, limit=2)] == ["in-4", "in-3"]


def test_it_is_closed_once_and_may_then_happen_again(store: Store) -> None:
    with store.write() as c:
        incidents.insert(c, ONE)
        assert incidents.close(c, "in-1", 200, "op", Outcome.REPAIRED)
        assert not incidents.close(c, "in-1", 300, "op", Outcome.REPAIRED)
        assert incidents.insert(c, replace(ONE, id="in-2"))
    with store.read() as c:
        closed = replace(ONE, closed_us=200, closed_by="op", outcome=Outcome.REPAIRED)
        assert incidents.find(c, "in-1") == closed
        assert [each.id for each in incidents.listing(c, only_open=True)] == ["in-2"]


def test_nothing_is_given_back_for_what_was_none_or_where_nothing_is_known_to_have_been_well(store: Store) -> None:
    with store.write() as c:
        incidents.insert(c, ONE)
        incidents.insert(c, replace(ONE, id="in-2", card_uuid="GPU-2"))
        incidents.insert(c, replace(ONE, id="in-3", cause=Cause.RECONCILIATION, last_good_us=None))
        assert incidents.dismiss(c, "in-2", 300, "op")
        assert not incidents.dismiss(c, "in-2", 400, "op")
    with store.read() as c:
        assert incidents.giving_back(c) == [ONE]

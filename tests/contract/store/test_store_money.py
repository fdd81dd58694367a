"""Documents, commitments and spot rounds in both engines: added in order, found again, never changed."""

from __future__ import annotations

import pytest
from sqlalchemy import exc

from gpuyard.model.leases import PurchaseOption
from gpuyard.store import commitments, documents, leases
from gpuyard.store.database import Store
from gpuyard.store.documents import StoredDocument


def a_document(sequence: int, tenant: str = "tn-1", kind: str = "invoice") -> StoredDocument:
    return StoredDocument(sequence, f"INV-{sequence:06}", kind, tenant, 10 * sequence, "", f"hash-{sequence}", "{}")


def test_documents_stand_in_the_order_of_issue_and_are_found_by_number(store: Store) -> None:
    with store.write() as c:
        assert documents.newest(c) == (0, "")
        for sequence, tenant in ((1, "tn-1"), (2, "tn-2"), (3, "tn-1")):
            documents.insert(c, a_document(sequence, tenant))
    with store.read() as c:
        assert documents.newest(c) == (3, "hash-3")
        assert [found.sequence for found in documents.listing(c)] == [1, 2, 3]
        assert [found.sequence for found in documents.listing(c, "tn-1", limit=5)] == [3, 1]
        assert [found.sequence for found in documents.listing(c, before=3, limit=1)] == [2]
        assert documents.find(c, "INV-000002") == a_document(2, "tn-2")
        assert documents.find(c, "INV-000009") is None


def test_no_two_documents_have_the_same_place(store: Store) -> None:
    with store.write() as c:
        documents.insert(c, a_document(1))
    with pytest.raises(exc.IntegrityError), store.write() as c:
        documents.insert(c, a_document(1))


@pytest.mark.parametrize("table", ["documents", "commitments", "spot_rounds"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET body = 'other'", "DELETE FROM {}"])
def test_nothing_of_it_is_ever_changed_or_deleted(store: Store, table: str, statement: str) -> None:
    with store.write() as c:
        documents.insert(c, a_document(1))
        commitments.insert(c, "cm-1", "tn-1", 5, "{}")
        commitments.add_round(c, "rtx4090-half", 60, 7, "{}")
    with pytest.raises(exc.DBAPIError, match="immutable"), store.write() as c:
        c.exec_driver_sql(statement.format(table))


def test_commitments_are_told_in_the_order_of_purchase_and_by_tenant(store: Store) -> None:
    with store.write() as c:
        assert not commitments.any_at_all(c)
        for name, tenant in (("cm-2", "tn-1"), ("cm-1", "tn-2")):
            commitments.insert(c, name, tenant, 5, f'"{name}"')
    with store.read() as c:
        assert commitments.any_at_all(c)
        assert commitments.bodies(c) == ['"cm-1"', '"cm-2"']
        assert commitments.bodies(c, "tn-1") == ['"cm-2"']


def test_spot_prices_are_told_by_offer_and_time_and_the_newest_round_whole(store: Store) -> None:
    with store.write() as c:
        for offer, at_us, price in (("a", 60, 5), ("a", 120, 6), ("b", 60, 9)):
            commitments.add_round(c, offer, at_us, price, f'"{offer}{at_us}"')
    with store.read() as c:
        assert commitments.spot_prices(c) == {"a": [(60, 5), (120, 6)], "b": [(60, 9)]}
        assert commitments.spot_prices(c, "b") == {"b": [(60, 9)]}
        assert commitments.newest_rounds(c) == {"a": (120, 6, '"a120"'), "b": (60, 9, '"b60"')}
        assert commitments.rounds(c, "a", 1) == ['"a120"']


def test_without_leases_on_spot_none_is_told(store: Store) -> None:
    with store.read() as c:
        assert leases.bought_otherwise(c, None) == {}
        assert PurchaseOption.SPOT not in leases.bought_otherwise(c, "tn-1").values()

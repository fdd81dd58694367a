"""The audit log, policies, quotas and geography, on every database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import exc, text

from gpuyard.model.attachments import Attachment
from gpuyard.model.errors import YardError
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import Workload
from gpuyard.store import audit, limits, policies, workloads
from gpuyard.store.database import Store

AMOUNTS = {"card_share_ppm": 250_000, "card_memory_bytes": 6 << 30, "storage_bytes": 2**60, "spend_per_hour_nano": 7}


def written(store: Store, count: int) -> None:
    with store.write() as c:
        audit.append(c, [(n, "t-1", lambda sequence: f'{{"seq":{sequence}}}') for n in range(count)])


def test_entries_are_numbered_from_nothing_without_a_gap_and_never_change(store: Store) -> None:
    written(store, 2)
    with pytest.raises(ZeroDivisionError), store.write() as c:
        audit.append(c, [(0, "t-1", lambda _: "{}"), (0, "t-1", lambda sequence: str(1 // (sequence - 3)))])
    written(store, 3)
    with store.read() as c:
        assert list(audit.leaves(c, 1, 4)) == ['{"seq":1}', '{"seq":2}', '{"seq":3}']
        assert audit.size(c) == 5
        assert audit.since(c, 2, 10) == ['{"seq":4}']
        assert (audit.tenant_of(c, 4), audit.tenant_of(c, 5)) == ("t-1", None)
    for table in ("audit", "audit_checkpoints"):
        with store.write() as c:
            audit.add_checkpoint(c, audit.Checkpoint(5 + len(table), 1, (b"\x01" * 32,), "note"))
        with pytest.raises(exc.DBAPIError, match="immutable"), store.write() as c:
            c.execute(text(f"DELETE FROM {table}"))
    with store.read() as c:
        newest = audit.newest_checkpoint(c)
    assert newest is not None
    assert (newest.size, newest.frontier) == (22, (b"\x01" * 32,))


def test_a_subject_that_was_shredded_keeps_nothing_but_its_id(store: Store) -> None:
    with store.write() as c:
        audit.add_subject(c, audit.Subject("sb-1", "t-1", "bob", b"key"))
        assert audit.subject(c, "t-1", "bob") == audit.Subject("sb-1", "t-1", "bob", b"key")
        assert audit.shred(c, "t-1", "bob", 9) == "sb-1"
        audit.add_subject(c, audit.Subject("sb-2", "t-1", "bob", b"new"))
        assert audit.shred(c, "t-1", "bob", 9) == "sb-2"
        assert {(one.name, one.sealed_key) for one in audit.subjects(c)} == {(None, None)}
        with pytest.raises(YardError):
            audit.shred(c, "t-1", "bob", 9)


def test_policies_and_what_they_are_attached_to_come_back(store: Store) -> None:
    one = Attachment("p", "user", "t-1/bob", True)
    with store.write() as c:
        policies.put(c, "p", "{}", 1)
        policies.put(c, "p", "{ }", 2)
        policies.attach(c, one)
        policies.attach(c, one)
        assert policies.attachments(c) == [one]
        assert [(row.document, row.updated_us) for row in policies.listing(c)] == [("{ }", 2)]
        with pytest.raises(YardError) as refused:
            policies.delete(c, "p")
        assert refused.value.code == "policy_in_use"
        assert policies.detach(c, one)
        assert not policies.detach(c, one)
        policies.delete(c, "p")
        policies.add_organisation(c, "og-1", "acme", 1)
        policies.put_project(c, "t-1", "og-1")
        policies.put_project(c, "t-1", "og-1")
        assert (policies.organisations(c), policies.projects(c)) == ({"og-1": "acme"}, {"t-1": "og-1"})
    with pytest.raises(YardError) as taken, store.write() as c:
        policies.add_organisation(c, "og-2", "acme", 1)
    assert taken.value.code == "name_taken"


def test_what_rests_counts_for_its_disk_alone_and_what_is_removed_for_nothing(
    store: Store, a_workload: Callable[..., Workload]
) -> None:
    with store.write() as c:
        made = a_workload()
        workloads.insert(c, made, {})
        limits.claim(c, made.id, made.tenant_id, "bob", AMOUNTS)
        policies.put_project(c, made.tenant_id, "og-1")
        subjects = (("organisation", "og-1"), ("project", made.tenant_id), ("user", f"{made.tenant_id}/bob"))
        for kind, subject in subjects:
            assert limits.held(c, kind, subject) == AMOUNTS
        workloads.set_state(c, made.id, WorkloadState.STOPPED, None, {}, None, 2)
        resting = dict.fromkeys(AMOUNTS, 0) | {"storage_bytes": 2**60}
        assert all(limits.held(c, kind, subject) == resting for kind, subject in subjects)
        workloads.set_state(c, made.id, WorkloadState.REMOVED, None, {}, None, 3)
        assert all(not any(limits.held(c, kind, subject).values()) for kind, subject in subjects)
        assert limits.claim_of(c, made.id) == ("bob", AMOUNTS)
        assert limits.claim_of(c, "wl-none") is None


def test_quotas_and_geography_come_back_as_they_were_set_last(store: Store) -> None:
    with store.write() as c:
        limits.put_quota(c, "project", "t-1", "storage_bytes", 1, 2**61)
        limits.put_quota(c, "project", "t-1", "storage_bytes", None, 2**61)
        limits.put_quota(c, "project", "t-2", "storage_bytes", 1, None)
        limits.put_quota(c, "project", "t-2", "storage_bytes", None, None)
        assert limits.quotas(c, [("project", "t-1")], lock=True) == [("project", "t-1", "storage_bytes", None, 2**61)]
        assert limits.quotas(c, []) == []
        limits.put_export_class(c, "eu", ["H100"], ["DE"])
        limits.put_export_class(c, "gone", ["H100"], ["DE"])
        limits.put_export_class(c, "gone", [], [])
        assert limits.export_classes(c) == [("eu", ["H100"], ["DE"])]
        limits.put_country(c, "t-1", "DE", "kyc", "00", 5)
        limits.put_country(c, "t-1", "FR", "kyc", "00", 6)
        assert limits.countries(c) == {"t-1": ("FR", "kyc", "00", 6)}
        limits.put_networks(c, {"10.0.0.0/8": "DE", "192.0.2.1/32": None})
        limits.put_networks(c, {"2001:db8::/32": "DE", "192.0.2.1/32": None})
        assert limits.networks(c) == {"192.0.2.1/32": None, "2001:db8::/32": "DE"}

"""Leases and their slices, on every database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import event, exc

from gpuyard.model.leases import Lease, Terms
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.model.states import LeaseState
from gpuyard.store import leases
from gpuyard.store.database import Store

Make = Callable[..., Lease]

_TERMS = Terms("USD", 2**60, 0, 60_000_000)


def _slice(lease_id: str, card: str, memory_bytes: int = 4, compute_ppm: int = 250_000) -> Slice:
    return Slice(lease_id, card, SliceShape(memory_bytes, compute_ppm), Guarantee.COOPERATIVE)


def test_a_lease_comes_back_as_it_was_put_in(store: Store, a_lease: Make) -> None:
    full = a_lease(
        state=LeaseState.ACTIVE,
        run=2,
        attempt=3,
        restarts=1,
        node="node-1",
        slices=(_slice("ls-1", "GPU-a", 2**62), _slice("ls-1", "GPU-b")),
        terms=_TERMS,
        reason="exited",
        exit_code=137,
        detail="/opt/训练: no such file",
        not_before_us=2**62,
        run_started_us=2**61,
        created_us=2**60,
        updated_us=2**60 + 1,
    )
    with store.write() as c:
        leases.insert(c, full)
        leases.hold(c, full.id, full.slices)
    with store.read() as c:
        assert leases.get(c, full.id) == full
        assert leases.get(c, "ls-9") is None
        assert leases.open_leases(c) == leases.of_workload(c, "wl-1") == leases.page(c, None, None, 9, None) == [full]


def test_an_update_of_a_lease_that_has_moved_on_changes_nothing(store: Store, a_lease: Make) -> None:
    lease = a_lease()
    granted = replace(lease, state=LeaseState.GRANTED, node="node-1", terms=_TERMS, updated_us=5)
    stale = replace(lease, state=LeaseState.STOPPED, reason="stopped", updated_us=6)
    with store.write() as c:
        leases.insert(c, lease)
        assert leases.update(c, granted, LeaseState.REQUESTED)
        assert not leases.update(c, stale, LeaseState.REQUESTED)
        assert not leases.update(c, replace(granted, id="ls-9"), LeaseState.GRANTED)
        assert leases.get(c, "ls-1") == granted


def test_what_a_start_failed_of_is_kept_until_the_next_one_is_tried(store: Store, a_lease: Make) -> None:
    lease = a_lease(state=LeaseState.GRANTED, node="node-1", terms=_TERMS)
    failed = replace(lease, state=LeaseState.STOPPED, reason="start_failed", detail="exec: no-such-program\n" * 20)
    with store.write() as c:
        leases.insert(c, lease)
        assert leases.update(c, failed, LeaseState.GRANTED)
        assert leases.get(c, "ls-1") == failed
        assert leases.update(c, replace(failed, state=LeaseState.REQUESTED, detail=None), LeaseState.STOPPED)
        found = leases.get(c, "ls-1")
        assert found is not None
        assert found.detail is None


def test_a_replica_has_one_live_lease(store: Store, a_lease: Make) -> None:
    with store.write() as c:
        leases.insert(c, a_lease(state=LeaseState.ENDED))
        leases.insert(c, a_lease(id="ls-2"))
        leases.insert(c, a_lease(id="ls-3", replica=1))
    with pytest.raises(exc.IntegrityError), store.write() as c:
        leases.insert(c, a_lease(id="ls-4"))
    with store.read() as c:
        assert [lease.id for lease in leases.of_workload(c, "wl-1")] == ["ls-2", "ls-3"]
        assert [lease.id for lease in leases.of_workload(c, "wl-1", include_ended=True)] == ["ls-1", "ls-2", "ls-3"]


def test_usage_of_a_card_is_the_sum_of_what_is_held_of_it(store: Store, a_lease: Make) -> None:
    with store.write() as c:
        for number in range(3):
            leases.insert(c, a_lease(id=f"ls-{number}", replica=number, state=LeaseState.GRANTED))
            leases.hold(
                c, f"ls-{number}", [_slice(f"ls-{number}", "GPU-a", 2**60), _slice(f"ls-{number}", f"GPU-{number}")]
            )
        assert leases.usage(c)["GPU-a"] == (3 * 2**60, 750_000)
        assert leases.release(c, "ls-1") == 2
        assert leases.release(c, "ls-1") == 0
        assert leases.usage(c) == {"GPU-a": (2 * 2**60, 500_000), "GPU-0": (4, 250_000), "GPU-2": (4, 250_000)}


def test_a_lease_cannot_hold_two_slices_of_one_card(store: Store, a_lease: Make) -> None:
    with store.write() as c:
        leases.insert(c, a_lease())
    with pytest.raises(exc.IntegrityError), store.write() as c:
        leases.hold(c, "ls-1", [_slice("ls-1", "GPU-a"), _slice("ls-1", "GPU-a")])
    with store.read() as c:
        assert leases.usage(c) == {}
        assert leases.get(c, "ls-1") == a_lease()


def test_reading_the_open_leases_takes_as_many_queries_for_fifty_as_for_one(store: Store, a_lease: Make) -> None:
    counted: list[str] = []
    with store.write() as c:
        for number in range(50):
            leases.insert(c, a_lease(id=f"ls-{number:02}", replica=number, state=LeaseState.ACTIVE))
            leases.hold(c, f"ls-{number:02}", [_slice(f"ls-{number:02}", "GPU-a"), _slice(f"ls-{number:02}", "GPU-b")])
        leases.insert(c, a_lease(id="ls-99", replica=99, state=LeaseState.ENDED))
        event.listen(c, "before_cursor_execute", lambda *seen: counted.append(str(seen[2])))
        found = leases.open_leases(c)
    assert [lease.id for lease in found] == [f"ls-{number:02}" for number in range(50)]
    assert all(len(lease.slices) == 2 for lease in found)
    assert len(counted) <= 3


def test_pages_of_leases_are_those_of_the_tenant_in_these_states_newest_first(store: Store, a_lease: Make) -> None:
    with store.write() as c:
        for number in range(6):
            state = LeaseState.ENDED if number % 2 else LeaseState.STOPPED
            leases.insert(c, a_lease(id=f"ls-{number}", replica=number, state=state))
        leases.insert(c, a_lease(id="ls-7", tenant_id="t-2", workload_id="wl-2"))
        stopped = leases.page(c, "t-1", [LeaseState.STOPPED], 2, None)
        assert [lease.id for lease in stopped] == ["ls-4", "ls-2"]
        assert [lease.id for lease in leases.page(c, "t-1", [LeaseState.STOPPED], 2, "ls-2")] == ["ls-0"]
        assert [lease.id for lease in leases.page(c, None, None, 2, None)] == ["ls-7", "ls-5"]
        assert [lease.id for lease in leases.of_workloads(c, ["wl-2", "wl-9"])] == ["ls-7"]


def test_six_hundred_leases_of_one_workload_each_have_their_own_slices(store: Store, a_lease: Make) -> None:
    with store.write() as c:
        for number in range(600):
            leases.insert(c, a_lease(id=f"ls-{number:03}", replica=number, state=LeaseState.GRANTED))
            leases.hold(c, f"ls-{number:03}", [_slice(f"ls-{number:03}", f"GPU-{number}")])
        found = leases.of_workload(c, "wl-1")
    assert [lease.slices[0].card_uuid for lease in found] == [f"GPU-{number}" for number in range(600)]
    assert all(lease.slices[0].lease_id == lease.id for lease in found)

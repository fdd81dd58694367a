"""Shares, placements with notices, demand and topologies, on every database."""

from __future__ import annotations

from dataclasses import replace

from gpuyard.hardware.simulated import SimulatedProbe
from gpuyard.model.tenants import Share
from gpuyard.store import demand, fleet, placements, shares
from gpuyard.store.database import Store
from gpuyard.store.placements import Notice

_BIG = 2**60


def test_a_share_comes_back_as_it_was_set_and_can_be_set_again(store: Store) -> None:
    first = Share(3, 2_500_000, _BIG, may_borrow=False, max_priority=7)
    with store.write() as c:
        shares.put(c, "t-1", first)
        shares.put(c, "t-2", Share(2))
        shares.put(c, "t-2", replace(first, quota_compute_ppm=None))
    with store.read() as c:
        assert shares.of(c, "t-1") == first
        assert shares.of(c, "t-3") == Share()
        assert shares.every(c) == {"t-1": first, "t-2": replace(first, quota_compute_ppm=None)}


def test_a_notice_is_given_once_stands_and_ends_with_what_it_led_to(store: Store) -> None:
    notice = Notice("ls-1", _BIG, _BIG + 120, "ls-9")
    with store.write() as c:
        assert not placements.notify(c, notice), "there is no placement to give notice of"
        placements.place(c, "ls-1", {"domain": "island", "lost": 5}, 1)
        placements.place(c, "ls-2", {}, 1)
        assert placements.notify(c, notice)
        assert not placements.notify(c, replace(notice, until_us=_BIG + 999))
        placements.checkpoint(c, ["ls-1", "ls-3"], 7)
    with store.read() as c:
        assert placements.notices(c) == {"ls-1": notice}
        row = placements.of(c, ["ls-1", "ls-3"])["ls-1"]
        assert (row.why, row.checkpoint_us, row.notice) == ({"domain": "island", "lost": 5}, 7, notice)
    with store.write() as c:
        placements.reclaimed(c, "ls-1", 8)
    with store.read() as c:
        assert placements.notices(c) == {}
        row = placements.of(c, ["ls-1"])["ls-1"]
        assert (row.reclaims, row.reclaimed_us, row.checkpoint_us, row.notice) == (1, 8, 7, None)
    with store.write() as c:
        placements.place(c, "ls-1", {"domain": "node"}, 9)
        placements.notify(c, notice)
        placements.withdraw(c, "ls-1")
    with store.read() as c:
        row = placements.of(c, ["ls-1"])["ls-1"]
        assert (row.placed_us, row.why, row.reclaims, row.notice) == (9, {"domain": "node"}, 1, None)
    with store.write() as c:
        placements.drop(c, "ls-1")
        assert placements.of(c, ["ls-1"]) == {}


def test_the_highest_demand_of_an_hour_stays_and_old_hours_go(store: Store) -> None:
    with store.write() as c:
        demand.see(c, 100, {"H100": 5, "": 1}, 50)
        demand.see(c, 100, {"H100": 3}, 50)
        demand.see(c, 101, {"H100": _BIG}, 50)
        demand.see(c, 102, {}, 50)
    with store.read() as c:
        assert sorted(demand.history(c)) == [(100, "", 1), (100, "H100", 5), (101, "H100", _BIG)]
    with store.write() as c:
        demand.see(c, 151, {}, 50)
    with store.read() as c:
        assert demand.history(c) == [(101, "H100", _BIG)]


def test_a_topology_comes_back_as_it_was_found(store: Store) -> None:
    (node,) = SimulatedProbe.from_spec("4xH100,2xRTX4090").probe().nodes
    with store.write() as c:
        fleet.save_node(c, node, 1)
    with store.read() as c:
        assert fleet.nodes(c)[0].topology == node.topology
    with store.write() as c:
        fleet.save_node(c, replace(node, topology=None), 2)
    with store.read() as c:
        assert fleet.nodes(c)[0].topology is None

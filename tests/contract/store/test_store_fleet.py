"""Nodes, cards, tenants, tokens and idempotency keys, on every database."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Card, Node
from gpuyard.model.states import CardState, NodeState
from gpuyard.model.tenants import Identity, Role, Tenant
from gpuyard.store import fleet, idempotency, tenants
from gpuyard.store.database import Store

_BIG = 2**62  # past what 32 bits and a float hold
_CARDS = (
    Card("GPU-a", "RTX4090", "node-1", "0000:01:00.0", 24 << 30, numa_node=1, driver="580.1", simulated=False),
    Card("GPU-b", "H100", "node-1", "0000:02:00.0", _BIG, simulated=True),
)
_NODE = Node("node-1", 64_000, _BIG, _CARDS, rack="机架-7", region="eu", simulated=True)
_TENANT = Tenant("t-1", "acme", credit_nano=-5, currency="USD", created_us=_BIG)


def test_a_node_and_its_cards_come_back_as_they_were_saved(store: Store) -> None:
    bare = Node("node-0", 1, 1)
    with store.write() as c:
        fleet.save_node(c, _NODE, 1)
        fleet.save_node(c, bare, 1)
    with store.read() as c:
        assert fleet.nodes(c) == [bare, _NODE]
        assert fleet.cards(c) == list(_CARDS)


def test_saving_a_node_again_updates_what_it_is_but_not_the_states_that_were_set(store: Store) -> None:
    with store.write() as c:
        fleet.save_node(c, _NODE, 1)
        fleet.set_node_state(c, "node-1", NodeState.CORDONED)
        fleet.set_card_state(c, "GPU-a", CardState.MISSING)
        fleet.save_node(c, replace(_NODE, cpu_milli=8, cards=(replace(_CARDS[0], driver="590"),)), 2)
    with store.read() as c:
        (node,) = fleet.nodes(c)
    assert (node.cpu_milli, node.state) == (8, NodeState.CORDONED)
    assert [(card.uuid, card.driver, card.state) for card in node.cards] == [
        ("GPU-a", "590", CardState.MISSING),
        ("GPU-b", None, CardState.HEALTHY),  # not given this time, and not forgotten
    ]


def test_the_fleet_version_moves_only_from_what_was_expected(store: Store) -> None:
    with store.write() as c:
        seen = fleet.version(c)
        assert fleet.advance(c, seen)
        assert not fleet.advance(c, seen)
        assert fleet.version(c) == seen + 1


def test_of_many_that_planned_on_the_same_version_one_wins(lasting_url: str) -> None:
    stores = [Store.open(lasting_url) for _ in range(5)]
    with stores[0].read() as c:
        seen = fleet.version(c)
    wins: list[bool] = []
    ready = threading.Barrier(len(stores))

    def race(store: Store) -> None:
        ready.wait()
        with store.write() as c:
            wins.append(fleet.advance(c, seen))

    racers = [threading.Thread(target=race, args=(store,), daemon=True) for store in stores]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert sorted(wins) == [False] * 4 + [True]
    for store in stores:
        store.close()


def test_a_tenant_is_found_by_its_id_and_by_its_name(store: Store) -> None:
    later = Tenant("t-2", "late", credit_nano=None, currency="EUR", created_us=2)
    with store.write() as c:
        tenants.insert(c, later)
        tenants.insert(c, _TENANT)
    with store.read() as c:
        assert tenants.find(c, "t-1") == tenants.find(c, "acme") == _TENANT
        assert tenants.find(c, "nobody") is None
        assert tenants.listing(c) == [_TENANT, later]


def test_a_tenant_whose_name_is_the_id_of_another_does_not_take_its_place(store: Store) -> None:
    impostor = Tenant("t-0", "t-1", credit_nano=None, currency="USD", created_us=1)
    with store.write() as c:
        tenants.insert(c, impostor)
        tenants.insert(c, _TENANT)
        assert tenants.find(c, "t-1") == _TENANT


def test_two_tenants_cannot_have_one_name(store: Store) -> None:
    with store.write() as c:
        tenants.insert(c, _TENANT)
    with pytest.raises(YardError, match="name_taken"), store.write() as c:
        tenants.insert(c, replace(_TENANT, id="t-2"))
    with store.read() as c:
        assert tenants.listing(c) == [_TENANT]


def test_credit_adds_up_exactly_also_beyond_what_a_float_can_hold(store: Store) -> None:
    with store.write() as c:
        tenants.insert(c, replace(_TENANT, credit_nano=2**53))
        tenants.insert(c, replace(_TENANT, id="t-2", name="late", credit_nano=None))
        tenants.add_credit(c, "t-1", 1)
        tenants.add_credit(c, "t-2", 7)
    with store.read() as c:
        assert [tenant.credit_nano for tenant in tenants.listing(c)] == [2**53 + 1, 7]


def test_a_token_proves_who_asks_until_it_is_revoked(store: Store) -> None:
    with store.write() as c:
        tenants.insert_token(c, "tk-1", "t-1", "ann", Role.MEMBER, "digest-1", 5)
        tenants.insert_token(c, "tk-2", "t-2", "bob", Role.VIEWER, "digest-2", 6)
        assert tenants.identity(c, "digest-1") == Identity("tk-1", "ann", Role.MEMBER, "t-1")
        assert tenants.identity(c, "digest-3") is None
        assert tenants.revoke(c, "tk-1", 9)
        assert not tenants.revoke(c, "tk-1", 10)
        assert not tenants.revoke(c, "tk-9", 10)
    with store.read() as c:
        assert tenants.identity(c, "digest-1") is None
        assert [(row.token_id, row.role, row.revoked_us) for row in tenants.tokens(c, None)] == [
            ("tk-1", Role.MEMBER, 9),
            ("tk-2", Role.VIEWER, None),
        ]
        assert [row.token_id for row in tenants.tokens(c, "t-2")] == ["tk-2"]


def test_an_idempotency_key_is_remembered_per_tenant_until_it_is_old(store: Store) -> None:
    with store.write() as c:
        idempotency.remember(c, "t-1", "key", "print", "wl-1", 100)
        idempotency.remember(c, "t-2", "key", "other", "wl-2", 200)
        assert idempotency.recall(c, "t-1", "key") == ("print", "wl-1")
        assert idempotency.recall(c, "t-3", "key") is None
        idempotency.forget_before(c, 200)
    with store.read() as c:
        assert idempotency.recall(c, "t-1", "key") is None
        assert idempotency.recall(c, "t-2", "key") == ("other", "wl-2")

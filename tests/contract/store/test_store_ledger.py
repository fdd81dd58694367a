"""The ledger on every database: batches, ids that are told twice, the alarm, and what can never be changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import exc

from gpuyard.billing.ledger import faults
from gpuyard.model.ledger import MAX_NANO, AccountKind, Charge, Transfer, TransferKind, account, move
from gpuyard.store import charges, events, ledger, reconciliation, vouchers
from gpuyard.store.database import Store
from gpuyard.store.vouchers import Voucher

CASH, WALLET, HOLDS = (
    account(kind, "t-1", "USD") for kind in (AccountKind.CASH, AccountKind.WALLET, AccountKind.HOLDS)
)


def top_up(number: str, amount: int = 5) -> Transfer:
    return move(number, 1, TransferKind.TOP_UP, (CASH, WALLET), amount, "USD", "t-1", "subject")


def test_a_batch_moves_every_balance_once_and_all_accounts_hold_nothing_together(store: Store) -> None:
    batch = [top_up(f"tr-{n}", n + 1) for n in range(1000)]
    with store.write() as c:
        assert len(ledger.post(c, batch).new) == 1000
        total = sum(t.amount_nano for t in batch)
        assert ledger.balances(c) == {CASH: -total, WALLET: total}
        assert list(ledger.every(c)) == batch
        assert reconciliation.ledger_faults(c) == []


def test_what_is_told_again_moves_nothing_though_half_of_the_batch_is_new(store: Store) -> None:
    with store.write() as c:
        ledger.post(c, [top_up("a"), top_up("b")])
        told = ledger.post(c, [top_up("b"), replace(top_up("a"), at_us=99), top_up("c"), top_up("c")])
        assert (told.new, told.known, told.refused) == ({"c"}, {"a", "b"}, frozenset())
        assert ledger.balances(c)[WALLET] == 15
        assert events.after(c, 0, None, 10) == []


def test_the_same_id_with_another_payload_is_refused_and_raises_the_alarm(store: Store) -> None:
    with store.write() as c:
        ledger.post(c, [top_up("a", 5)])
        told = ledger.post(c, [top_up("a", 6), top_up("b", 1)])
        assert (told.new, told.refused) == ({"b"}, {"a"})
        assert ledger.balances(c)[WALLET] == 6
    with store.read() as c:
        assert [(event.kind, event.subject) for event in events.after(c, 0, None, 10)] == [("ledger.conflict", "a")]


@pytest.mark.parametrize("verb", ["UPDATE transfers SET amount_nano = 1", "DELETE FROM transfers"])
def test_a_transfer_is_never_changed_whoever_asks(store: Store, verb: str) -> None:
    with store.write() as c:
        ledger.post(c, [top_up("a")])
    with pytest.raises(exc.DatabaseError), store.write() as c:
        c.exec_driver_sql(verb)
    with store.read() as c:
        assert ledger.find(c, "a") == top_up("a")


def test_a_balance_that_no_column_holds_is_refused_with_all_of_its_batch(store: Store) -> None:
    with store.write() as c:
        ledger.post(c, [top_up("a", MAX_NANO)])
    with pytest.raises(exc.DatabaseError), store.write() as c:
        ledger.post(c, [top_up("b", MAX_NANO)])
    with store.read() as c:
        assert ledger.balances(c) == {CASH: -MAX_NANO, WALLET: MAX_NANO}
        assert faults(ledger.every(c), ledger.balances(c)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        replace(top_up("a"), amount_nano=0),
        replace(top_up("a"), amount_nano=-1),
        replace(top_up("a"), credit=CASH),
        replace(top_up("a"), currency="EUR"),
    ],
)
def test_what_no_ledger_may_take_is_not_taken(store: Store, wrong: Transfer) -> None:
    with pytest.raises(ValueError, match="transfer a"), store.write() as c:
        ledger.post(c, [top_up("b"), wrong])
    with store.read() as c:
        assert ledger.balances(c) == {}


def test_transfers_come_newest_first_page_by_page_and_by_tenant(store: Store) -> None:
    other = replace(top_up("z"), tenant_id="t-2")
    with store.write() as c:
        ledger.post(c, [top_up("a"), other, top_up("b"), top_up("c")])
        first = ledger.page(c, "t-1", None, 2)
        rest = ledger.page(c, "t-1", first[-1][0], 2)
        assert [t.id for _, t in [*first, *rest]] == ["c", "b", "a"]
        assert len(ledger.page(c, None, None, 9)) == 4


def test_a_charge_is_kept_and_due_until_it_is_done(store: Store) -> None:
    charge = Charge("ls-1", "t-1", "offer", "USD", 5, 1, 2, 3, 4)
    with store.write() as c:
        charges.save(c, [charge])
        charges.save(c, [replace(charge, held_nano=0, postings=4)])
        charges.mark_due(c, "ls-1")
        charges.mark_due(c, "ls-1")
        assert charges.load(c, ["ls-1", "ls-2"], lock=True) == {"ls-1": replace(charge, held_nano=0, postings=4)}
        assert charges.due(c, 9) == ["ls-1"]
        assert charges.held_for_nothing(c) == []
        charges.save(c, [charge])
        assert charges.held_for_nothing(c) == ["ls-1"]
        charges.done(c, ["ls-1"])
        assert charges.due(c, 9) == []


def test_a_voucher_is_redeemed_once(store: Store) -> None:
    voucher = Voucher("vc-1", 5, "USD", 1, 9)
    with store.write() as c:
        vouchers.insert(c, "digest", voucher)
        assert vouchers.redeem(c, "digest", "t-1", 3)
        assert not vouchers.redeem(c, "digest", "t-2", 4)
        assert vouchers.find(c, "digest") == replace(voucher, redeemed_us=3, redeemed_by="t-1")
        assert vouchers.find(c, "other") is None

"""What workloads send is counted from counters that only grow, billed once and to the byte, whatever dies meanwhile."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from gpuyard.billing.margin import Margin
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.control import commands
from gpuyard.control.cost_views import margins_of
from gpuyard.control.invoicing import issue
from gpuyard.control.launching import Launch
from gpuyard.control.money import make_bill, rated_lines
from gpuyard.control.months import Month
from gpuyard.control.offering import SliceWish
from gpuyard.control.reconciling import reconcile
from gpuyard.engines.runtime import UnitState
from gpuyard.model.units import DAY_US, GIB
from gpuyard.model.workloads import RestartPolicy, Workload, WorkloadKind
from gpuyard.store import charges, egress, leases
from hand_driven_yard import HandYard

SECOND = 1_000_000
A_GIB = 90_000_000
QUARTER = SliceWish(offer="rtx4090-quarter")


def open_yard(root: Path, price: int = A_GIB) -> HandYard:
    hand = HandYard(root, "1xRTX4090", kept=True)
    sell(hand, price)
    return hand


def sell(hand: HandYard, price: int) -> None:
    book = replace(hand.yard.book, egress_per_gib_nano=price)
    hand.yard.book, hand.yard.prices = book, PriceHistory((book,))


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    return open_yard(tmp_path)


def sender(hand: HandYard, rate: int, **more: object) -> Workload:
    wish = {"kind": WorkloadKind.INSTANCE, "slices": QUARTER, "name": "box", **more}
    wish["environment"] = {"SIMULATED_SENDING": str(rate)}
    made = hand.launch(hand.tenant("alice"), Launch(**wish))  # type: ignore[arg-type]
    hand.settle()
    return made


def live(hand: HandYard, seconds: int) -> None:
    for _ in range(seconds):
        hand.clock.advance(SECOND)
        hand.runtime.keep()
        hand.loops.pass_once()


def sent(hand: HandYard) -> int:
    with hand.yard.store.read() as c:
        return sum(each.bytes_out for each in egress.of_tenant(c, "tn-alice"))


def cost(hand: HandYard) -> int:
    """Of the egress alone; the bill, the lines of invoices and what is posted say the same."""
    with hand.yard.store.read() as c:
        lines = make_bill(c, "tn-alice", prices=hand.yard.prices).lines
        rated = rated_lines(c, hand.yard.prices, "tn-alice")
        assert [(x.what, x.amount_nano, x.quantity_bytes) for x in lines] == [
            (x.what.value, x.amount_nano, x.quantity_bytes) for x in rated
        ]
    return sum(line.amount_nano for line in lines if line.what == "egress")


def micro(bytes_out: int, price: int = A_GIB) -> int:
    return round(Fraction(bytes_out * price, GIB) / 1000) * 1000


def test_every_byte_is_billed_once_over_restarts_of_unit_and_yard(tmp_path: Path, hand: HandYard) -> None:
    rate = 1_234_567
    workload = sender(hand, rate, restart=RestartPolicy.ON_FAILURE)
    book = hand.yard.book
    for _ in range(3):
        live(hand, 17)
        (unit,) = hand.running_names()
        hand.runtime.crash(unit)
        hand.runtime.keep()
        hand.yard.store.close()  # killed with its unit
        hand = open_yard(tmp_path)
        assert hand.yard.book == book
        hand.settle()
        live(hand, 40)  # the restart's backoff is over
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    ran_ns = 0
    for seen in hand.runtime.observe().values():
        assert seen.state is UnitState.EXITED
        assert seen.started_ns is not None
        assert seen.proven_ns is not None
        ran_ns += (seen.proven_ns - seen.started_ns) // SECOND // 1000 * rate
    assert sent(hand) == ran_ns
    assert cost(hand) == micro(ran_ns)
    hand.settle()
    live(hand, 60)
    assert sent(hand) == ran_ns
    seen = reconcile(hand.yard, hand.clock.now_us(), everything=True)
    assert (seen.found, seen.faults) == ((), ())  # posted is what is owed, egress included


def test_a_yard_killed_between_any_two_passes_counts_the_same(tmp_path: Path, hand: HandYard) -> None:
    sender(hand, 1000)
    for _ in range(25):
        hand.clock.advance(SECOND)
        hand.runtime.keep()
        hand.loops.pass_once()
        hand.yard.store.close()
        hand = open_yard(tmp_path)
    live(hand, 10)
    assert 25_000 <= sent(hand) <= 35_000
    (unit,) = hand.running_names()
    hand.runtime.finish(unit)
    hand.settle()
    assert sent(hand) == 35_000


def test_a_transaction_that_fails_leaves_counter_and_sum_as_they_were(
    hand: HandYard, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender(hand, 1000)
    real = egress.keep

    def torn(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        raise OSError("the disk is full")

    monkeypatch.setattr(egress, "keep", torn)
    hand.clock.advance(10 * SECOND)
    with pytest.raises(OSError, match="full"):
        hand.loops.pass_once()
    assert sent(hand) == 0
    monkeypatch.undo()
    live(hand, 20)
    assert sent(hand) in range(20_000, 30_001)


def test_a_counter_that_began_anew_takes_nothing_back(hand: HandYard, monkeypatch: pytest.MonkeyPatch) -> None:
    sender(hand, 0)
    said = iter([500, 900, 300, 300, 450])
    monkeypatch.setattr(type(hand.runtime), "sent_bytes", lambda *_: next(said))
    for _ in range(5):
        hand.clock.advance(10 * SECOND)
        hand.loops.pass_once()
    assert sent(hand) == 900 + 450


def test_a_run_keeps_the_price_that_it_was_granted_under(hand: HandYard) -> None:
    workload = sender(hand, 1 << 20)
    live(hand, 20)
    dearer = replace(hand.yard.book, egress_per_gib_nano=10 * A_GIB, effective_from_us=hand.clock.now_us())
    hand.yard.prices = PriceHistory((*hand.yard.prices.books, dearer))
    hand.yard.book = dearer
    live(hand, 20)
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    first = sent(hand)
    assert cost(hand) == micro(first)
    commands.start(hand.yard, workload.id, "tester")
    hand.settle()
    live(hand, 20)
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    assert cost(hand) == micro(first) + micro(sent(hand) - first, 10 * A_GIB)


def test_what_nobody_can_tell_is_absent_and_costs_nothing(hand: HandYard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(hand.runtime), "sent_bytes", lambda *_: None)
    sender(hand, 1000)
    live(hand, 30)
    with hand.yard.store.read() as c:
        assert egress.of_tenant(c, None) == []
        assert "egress" not in [line.what for line in make_bill(c, "tn-alice", prices=hand.yard.prices).lines]


def test_what_ran_before_anybody_counted_is_not_charged_until_it_starts_anew(hand: HandYard) -> None:
    workload = sender(hand, 1000)
    with hand.yard.store.write() as c:  # as the migration leaves it
        c.exec_driver_sql("DELETE FROM egress_counters")
        c.exec_driver_sql("INSERT INTO egress_counters SELECT id, '', run, 0, NULL FROM leases WHERE state = 'active'")
        c.exec_driver_sql("DELETE FROM egress_days")
    live(hand, 30)
    assert sent(hand) == 0
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    commands.start(hand.yard, workload.id, "tester")
    hand.settle()
    live(hand, 30)
    assert sent(hand) > 0


def test_the_invoice_and_the_ledger_bill_it_with_the_rest(hand: HandYard) -> None:
    workload = sender(hand, 64 << 20)
    live(hand, 60)
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    live(hand, 3)
    document = issue(hand.yard, hand.tenant("alice"), None, hand.clock.now_us())
    lines = [line for line in document.lines if line.line.what.value == "egress"]
    assert [line.line.quantity_bytes for line in lines] == [sent(hand)]
    assert sum(line.amount_nano for line in lines) == cost(hand) > 0
    with hand.yard.store.read() as c:
        (charge,) = charges.of_tenant(c, "tn-alice").values()
        bill = make_bill(c, "tn-alice", prices=hand.yard.prices)
    stopped = sum(line.amount_nano for line in bill.lines if line.what == "stopped")
    assert bill.total_nano - stopped <= charge.revenue_nano <= bill.total_nano


def test_what_was_sent_and_time_without_cards_are_no_use_of_a_card(hand: HandYard) -> None:
    def of_cards() -> Margin:
        (found,) = margins_of(hand.yard, Month.of(hand.clock.now_us()), hand.clock.now_us())
        return found

    hand.yard.book = replace(hand.yard.book, cpu_only_per_hour_nano=20_000_000)
    hand.yard.prices = PriceHistory((hand.yard.book,))
    workload = sender(hand, 0)
    live(hand, 100)
    before = of_cards()
    with hand.yard.store.write() as c:
        (lease,) = leases.open_leases(c)
        day = hand.clock.now_us() // DAY_US + 1  # its line comes after all others
        one = egress.Sent(lease.id, day, A_GIB, "tn-alice", workload.id, "box", "rtx4090-quarter", "USD", GIB)
        egress.keep(c, [], [one])
    assert of_cards() == before
    commands.stop(hand.yard, workload.id, "tester")
    hand.settle()
    before = of_cards()
    commands.start(hand.yard, workload.id, "tester", cpu_only=True)
    hand.settle()
    live(hand, 100)
    after = of_cards()
    assert after.revenue_nano == before.revenue_nano
    assert after.utilisation_ppm < before.utilisation_ppm

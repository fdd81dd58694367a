"""Invoices, credit notes and FOCUS rows: exact, immutable, the same whatever the order, and nothing billed twice."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuyard.billing import focus
from gpuyard.billing.conditions import Conditions, Fault
from gpuyard.billing.evidence import sift
from gpuyard.billing.faults import faults_of
from gpuyard.billing.invoices import Document, DocumentKind, canonical, from_plain, must_hold, plain
from gpuyard.billing.issuing import Heading, credit_note, invoice, left_of
from gpuyard.billing.lines import RatedLine, What, total_nano
from gpuyard.billing.rated import rate_all
from gpuyard.catalog.taxes import NO_TAX, Party, TaxRule, TaxTable
from gpuyard.model.errors import YardError
from gpuyard.model.incidents import Cause, Incident, Outcome
from gpuyard.model.leases import Interval
from gpuyard.model.states import LeaseState
from money_histories import DAY, HOUR, SECOND, START, History, interval, random_history

TAXES = TaxTable(
    Party("seller", "Yard Ltd", ("Main Street 1",), "DE123", "DE"),
    (TaxRule("VAT", 190_000, ("DE",)), TaxRule("VAT", 200_000, ("FR",), reverse_charge=True)),
    {"a": Party("tn-a", "Customer A", (), "", "DE"), "b": Party("tn-b", "Customer B", (), "FR99", "FR")},
)
END = START + 5 * DAY
seeds = st.integers(0, 2**32)


def heading(number: int = 1, tenant: str = "a", until: int = END, previous: str = "", kind: str = "INV") -> Heading:
    return Heading(f"{kind}-{number:06}", f"tn-{tenant}", tenant, "USD", START, until, until, previous)


def lines_of(history: History, intervals: Sequence[Interval], tenant: str = "a") -> list[RatedLine]:
    kept = sift(intervals, END).intervals
    return [line for line in rate_all(kept, history.conditions) if line.tenant_id == f"tn-{tenant}"]


def try_invoice(
    number: int, lines: Sequence[RatedLine], before: Sequence[Document], until: int = END
) -> Document | None:
    try:
        previous = before[-1].hash if before else ""
        return invoice(heading(number, until=until, previous=previous), lines, before, TAXES)
    except YardError as error:
        if error.code != "nothing_to_invoice":
            raise
        return None


@given(seeds)
def test_subtotal_tax_and_rounding_come_to_a_total_that_can_be_paid(seed: int) -> None:
    history = random_history(seed)
    made = try_invoice(1, lines_of(history, history.intervals), [])
    if made is None:
        return
    assert made.subtotal_nano + made.tax_nano + made.rounding_nano == made.total_nano
    assert made.total_nano % 10**7 == 0
    assert abs(made.rounding_nano) * 2 <= 10**7
    assert made.subtotal_nano == total_nano(line.line for line in made.lines)
    must_hold([made])
    assert from_plain(json.loads(canonical(plain(made)))) == made


@given(seeds)
def test_any_order_of_delivery_gives_the_same_invoice_byte_for_byte(seed: int) -> None:
    history = random_history(seed)
    shuffled = [*history.intervals, *history.intervals[:1]]  # one of them twice
    random.Random(seed).shuffle(shuffled)
    one, other = (try_invoice(1, lines_of(history, told), []) for told in (history.intervals, shuffled))
    assert one == other
    assert one is None or one.hash == other.hash  # type: ignore[union-attr]


@given(seeds, st.data())
@settings(max_examples=60)
def test_whatever_comes_late_all_invoices_together_bill_what_is_known_in_the_end(
    seed: int, data: st.DataObject
) -> None:
    history = random_history(seed)
    order = data.draw(st.permutations(history.intervals))
    documents: list[Document] = []
    for known in sorted({data.draw(st.integers(0, len(order))) for _ in range(3)} | {len(order)}):
        until = START + data.draw(st.integers(1, 5)) * DAY if known < len(order) else END
        made = try_invoice(len(documents) + 1, lines_of(history, order[:known]), documents, until)
        documents += [made] if made else []
    billed = sum(document.subtotal_nano for document in documents)
    assert billed == total_nano(lines_of(history, history.intervals))
    must_hold(documents)
    assert try_invoice(99, lines_of(history, history.intervals), documents) is None  # nothing is billed twice


@given(st.lists(st.integers(1, 3 * HOUR), min_size=1, max_size=12))
def test_many_small_invoices_are_never_further_from_their_lines_than_half_a_cent(durations: list[int]) -> None:
    documents: list[Document] = []
    told: list[Interval] = []
    for number, duration in enumerate(durations, 1):
        told.append(replace(usage(1, f"ls-{number}", price=7_777_777), end_us=START + duration, minimum_us=0))
        lines = [line for line in rated(*told) if line.amount_nano]
        made = try_invoice(number, lines, documents)
        documents += [made] if made else []
        exact = sum(document.subtotal_nano + document.tax_nano for document in documents)
        assert abs(sum(document.total_nano for document in documents) - exact) <= 5 * 10**6
    must_hold(documents)


def usage(hours: int, lease: str = "ls-1", start: int = START, price: int = 10**9) -> Interval:
    return interval(lease, 1, LeaseState.ACTIVE, 1, start, start + hours * HOUR, price)


def rated(*intervals: Interval) -> list[RatedLine]:
    from gpuyard.billing.conditions import Conditions

    return list(rate_all(intervals, Conditions()))


def test_a_late_interval_becomes_an_adjustment_that_names_the_invoice_of_its_month() -> None:
    first = invoice(heading(1, until=START + 2 * DAY), rated(usage(1)), [], NO_TAX)
    late = rated(usage(1), usage(2, "ls-late"), usage(3, "ls-new", START + 3 * DAY))
    later = replace(heading(2, previous=first.hash), from_us=START + 2 * DAY)
    second = invoice(later, late, [first], NO_TAX)
    assert {(line.line.lease_id, line.adjusts) for line in second.lines} == {("ls-late", first.number), ("ls-new", "")}


def test_an_invoice_leaves_the_days_after_its_period_to_the_next_one() -> None:
    told = rated(usage(30))
    first = invoice(heading(1, until=START + DAY), told, [], NO_TAX)
    second = invoice(replace(heading(2, previous=first.hash), from_us=START + DAY), told, [first], NO_TAX)
    assert (first.subtotal_nano, second.subtotal_nano) == (24 * 10**9, 6 * 10**9)
    assert [line.adjusts for line in second.lines] == [""]


def test_what_is_found_to_have_been_billed_wrongly_is_taken_back_in_the_next_invoice() -> None:
    first = invoice(heading(1), rated(usage(5)), [], NO_TAX)
    second = invoice(heading(2, previous=first.hash), rated(usage(2), usage(1, "ls-2")), [first], NO_TAX)
    assert {(line.line.lease_id, line.amount_nano, line.adjusts) for line in second.lines} == {
        ("ls-1", -3 * 10**9, first.number),
        ("ls-2", 10**9, ""),
    }


def test_tax_is_on_each_rounded_line_and_reverse_charge_charges_none() -> None:
    german = invoice(heading(1, "a"), rated(usage(1)), [], TAXES)
    assert (german.tax_nano, german.total_nano) == (190_000_000, 1_190_000_000)
    french = invoice(heading(1, "b"), rated(replace(usage(1), tenant_id="tn-b")), [], TAXES)
    assert (french.tax_nano, french.total_nano, french.taxes[0].reverse_charge) == (0, 10**9, True)


@pytest.mark.parametrize(("currency", "total"), [("USD", 330_000_000), ("JPY", 0), ("KWD", 333_000_000)])
def test_a_total_is_rounded_to_what_can_be_paid_in_its_currency(currency: str, total: int) -> None:
    told = replace(usage(1, price=333_333_333), currency=currency)
    made = invoice(replace(heading(), currency=currency), rated(told), [], NO_TAX)
    assert made.total_nano == total
    assert made.rounding_nano == total - made.subtotal_nano


def test_a_line_in_another_currency_is_refused() -> None:
    with pytest.raises(YardError, match="currency_mismatch"):
        invoice(heading(), rated(replace(usage(1), currency="CNY")), [], NO_TAX)


# ---- credit notes


def test_a_credit_note_gives_back_lines_with_their_tax_and_then_nothing_more() -> None:
    made = invoice(heading(1), rated(usage(1), usage(2, "ls-2")), [], TAXES)
    one = made.lines[0].line.id
    note = credit_note(heading(2, previous=made.hash, kind="CN"), made, "slow", [made], left_of(made, [made], [one]))
    assert (note.kind, note.corrects, note.reason) == (DocumentKind.CREDIT_NOTE, made.number, "slow")
    rest = credit_note(heading(3, previous=note.hash, kind="CN"), made, "all of it", [made, note])
    assert note.subtotal_nano + rest.subtotal_nano == -made.subtotal_nano
    assert note.tax_nano + rest.tax_nano == -made.tax_nano
    must_hold([made, note, rest])
    with pytest.raises(YardError) as refused:
        credit_note(heading(4, kind="CN"), made, "again", [made, note, rest])
    assert refused.value.params["problem"] == "nothing_left"


def test_an_invoice_is_given_back_with_what_it_gave_back_itself() -> None:
    fault = Fault("in-1", "ls-1", START + HOUR // 2, START + HOUR)
    used = usage(1)
    made = invoice(heading(1), rate_all([used], Conditions(faults=(fault,))), [], TAXES)
    note = credit_note(heading(2, previous=made.hash, kind="CN"), made, "all of it", [made])
    assert (note.subtotal_nano, note.tax_nano) == (-made.subtotal_nano, -made.tax_nano)
    must_hold([made, note])


def test_a_late_incident_is_an_adjustment_that_names_the_invoice_and_the_incident_and_comes_once() -> None:
    used = usage(1)
    made = invoice(heading(1), rated(used), [], TAXES)
    late = Incident("in-late", Cause.HARDWARE, "n1", None, None, "Xid 79", START + 40 * DAY, "op", START + HOUR // 4)
    told = replace(late, closed_us=START + HOUR // 2, outcome=Outcome.REPAIRED)
    lines = rate_all([used], Conditions(faults=faults_of([told], [used])))
    then = invoice(heading(2, previous=made.hash), lines, [made], TAXES)
    (only,) = then.lines
    assert (only.adjusts, only.line.origin, only.line.what) == (made.number, "in-late", What.FAULT_CREDIT)
    assert only.amount_nano == -made.subtotal_nano // 4
    assert only.tax_nano == -made.tax_nano // 4
    with pytest.raises(YardError, match="nothing_to_invoice"):
        invoice(heading(3, previous=then.hash), lines, [made, then], TAXES)
    none = rate_all([used], Conditions(faults=faults_of([replace(told, outcome=Outcome.DISMISSED)], [used])))
    back = invoice(heading(3, previous=then.hash), none, [made, then], TAXES)
    assert (back.subtotal_nano, back.tax_nano) == (-then.subtotal_nano, -then.tax_nano)
    must_hold([made, then, back])


def test_what_was_given_back_stays_given_back() -> None:
    made = invoice(heading(1), rated(usage(1)), [], NO_TAX)
    note = credit_note(heading(2, previous=made.hash, kind="CN"), made, "goodwill", [made])
    with pytest.raises(YardError, match="nothing_to_invoice"):
        invoice(heading(3, previous=note.hash), rated(usage(1)), [made, note], NO_TAX)


@pytest.mark.parametrize(
    ("amounts", "problem"), [({"f" * 32: 1}, "no_line"), ({"own": 10**9 + 1000}, "too_much"), ({"own": -1}, "too_much")]
)
def test_no_more_than_was_billed_and_nothing_that_was_not_is_credited(amounts: dict[str, int], problem: str) -> None:
    made = invoice(heading(1), rated(usage(1)), [], NO_TAX)
    named = {(made.lines[0].line.id if key == "own" else key): amount for key, amount in amounts.items()}
    with pytest.raises(YardError) as refused:
        credit_note(heading(2, kind="CN"), made, "x", [made], named)
    assert refused.value.params["problem"] == problem


def test_a_refund_of_a_refund_is_refused() -> None:
    made = invoice(heading(1), rated(usage(1)), [], NO_TAX)
    note = credit_note(heading(2, previous=made.hash, kind="CN"), made, "x", [made])
    with pytest.raises(YardError) as refused:
        credit_note(heading(3, kind="CN"), note, "x", [made, note])
    assert (refused.value.code, refused.value.params["problem"]) == ("not_creditable", "credit_note")


@pytest.mark.parametrize("problem", ["hash", "chain", "sum"])
def test_a_document_that_was_touched_is_noticed(problem: str) -> None:
    from gpuyard.billing.invoices import hash_of

    first = invoice(heading(1), rated(usage(1)), [], NO_TAX)
    second = invoice(heading(2, previous=first.hash), rated(usage(1), usage(1, "ls-2")), [first], NO_TAX)
    touched = replace(first, total_nano=first.total_nano + 10**7)
    if problem == "hash":
        chain = [touched, second]
    elif problem == "chain":
        chain = [second]
    else:
        chain = [replace(touched, hash=hash_of(touched))]
    with pytest.raises(YardError) as noticed:
        must_hold(chain)
    assert noticed.value.params["problem"] == problem


# ---- FOCUS


@given(seeds)
@settings(max_examples=50)
def test_focus_rows_bill_what_the_documents_come_to_in_both_versions(seed: int) -> None:
    history = random_history(seed)
    made = try_invoice(1, lines_of(history, history.intervals), [])
    if made is None:
        return
    for version, columns in focus.COLUMNS.items():
        found = focus.export([made], version)
        focus.must_agree(found, [made])
        assert found.billed * 10**9 == made.total_nano
        assert list(columns) == sorted(columns)
        for row in found.rows:
            assert tuple(row) == columns
            if (
                row["PricingQuantity"] is not None
                and row["ChargeCategory"] == "Usage"
                and row["PricingCategory"] != "Committed"
            ):
                product = row["ContractedUnitPrice"] * row["PricingQuantity"]  # type: ignore[operator]
                assert abs(product - row["BilledCost"]) <= Decimal("0.000001")  # type: ignore[operator]


def test_the_columns_of_1_4_are_those_that_changed() -> None:
    before, after = set(focus.COLUMNS["1.2"]), set(focus.COLUMNS["1.4"])
    assert before - after == {"ProviderName", "PublisherName"}
    assert after - before == {"ContractApplied", "HostProviderName", "InvoiceDetailId", "ServiceProviderName"}


def test_a_focus_file_whose_costs_are_not_the_documents_is_noticed() -> None:
    made = invoice(heading(1), rated(usage(1)), [], TAXES)
    found = focus.export([made], "1.2")
    with pytest.raises(YardError, match="not_genuine"):
        focus.must_agree(replace(found, rows=found.rows[:-1]), [made])


def test_parquet_has_decimals_and_says_the_same_as_csv() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import csv
    import io

    from gpuyard.billing.focus_parquet import to_parquet

    made = invoice(heading(1), rated(usage(1, price=333_333_333)), [], TAXES)
    found = focus.export([made], "1.4")
    table = parquet.read_table(io.BytesIO(to_parquet(found)))
    assert str(table.schema.field("BilledCost").type) == "decimal128(38, 12)"
    rows = list(csv.DictReader(io.StringIO(focus.to_csv(found))))
    assert [Decimal(row["BilledCost"]) for row in rows] == table.column("BilledCost").to_pylist()
    assert [row["ChargePeriodStart"] for row in rows] == [
        moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in table.column("ChargePeriodStart").to_pylist()
    ]


def test_a_version_that_is_not_written_is_refused() -> None:
    with pytest.raises(YardError, match="invalid_pattern"):
        focus.export([], "1.0")


def test_a_history_of_seconds_is_the_smallest_that_is_billed() -> None:
    (line,) = [x for x in rated(replace(usage(1), end_us=START + SECOND, minimum_us=0)) if x.amount_nano]
    assert line.amount_nano == 278_000

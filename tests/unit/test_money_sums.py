"""Prices compared, owning against renting, cost views, forecasts, margins, and what is printed."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from gpuyard.api.sums import compare_bare, own_bare
from gpuyard.billing.comparing import Pattern, Reservation, compare
from gpuyard.billing.conditions import Conditions, LeaseFacts
from gpuyard.billing.costs import By, forecast, group
from gpuyard.billing.energy import Energy
from gpuyard.billing.invoices import Document
from gpuyard.billing.issuing import Heading, invoice
from gpuyard.billing.lines import total_nano
from gpuyard.billing.margin import CardMonth, margins
from gpuyard.billing.owning import Purchase, own
from gpuyard.billing.paper import lay_out, summaries, to_csv
from gpuyard.billing.rated import rate_all
from gpuyard.catalog import taxes
from gpuyard.catalog.rows import Place
from gpuyard.catalog.taxes import NO_TAX, Party, TaxTable
from gpuyard.control.fonts import cjk_font
from gpuyard.model.errors import YardError
from gpuyard.model.states import LeaseState
from gpuyard.texts import LANGUAGES
from money_histories import DAY, HOUR, START, interval

NANO = 10**9


def test_the_reference_figures_come_out_to_the_cent() -> None:
    found = compare_bare("1.5", 8760, ["3y:45"], None, "USD")
    assert (found["on_demand_a_year"], found["saving"], found["cheapest"]) == (
        "13140.00",
        "17739.00",
        "reserved 3y none",
    )
    assert (found["choices"][0]["total"], found["choices"][0]["from_hours_a_year"]) == ("21681.00", 4818)


@pytest.mark.parametrize("hours", [4817, 4818, 4819])
def test_a_reservation_is_no_dearer_from_its_break_even_hours_on_and_dearer_before(hours: int) -> None:
    found = compare(1_500_000_000, "USD", Pattern(hours), [Reservation(3, 450_000)])
    (reserved,) = [choice for choice in found.choices if choice.term_years]
    assert (reserved.saving_nano >= 0) == (hours >= int(reserved.from_hours_a_year or 0))


def test_terms_of_different_length_are_compared_over_the_same_years() -> None:
    found = compare(NANO, "USD", Pattern(8760), [Reservation(1, 300_000), Reservation(3, 300_000)])
    assert {choice.years for choice in found.choices} == {3}
    assert found.choices[0].total_nano == found.choices[1].total_nano
    assert [choice.term_years for choice in found.choices] == [1, 3, 0]  # among equals the one that binds least


@pytest.mark.parametrize(
    "arguments",
    [("x", 8760, [], None, "USD"), ("1", 0, [], None, "USD"), ("1", 8761, [], None, "USD"), ("1", 1, ["3y"], None, "USD"),
     ("1", 1, ["3y:101"], None, "USD"), ("1", 1, ["3y:45:some"], None, "USD"), ("1", 1, [], "-1", "USD"), ("1", 1, [], None, "usd")],
)  # fmt: skip
def test_patterns_that_mean_nothing_are_refused(arguments: tuple) -> None:
    with pytest.raises(YardError) as refused:
        compare_bare(*arguments)
    assert refused.value.code in {"invalid_price", "invalid_pattern"}


def test_owning_is_no_dearer_than_renting_from_its_break_even_hours_on() -> None:
    card = Purchase(
        1800 * NANO, 3, 450, 120_000_000, idle_watts=30, overhead_ppm=300_000, upkeep_a_year_nano=200 * NANO
    )
    even = own(card, 8760, 600_000_000).from_hours_a_year
    assert even is not None
    assert own(card, even, 600_000_000).saving_nano >= 0 > own(card, even - 1, 600_000_000).saving_nano


def test_what_owning_costs_is_the_formula_by_hand() -> None:
    found = own_bare("1800", 3, 450, "0.12", 5000, "0.60", "200", "300", 50, 0, "USD")
    assert found["energy"] == "1215.00"  # 0.45 kW x 1.5 x 15,000 h x 0.12
    assert found["owning"] == "3315.00"  # 1800 - 300 + 3 x 200 + 1215
    assert (found["renting"], found["saving"]) == ("9000.00", "5685.00")


def test_a_card_that_saves_nothing_never_pays_back() -> None:
    found = own(Purchase(1800 * NANO, 3, 450, NANO), 8760, 100_000_000)
    assert (found.from_hours_a_year, found.pays_back_after_hours) == (None, None)


def some_lines():  # type: ignore[no-untyped-def]
    told = [
        interval("ls-1", 1, LeaseState.ACTIVE, 1, START, START + 2 * HOUR, NANO),
        interval("ls-2", 1, LeaseState.ACTIVE, 1, START + DAY, START + DAY + HOUR, NANO, tenant_id="tn-b"),
    ]
    facts = {
        "ls-1": LeaseFacts("RTX4090", 500_000, tags=(("team", "vision"),)),
        "ls-2": LeaseFacts("H100", 1_000_000, tags=(("team", "speech"),)),
    }
    return rate_all(told, Conditions(facts=facts))


@pytest.mark.parametrize("by", list(By))
def test_every_view_adds_up_to_the_whole(by: By) -> None:
    lines = some_lines()
    assert sum(cost.amount_nano for cost in group(lines, by, "team")) == total_nano(lines)


def test_costs_are_told_by_label_and_by_card() -> None:
    lines = some_lines()
    assert {cost.group: cost.amount_nano for cost in group(lines, By.LABEL, "team")} == {
        "vision": 2 * NANO,
        "speech": NANO,
    }
    assert {cost.group: cost.card_us_ppm for cost in group(lines, By.CARD)} == {
        "RTX4090": HOUR * 10**6,
        "H100": HOUR * 10**6,
    }


def test_a_margin_without_measured_energy_is_absent_and_not_its_revenue() -> None:
    taken = Energy(36_000_000_000, 1_000_000, 1_500_000_000)
    months = [CardMonth("RTX4090", 2, 10 * HOUR, taken, 1_800 * NANO), CardMonth("H100", 1, 10 * HOUR)]
    measured, not_measured = margins(some_lines(), months)
    assert (measured.revenue_nano, measured.utilisation_ppm, measured.energy_nano, measured.margin_nano) == (
        2 * NANO,
        50_000,
        1_500_000_000,
        500_000_000,
    )
    assert measured.margin_a_card_nano == 250_000_000
    assert measured.break_even_hours == 3600  # a card's hour in use leaves 0.50
    assert (not_measured.revenue_nano, not_measured.energy_nano, not_measured.margin_nano) == (NANO, None, None)


def test_eight_of_ten_months_end_within_the_interval() -> None:
    r = random.Random(7)
    held = 0
    for _ in range(400):
        days = [max(0, round(r.gauss(50, 10) * NANO)) for _ in range(30)]
        found = forecast(sum(days[:10]), days[:10], Fraction(20))
        assert found.low_nano is not None
        assert found.high_nano is not None
        held += found.low_nano <= sum(days) <= found.high_nano
    assert 0.75 < held / 400 < 0.85


def test_too_few_days_give_no_interval_and_nothing_spent_comes_back() -> None:
    assert forecast(5, [3, 4], Fraction(3)).low_nano is None
    assert forecast(10**12, [0, 0, 9], Fraction(1)).low_nano == 10**12


# ---- paper


def a_document(name: str = "Customer") -> Document:
    head = Heading("INV-000001", "tn-a", "a", "USD", START, START + 2 * DAY, START + 2 * DAY, "")
    mine = [replace(line, workload_name="=cmd()") for line in some_lines() if line.tenant_id == "tn-a"]
    return invoice(head, mine, [], TaxTable(Party("s", "Yard"), (), {"a": Party("tn-a", name)}))


def test_a_summary_adds_up_to_the_document() -> None:
    document = a_document()
    assert sum(row.amount_nano for row in summaries(document)) == document.subtotal_nano


def test_a_name_that_a_spreadsheet_would_run_is_shown_as_text() -> None:
    assert ",'=cmd()," in to_csv(a_document())


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_paper_is_laid_out_in_every_language_without_a_key_left(language: str) -> None:
    paper = lay_out(a_document(), language)
    everything = [
        paper.title,
        *paper.columns,
        *paper.notes,
        *(x for pair in (*paper.facts, *paper.totals) for x in pair),
    ]
    assert not [part for part in everything if "paper." in part]
    assert any("2.00 USD" in amount for _, amount in paper.totals)


def test_the_same_document_gives_the_same_pdf() -> None:
    pytest.importorskip("fpdf")
    from gpuyard.billing.paper_pdf import to_pdf

    one, other = (to_pdf(a_document(), "en", None) for _ in range(2))
    assert one == other
    assert one.startswith(b"%PDF-")


def test_a_pdf_in_chinese_needs_a_font_and_says_how_to_get_one(tmp_path: Path) -> None:
    pytest.importorskip("fpdf")
    from gpuyard.billing.paper_pdf import to_pdf

    no_font = tmp_path / "no.ttf"
    no_font.write_bytes(b"this is no font")
    for font in (None, no_font, tmp_path / "missing.ttf"):
        with pytest.raises(YardError, match="font_missing"):
            to_pdf(a_document(), "zh", font)


@pytest.mark.skipif(
    cjk_font() is None, reason="no font with Chinese characters here (apt-get install fonts-wqy-microhei)"
)
def test_a_pdf_in_chinese_embeds_its_font() -> None:
    pytest.importorskip("fpdf")
    from gpuyard.billing.paper_pdf import to_pdf

    made = to_pdf(a_document("算力公司"), "zh", cjk_font())
    assert b"FontFile2" in made


# ---- the tax table

TABLE = {
    "seller": {"name": "Yard", "country": "DE"},
    "tax": [
        {"name": "VAT", "rate": "19%", "countries": ["DE"], "from": "2026-01-01"},
        {"name": "VAT", "rate": "20%", "reverse_charge": True},
    ],
    "buyers": {"acme": {"name": "Acme", "country": "FR", "tax_id": "FR1"}},
}


def test_the_first_rule_that_fits_decides() -> None:
    table = taxes.parse(TABLE, Place(taxes.CODE, "taxes.toml"))
    german, french = Party("x", "x", country="DE"), table.buyer("tn-1", "acme")
    assert [
        (found[0].rate_ppm, found[1]) for buyer in (german, french) if (found := table.rule_for(buyer, "2026-05-01"))
    ] == [(190_000, False), (200_000, True)]
    assert table.rule_for(german, "2025-12-31") == (table.rules[1], False)
    assert NO_TAX.rule_for(german, "2026-05-01") is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seller": None}, "seller"),
        ({"seller": {"name": "Y", "country": "Germany"}}, "country"),
        ({"tax": [{"name": "VAT", "rate": "19"}]}, "rate"),
        ({"tax": [{"name": "VAT", "rate": "119%"}]}, "rate"),
        ({"tax": [{"name": "VAT", "rate": "19%", "from": "2026-02-30"}]}, "from"),
        ({"tax": [{"name": "VAT", "rate": "19%", "form": "x"}]}, "key"),
        ({"buyers": []}, "buyers"),
        ({"other": 1}, "key"),
    ],
)
def test_a_broken_tax_table_is_refused_naming_the_field(change: dict, field: str) -> None:
    with pytest.raises(YardError) as refused:
        taxes.parse({**TABLE, **change}, Place(taxes.CODE, "taxes.toml"))
    assert (refused.value.code, refused.value.params["field"]) == ("tax_table_invalid", field)

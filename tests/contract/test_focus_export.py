"""FOCUS exports against the rules: our own check always, the FinOps Foundation's validator where there is one; and files
that are wrong, which must not pass either."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from focus_rules import broken
from gpuyard.billing import focus
from gpuyard.billing.invoices import Document
from gpuyard.billing.issuing import Heading, credit_note, invoice
from gpuyard.billing.rated import rate_all
from gpuyard.catalog.taxes import Party, TaxRule, TaxTable
from money_histories import DAY, START, History, random_history

# What focus-validator 2.2.1 gets wrong of 1.2. InvoiceId-C-004 says that InvoiceId must be null and C-005 that it must
# not, both without a condition. CommitmentDiscountStatus-C-004 has its condition the wrong way round; its parents fail
# with it.
BUGS = {
    "InvoiceId-C-004-C",
    "CommitmentDiscountStatus-C-004-C",
    "CommitmentDiscountStatus-C-002-C",
    "CommitmentDiscountStatus-C-000-C",
}
FEATURES = (
    "ACCOUNT_NAMING_SUPPORTED,COMMITMENT_DISCOUNT_SUPPORTED,MULTIPLE_PRICING_CATEGORIES_SUPPORTED,"
    "NEGOTIATED_PRICING_SUPPORTED,PUBLIC_PRICE_LIST_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED,UNIT_PRICING_SUPPORTED,"
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED,RESOURCE_TYPE_ASSIGNMENT_SUPPORTED,"
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED,TAGGING_SUPPORTED"
)
VALIDATOR = os.environ.get("GPUYARD_FOCUS_VALIDATOR") or shutil.which("focus-validator")
needs_validator = pytest.mark.skipif(
    VALIDATOR is None,
    reason="no focus-validator (Python 3.12: pip install focus-validator==2.2.1 'pyarrow<21'; GPUYARD_FOCUS_VALIDATOR=...)",
)


def documents() -> list[Document]:
    """Invoices with every kind of line, an adjustment and a credit note."""
    table = TaxTable(Party("s", "Yard Ltd", (), "DE1", "DE"), (TaxRule("VAT", 190_000),), {})
    made: list[Document] = []
    told: list[History] = []
    for seed in range(240):
        history = random_history(seed)
        lines = [line for line in rate_all(history.intervals, history.conditions) if line.tenant_id == "tn-a"]
        if lines:
            head = Heading(
                f"INV-{len(made) + 1:06}",
                "tn-a",
                "a",
                "USD",
                START,
                START + 4 * DAY,
                START + 4 * DAY,
                made[-1].hash if made else "",
            )
            made.append(invoice(head, lines, [], table))
            told.append(history)
    first, history = made[0], told[0]
    again = Heading("INV-900001", "tn-a", "a", "USD", START, START + 4 * DAY, START + 4 * DAY, made[-1].hash)
    less = [line for line in rate_all(history.intervals[:0], history.conditions) if line.tenant_id == first.tenant_id]
    made.append(invoice(again, less, [first], table))
    made.append(credit_note(replace(again, number="CN-900002", previous_hash=made[-1].hash), first, "slow", [first]))
    return made


@pytest.fixture(scope="module")
def made() -> list[Document]:
    return documents()


def test_the_sample_has_every_kind_of_row(made: Sequence[Document]) -> None:
    rows = focus.export(made, "1.2").rows
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}
    assert {row["PricingCategory"] for row in rows} == {None, "Standard", "Dynamic", "Committed"}
    assert {row["CommitmentDiscountStatus"] for row in rows} == {None, "Used", "Unused"}
    assert {row["ChargeClass"] for row in rows} == {None, "Correction"}


@pytest.mark.parametrize("version", sorted(focus.COLUMNS))
def test_every_row_keeps_the_rules(made: Sequence[Document], version: str) -> None:
    assert broken(focus.export(made, version)) == []


def _set(found: focus.Export, column: str, value: focus.Value, category: str = "Usage") -> focus.Export:
    rows = tuple({**row, column: value} if row["ChargeCategory"] == category else row for row in found.rows)
    return replace(found, rows=rows)


MUTANTS: dict[str, Callable[[focus.Export], focus.Export]] = {
    "text for a cost": lambda found: _set(found, "EffectiveCost", "free"),
    "no account": lambda found: _set(found, "BillingAccountId", None),
    "a category that there is not": lambda found: _set(found, "ChargeCategory", "Fun"),
    "a frequency that there is not": lambda found: _set(found, "ChargeFrequency", "Sometimes"),
    "usage without a price category": lambda found: _set(found, "PricingCategory", None),
    "tax with a price": lambda found: _set(found, "ListUnitPrice", Decimal(1), "Tax"),
    "usage that was not consumed": lambda found: _set(_set(found, "ConsumedQuantity", None), "ConsumedUnit", None),
    "costs that are no product": lambda found: _set(found, "ListCost", Decimal("123456.789")),
    "a column less": lambda found: replace(found, columns=found.columns[1:]),
    "a status that there is not": lambda found: _set(found, "CommitmentDiscountStatus", "Wasted"),
}


@pytest.mark.parametrize("version", sorted(focus.COLUMNS))
@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_wrong_file_does_not_pass_our_own_check(made: Sequence[Document], mutant: str, version: str) -> None:
    assert broken(MUTANTS[mutant](focus.export(made, version)))


def validate(found: focus.Export, folder: Path) -> set[str]:
    """The rules that the validator says are broken. Its exit code is 0 whatever it finds: only its lines tell."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = folder / "focus.parquet"
    if any(isinstance(row.get("EffectiveCost"), str) for row in found.rows):
        columns = {
            name: [str(row[name]) if name == "EffectiveCost" else row[name] for row in found.rows]
            for name in found.columns
        }
        parquet.write_table(pa.table(columns), file)
    else:
        from gpuyard.billing.focus_parquet import to_parquet

        file.write_bytes(to_parquet(found))
    executable = Path(str(VALIDATOR))
    site = next(
        executable.resolve().parent.parent.glob("lib/python*/site-packages")
    )  # it reads a file of its own from there
    command = [str(executable), "--data-file", str(file), "--block-download", "--validate-version", "1.2"]
    done = subprocess.run(
        [*command, "--applicability-criteria", FEATURES], cwd=site, capture_output=True, text=True, timeout=300
    )
    output = done.stdout + done.stderr
    assert re.search(r"Total: \d+ \| Pass: \d{3}", output), output[-2000:]
    return set(re.findall(r"(\S+): FAIL ", output))


@pytest.mark.slow
@needs_validator
def test_the_validator_finds_nothing_but_its_own_bugs(made: Sequence[Document], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert validate(focus.export(made, "1.2"), tmp_path) == BUGS


@pytest.mark.slow
@needs_validator
@pytest.mark.parametrize(
    "mutant",
    [
        "text for a cost",
        "no account",
        "a category that there is not",
        "tax with a price",
        "a status that there is not",
    ],
)
def test_a_wrong_file_does_not_pass_the_validator(made: Sequence[Document], mutant: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert validate(MUTANTS[mutant](focus.export(made, "1.2")), tmp_path) - BUGS

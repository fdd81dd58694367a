"""What a lease owes the ledger: what it has cost to date less what was posted so far.

Costs are rated anew from the intervals each time, so it does not matter how often or at which moments they are posted:
the sum of the postings is the bill, to the last digit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpuyard.model.ledger import AccountKind, Charge, Transfer, TransferKind, account, move
from gpuyard.model.units import HOUR_US, SECOND_US


@dataclass(frozen=True, slots=True)
class WalletTerms:
    """How a yard handles wallets. `hold_window_us`: how much running a hold pays for, which is also how far below zero
    running things may take a wallet."""

    hold_window_us: int = 600 * SECOND_US
    settle_every_us: int = 300 * SECOND_US
    keep_disks_us: int = 15 * 24 * HOUR_US


@dataclass(frozen=True, slots=True)
class Cost:
    """What a subject has cost to date: `credited_nano` is what was given back for faults."""

    revenue_nano: int = 0
    credited_nano: int = 0

    @property
    def due_nano(self) -> int:
        """What the tenant pays."""
        return self.revenue_nano - self.credited_nano


def costs(lines: Iterable[tuple[str, int]]) -> dict[str, Cost]:
    """(subject, amount) of rated lines, added up by subject. Negative lines give money back."""
    revenue: dict[str, int] = defaultdict(int)
    credited: dict[str, int] = defaultdict(int)
    for subject, amount_nano in lines:
        (revenue if amount_nano >= 0 else credited)[subject] += abs(amount_nano)
    return {subject: Cost(revenue[subject], credited[subject]) for subject in sorted(revenue.keys() | credited.keys())}


def hold_nano(price_per_hour_nano: int, window_us: int) -> int:
    """What running for a window costs, rounded up."""
    return -(-price_per_hour_nano * window_us // HOUR_US)


def settle(
    charge: Charge, cost: Cost, hold: int | None, available_nano: int, now_us: int
) -> tuple[Charge, list[Transfer]]:
    """The transfers that bring a subject up to date, and the charge as it is after them.

    `hold`: what is to be held afterwards, as far as the wallet (`available_nano`) has it; None leaves what is held.
    The ids follow from the subject and the count of its postings: done twice, they are the same transfers.
    """
    posting = _Posting(charge, now_us)
    due = cost.revenue_nano - charge.revenue_nano
    from_hold = min(due, charge.held_nano) if due > 0 else 0
    posting.add(TransferKind.POST, posting.holds, posting.revenue, from_hold)
    if due > 0:
        posting.add(TransferKind.USAGE, posting.wallet, posting.revenue, due - from_hold)
    else:
        posting.add(TransferKind.CORRECTION, posting.wallet, posting.revenue, due)
    given = cost.credited_nano - charge.credited_nano
    posting.add(TransferKind.CREDIT, posting.credits, posting.wallet, given)
    available = available_nano - (due - from_hold) + given
    held = charge.held_nano - from_hold
    change = 0 if hold is None else hold - held
    if change > 0:
        change = min(change, max(0, available))
        posting.add(TransferKind.HOLD, posting.wallet, posting.holds, change)
    else:
        posting.add(TransferKind.VOID, posting.holds, posting.wallet, -change)
    after = replace(
        charge,
        revenue_nano=cost.revenue_nano,
        credited_nano=cost.credited_nano,
        held_nano=held + change,
        postings=charge.postings + bool(posting.transfers),
        settled_us=now_us,
    )
    return after, posting.transfers


class _Posting:
    """The transfers of one settlement, with the accounts that they go between."""

    def __init__(self, charge: Charge, now_us: int) -> None:
        self._charge, self._now_us = charge, now_us
        self.transfers: list[Transfer] = []
        self.wallet = account(AccountKind.WALLET, charge.tenant_id, charge.currency)
        self.holds = account(AccountKind.HOLDS, charge.tenant_id, charge.currency)
        self.credits = account(AccountKind.CREDITS, charge.tenant_id, charge.currency)
        self.revenue = account(AccountKind.REVENUE, charge.offer, charge.currency)

    def add(self, kind: TransferKind, source: str, target: str, amount_nano: int) -> None:
        charge = self._charge
        if amount_nano == 0:
            return
        number = f"{charge.subject}:{charge.postings + 1}:{kind.value}"
        accounts = (source, target)
        self.transfers.append(
            move(number, self._now_us, kind, accounts, amount_nano, charge.currency, charge.tenant_id, charge.subject)
        )

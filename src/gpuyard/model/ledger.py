"""Double entry: every transfer takes from one account what it gives to another, so all accounts together hold nothing.

An account is `kind:owner:currency`. Its balance is what it was given less what was taken from it: a wallet with 5 holds
five that are the tenant's, and the cash account it came from stands at -5. Transfers are never changed; a balance is
the fold of all of them, from nothing. Amounts are whole nano-units of the currency and positive.

Money that is held follows the two-phase way: `hold` moves it from the wallet to `holds`, `post` moves what was used on
to revenue, `void` moves the rest back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_NANO: Final = 9 * 10**18  # what a 64-bit column takes, with room for one more transfer to be noticed


class AccountKind(StrEnum):
    """What an account stands for. Revenue is kept by offer, tax by currency, all others by tenant."""

    WALLET = "wallet"
    HOLDS = "holds"
    CASH = "cash"
    PROMOTIONS = "promotions"
    CREDITS = "credits"
    REVENUE = "revenue"
    TAX = "tax"
    BAD_DEBT = "bad_debt"


class TransferKind(StrEnum):
    """Why money moved."""

    OPENING = "opening"
    TOP_UP = "top_up"
    VOUCHER = "voucher"
    REFUND = "refund"
    HOLD = "hold"
    POST = "post"
    VOID = "void"
    USAGE = "usage"
    CORRECTION = "correction"
    CREDIT = "credit"
    TAX = "tax"
    WRITE_OFF = "write_off"


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money moved once. `subject` is what it is about: a lease, a payment, a voucher, an invoice."""

    id: str
    at_us: int
    kind: TransferKind
    debit: str  # the account that it is taken from
    credit: str  # the account that it is given to
    amount_nano: int
    currency: str
    tenant_id: str
    subject: str = ""

    @property
    def payload(self) -> tuple[object, ...]:
        """What must be the same when the same id is told again. The moment may differ: it is when it was told."""
        return self.kind.value, self.debit, self.credit, self.amount_nano, self.currency, self.tenant_id, self.subject


@dataclass(frozen=True, slots=True)
class Charge:
    """What was posted of one subject (a lease, or an account's commitments) and what is held for it."""

    subject: str
    tenant_id: str
    offer: str
    currency: str
    revenue_nano: int = 0
    credited_nano: int = 0
    held_nano: int = 0
    postings: int = 0
    settled_us: int = 0


def account(kind: AccountKind, owner: str, currency: str) -> str:
    """The name of an account."""
    return f"{kind.value}:{owner}:{currency}"


def move(
    transfer_id: str,
    at_us: int,
    kind: TransferKind,
    accounts: tuple[str, str],
    amount_nano: int,
    currency: str,
    tenant_id: str,
    subject: str = "",
) -> Transfer:
    """A transfer from the first account to the second; a negative amount moves the other way.

    Raises ValueError for an amount of nothing.
    """
    debit, credit = accounts if amount_nano > 0 else accounts[::-1]
    transfer = Transfer(transfer_id, at_us, kind, debit, credit, abs(amount_nano), currency, tenant_id, subject)
    check(transfer)
    return transfer


def check(transfer: Transfer) -> None:
    """Raises ValueError for what no ledger may take: nothing moved, too much, one account, or two currencies."""
    if not 0 < transfer.amount_nano <= MAX_NANO:
        raise ValueError(f"transfer {transfer.id} moves {transfer.amount_nano}")
    if transfer.debit == transfer.credit:
        raise ValueError(f"transfer {transfer.id} moves from {transfer.debit} to itself")
    for name in (transfer.debit, transfer.credit):
        if name.rsplit(":", 1)[-1] != transfer.currency:
            raise ValueError(f"transfer {transfer.id} moves {transfer.currency} on {name}")


def changes(transfers: Iterable[Transfer]) -> dict[str, int]:
    """What these transfers change, by account. The sum is 0 always."""
    found: dict[str, int] = defaultdict(int)
    for transfer in transfers:
        found[transfer.debit] -= transfer.amount_nano
        found[transfer.credit] += transfer.amount_nano
    return dict(found)

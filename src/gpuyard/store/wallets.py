"""Wallets: who pays in advance, what was put in, and which alerts were told."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from gpuyard.model.errors import YardError
from gpuyard.model.ledger import MAX_NANO, AccountKind, TransferKind, account, move
from gpuyard.model.units import NANO
from gpuyard.store import ledger
from gpuyard.store.ledger_tables import WALLETS

_OPEN = text(
    "INSERT INTO wallets (tenant_id, prepaid, runway_told) VALUES (:id, :prepaid, 0) "
    "ON CONFLICT (tenant_id) DO UPDATE SET prepaid = excluded.prepaid"
)
_SOURCE = {TransferKind.VOUCHER: AccountKind.PROMOTIONS}


@dataclass(frozen=True, slots=True)
class WalletRow:
    """`runway_told`: how many of the run-way alerts were told since the wallet last had more. `exhausted_us`: since
    when there has been nothing left."""

    tenant_id: str
    prepaid: bool
    runway_told: int
    exhausted_us: int | None


def set_prepaid(c: Connection, tenant_id: str, prepaid: bool) -> None:
    """Whether a tenant pays in advance (and stops when it runs out) or later."""
    c.execute(_OPEN, {"id": tenant_id, "prepaid": prepaid})


def find(c: Connection, tenant_id: str) -> WalletRow:
    """A tenant's wallet; of one that never had any, as it would be."""
    row = c.execute(select(WALLETS).where(WALLETS.c.tenant_id == tenant_id)).first()
    return WalletRow(tenant_id, False, 0, None) if row is None else WalletRow(*row)


def note(c: Connection, tenant_id: str, runway_told: int, exhausted_us: int | None) -> None:
    """Writes down which alerts were told."""
    c.execute(
        WALLETS.update()
        .where(WALLETS.c.tenant_id == tenant_id)
        .values(runway_told=runway_told, exhausted_us=exhausted_us)
    )


def fund(
    c: Connection,
    tenant_id: str,
    currency: str,
    kind: TransferKind,
    transfer: tuple[str, int],
    amount_nano: int,
    subject: str = "",
) -> bool:
    """Moves money into a wallet, from cash or (vouchers) from promotions, and has the tenant pay in advance from now
    on. `transfer` is its id and moment. Whether it is new: what was told before moves nothing.

    Raises YardError `invalid_price` where it would be more than can be kept, and `payment_conflict` where the id was
    told with another amount (the caller rolls back, and tells the alarm apart).
    """
    source = account(_SOURCE.get(kind, AccountKind.CASH), tenant_id, currency)
    target = account(AccountKind.WALLET, tenant_id, currency)
    transfer_id, at_us = transfer
    set_prepaid(c, tenant_id, True)
    if amount_nano == 0:
        return True
    before = ledger.balances(c, [source])[source]
    if abs(amount_nano) > MAX_NANO or abs(before - amount_nano) > MAX_NANO:
        raise YardError("invalid_price", value=str(amount_nano // NANO))
    wanted = move(transfer_id, at_us, kind, (source, target), amount_nano, currency, tenant_id, subject)
    posted = ledger.post(c, [wanted])
    if posted.refused:
        raise YardError("payment_conflict", payment=transfer_id)
    return bool(posted.new)

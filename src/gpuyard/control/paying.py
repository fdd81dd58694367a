"""Every way in which money comes into a wallet or goes back out of it. Told twice, it counts once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from gpuyard.access.tokens import digest
from gpuyard.billing.payments import Payment
from gpuyard.control.settling import live_balance_nano
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.ledger import AccountKind, Transfer, TransferKind, account, move
from gpuyard.model.names import new_id
from gpuyard.model.tenants import Tenant
from gpuyard.model.units import DAY_US, format_money
from gpuyard.store import events, ledger, tenants, vouchers, wallets
from gpuyard.store.vouchers import Voucher

_ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # none of these is taken for another when it is read aloud
_GROUPS, _GROUP = 5, 5  # 122 bits
MAX_VOUCHER_US: Final = 3660 * DAY_US


@dataclass(frozen=True, slots=True)
class Received:
    """What a payment came to; `new` is False where it had been told before."""

    transfer_id: str
    new: bool


def top_up(yard: Yard, tenant: Tenant, amount_nano: int, actor: str, key: str | None = None) -> Received:
    """Money that an operator took in by hand. The same key with the same amount counts once.

    Raises YardError `invalid_price`, and `payment_conflict` where the key was used for another amount.
    """
    now_us = yard.clock.now_us()
    transfer_id = f"top_up:{tenant.id}:{key}" if key else new_id("tr", now_us)
    payment = Payment(transfer_id, tenant.id, amount_nano, tenant.currency)
    return _receive(yard, tenant, payment, TransferKind.TOP_UP, actor, now_us)


def receive(yard: Yard, payment: Payment, actor: str) -> Received:
    """A payment that was proven from outside.

    Raises YardError `payment_refused` for an unknown tenant or another currency, and `payment_conflict`.
    """
    with yard.store.read() as c:
        tenant = tenants.find(c, payment.tenant)
    if tenant is None:
        raise YardError("payment_refused", reason=f"there is no tenant {payment.tenant[:64]!r}")
    if tenant.currency != payment.currency:
        raise YardError("payment_refused", reason=f"{tenant.name} pays in {tenant.currency}, not {payment.currency}")
    return _receive(yard, tenant, payment, TransferKind.TOP_UP, actor, yard.clock.now_us())


def _receive(yard: Yard, tenant: Tenant, payment: Payment, kind: TransferKind, actor: str, now_us: int) -> Received:
    try:
        with yard.store.write() as c:
            transfer = (payment.id, now_us)
            new = wallets.fund(c, tenant.id, payment.currency, kind, transfer, payment.amount_nano)
            if new:
                events.append(c, [_credited(tenant, payment.id, payment.amount_nano, actor, now_us)])
    except YardError as error:
        if error.code == "payment_conflict":
            _alarm(yard, payment, actor, now_us)
        raise
    yard.wake.set()
    return Received(payment.id, new)


def _alarm(yard: Yard, payment: Payment, actor: str, now_us: int) -> None:
    """Told in a transaction of its own: the one that noticed was rolled back."""
    data = {"amount_nano": payment.amount_nano, "currency": payment.currency}
    with yard.store.write() as c:
        events.append(c, [Event("ledger.conflict", payment.id, now_us, actor=actor, data=data)])


def _credited(tenant: Tenant, transfer_id: str, amount_nano: int, actor: str, now_us: int) -> Event:
    data = {"amount": format_money(amount_nano, 9), "currency": tenant.currency, "transfer": transfer_id}
    return Event("tenant.credited", tenant.id, now_us, tenant.id, actor, data)


def add_voucher(yard: Yard, amount_nano: int, lasts_us: int, actor: str) -> tuple[str, Voucher]:
    """A new code, shown this once, and what it is worth.

    Raises YardError `invalid_price`, `invalid_duration`.
    """
    if amount_nano <= 0:
        raise YardError("invalid_price", value=str(amount_nano))
    if not 0 < lasts_us <= MAX_VOUCHER_US:
        raise YardError("invalid_duration", value=str(lasts_us))
    now_us = yard.clock.now_us()
    code = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
    voucher = Voucher(new_id("vc", now_us), amount_nano, yard.book.currency, now_us, now_us + lasts_us)
    with yard.store.write() as c:
        vouchers.insert(c, digest(code), voucher)
        data = {"amount": format_money(amount_nano, 9), "currency": voucher.currency}
        events.append(c, [Event("voucher.added", voucher.id, now_us, actor=actor, data=data)])
    return code, voucher


def redeem(yard: Yard, tenant: Tenant, code: str, actor: str) -> Received:
    """Turns a voucher into credit, once.

    Raises YardError `voucher_invalid`, `voucher_expired`, `voucher_used`, `currency_mismatch`, `invalid_price`.
    """
    now_us = yard.clock.now_us()
    hashed = digest(code.strip().upper())
    with yard.store.write() as c:
        voucher = vouchers.find(c, hashed)
        if voucher is None:
            raise YardError("voucher_invalid")
        if voucher.redeemed_us is not None:
            raise YardError("voucher_used", voucher=voucher.id)
        if now_us >= voucher.expires_us:
            raise YardError("voucher_expired", voucher=voucher.id)
        if voucher.currency != tenant.currency:
            raise YardError("currency_mismatch", what=voucher.id, found=voucher.currency, expected=tenant.currency)
        if not vouchers.redeem(c, hashed, tenant.id, now_us):
            raise YardError("voucher_used", voucher=voucher.id)
        transfer = (f"voucher:{voucher.id}", now_us)
        wallets.fund(c, tenant.id, tenant.currency, TransferKind.VOUCHER, transfer, voucher.amount_nano, voucher.id)
        events.append(c, [_credited(tenant, transfer[0], voucher.amount_nano, actor, now_us)])
    yard.wake.set()
    return Received(transfer[0], True)


def refund(yard: Yard, transfer_id: str, actor: str) -> Transfer:
    """Takes back a payment, whole and once, as far as it is still in the wallet.

    Raises YardError `transfer_not_found`, and `not_refundable` for a refund, a voucher, and what is spent already.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        paid = ledger.find(c, transfer_id)
        if paid is None:
            raise YardError("transfer_not_found", transfer=transfer_id[:80])
        if paid.kind not in {TransferKind.TOP_UP, TransferKind.OPENING}:
            raise YardError("not_refundable", transfer=paid.id, reason="only payments are, and only once")
        back = _back(c, yard, paid, now_us)
        if not ledger.post(c, [back]).new:
            raise YardError("not_refundable", transfer=paid.id, reason="it was refunded before")
        data = {"amount": format_money(paid.amount_nano, 9), "currency": paid.currency, "transfer": back.id}
        events.append(c, [Event("tenant.refunded", paid.tenant_id, now_us, paid.tenant_id, actor, data)])
    return back


def _back(c: Connection, yard: Yard, paid: Transfer, now_us: int) -> Transfer:
    number = f"refund:{paid.id}"
    if ledger.find(c, number) is not None:
        raise YardError("not_refundable", transfer=paid.id, reason="it was refunded before")
    tenant = tenants.find(c, paid.tenant_id)
    available, _ = ledger.wallet(c, paid.tenant_id, paid.currency)
    left = min(available, live_balance_nano(c, yard, tenant)) if tenant is not None else 0
    if left < paid.amount_nano:
        raise YardError("not_refundable", transfer=paid.id, reason=f"only {format_money(max(0, left), 9)} is left")
    accounts = (paid.credit, paid.debit)
    return move(number, now_us, TransferKind.REFUND, accounts, paid.amount_nano, paid.currency, paid.tenant_id, paid.id)


def write_off(yard: Yard, tenant: Tenant, actor: str) -> int:
    """Gives up what a wallet is below zero: moved to bad debt. How much it was, in nano-units.

    Raises YardError `not_refundable` where nothing is owed.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        available, held = ledger.wallet(c, tenant.id, tenant.currency)
        owed = -(available + held)
        if owed <= 0 or tenant.credit_nano is None:
            raise YardError("not_refundable", transfer=tenant.name, reason="nothing is owed that can be written off")
        accounts = (
            account(AccountKind.BAD_DEBT, tenant.id, tenant.currency),
            account(AccountKind.WALLET, tenant.id, tenant.currency),
        )
        number = new_id("tr", now_us)
        ledger.post(c, [move(number, now_us, TransferKind.WRITE_OFF, accounts, owed, tenant.currency, tenant.id)])
        data = {"amount": format_money(owed, 9), "currency": tenant.currency}
        events.append(c, [Event("tenant.written_off", tenant.id, now_us, tenant.id, actor, data)])
    return owed

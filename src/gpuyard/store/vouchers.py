"""Voucher codes. Only their hashes are kept."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from gpuyard.store.ledger_tables import VOUCHERS


@dataclass(frozen=True, slots=True)
class Voucher:
    """A voucher without its code."""

    id: str
    amount_nano: int
    currency: str
    created_us: int
    expires_us: int
    redeemed_us: int | None = None
    redeemed_by: str | None = None


_COLUMNS = tuple(VOUCHERS.c[name] for name in Voucher.__slots__)


def insert(c: Connection, digest: str, voucher: Voucher) -> None:
    """Keeps a new one."""
    c.execute(
        VOUCHERS.insert().values(
            digest=digest,
            id=voucher.id,
            amount_nano=voucher.amount_nano,
            currency=voucher.currency,
            created_us=voucher.created_us,
            expires_us=voucher.expires_us,
        )
    )


def find(c: Connection, digest: str) -> Voucher | None:
    """The one with this code."""
    row = c.execute(select(*_COLUMNS).where(VOUCHERS.c.digest == digest)).first()
    return None if row is None else Voucher(*row)


def redeem(c: Connection, digest: str, tenant_id: str, now_us: int) -> bool:
    """Marks it as used; False where it was used already, by whomever: one of two at once wins."""
    unused = VOUCHERS.update().where(VOUCHERS.c.digest == digest, VOUCHERS.c.redeemed_us.is_(None))
    return c.execute(unused.values(redeemed_us=now_us, redeemed_by=tenant_id)).rowcount == 1


def listing(c: Connection) -> list[Voucher]:
    """All vouchers, newest first."""
    return [Voucher(*row) for row in c.execute(select(*_COLUMNS).order_by(VOUCHERS.c.id.desc()))]

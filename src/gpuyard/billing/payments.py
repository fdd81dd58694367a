"""Money that comes in from outside, whoever brings it: who says so, for whom, and how much. Never a card number.

Stripe signs each call to a webhook: the header `Stripe-Signature` holds `t=SECONDS` and one or more `v1=HEX`, each
HMAC-SHA256 over `SECONDS.BODY` with the endpoint's secret (https://docs.stripe.com/webhooks, "Verify manually").
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gpuyard.model.errors import YardError
from gpuyard.model.units import NANO, SECOND_US

TOLERANCE_US: Final = 300 * SECOND_US
MAX_BODY_BYTES: Final = 1 << 18
# Currencies that Stripe counts in whole units (https://docs.stripe.com/currencies#zero-decimal).
_WHOLE: Final = frozenset(
    "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that was paid. `id` is the payer's side's own and the same however often it is told."""

    id: str
    tenant: str
    amount_nano: int
    currency: str


class PaymentNotices(Protocol):
    """Turns a call from outside into the payment that it proves."""

    def read(self, body: bytes, headers: Mapping[str, str], now_us: int) -> Payment | None:
        """The payment, or None for news of another kind. Raises YardError `payment_unverified` or `payment_refused`."""
        ...


class StripeNotices:
    """Calls of Stripe's webhooks. Paid checkouts count; the tenant is the checkout's `client_reference_id`."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def read(self, body: bytes, headers: Mapping[str, str], now_us: int) -> Payment | None:
        """See `PaymentNotices`. The body must be the raw bytes: another spelling has another signature."""
        verify(body, headers.get("stripe-signature", ""), self._secret, now_us)
        try:
            event: dict[str, Any] = json.loads(body)
            if event["type"] not in {"checkout.session.completed", "checkout.session.async_payment_succeeded"}:
                return None
            session: dict[str, Any] = event["data"]["object"]
            if session["payment_status"] != "paid":
                return None
            amount, currency = session["amount_total"], str(session["currency"]).upper()
            payment_id, tenant = str(session["id"]), str(session["client_reference_id"] or "")
        except (ValueError, KeyError, TypeError) as error:
            raise YardError("payment_refused", reason=f"it cannot be read: {error!r}") from None
        if not isinstance(amount, int) or isinstance(amount, bool) or amount <= 0:
            raise YardError("payment_refused", reason=f"amount_total is {amount!r}")
        unit = NANO if currency in _WHOLE else NANO // 100
        return Payment(f"stripe:{payment_id}", tenant, amount * unit, currency)


def verify(body: bytes, header: str, secret: str, now_us: int) -> None:
    """Raises YardError `payment_unverified` unless the header signs these bytes now, give or take five minutes."""
    parts = [part.strip().partition("=") for part in header.split(",")]
    moments = [value for name, _, value in parts if name == "t"]
    signatures = [value for name, _, value in parts if name == "v1"]
    if len(moments) != 1 or not (moments[0].isascii() and moments[0].isdecimal() and len(moments[0]) < 13):
        raise YardError("payment_unverified", reason="the header Stripe-Signature names no moment")
    expected = hmac.new(secret.encode(), moments[0].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    # Every signature is compared, so that how long it takes tells nothing.
    matches = [hmac.compare_digest(expected, signature.encode()) for signature in signatures]
    if not any(matches):
        raise YardError("payment_unverified", reason="no signature of it is ours")
    if abs(now_us - int(moments[0]) * SECOND_US) > TOLERANCE_US:
        raise YardError("payment_unverified", reason="it was signed more than five minutes from now")

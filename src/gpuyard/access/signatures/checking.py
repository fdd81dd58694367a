"""The whole check of a signed request, the same amount of work whether its key is known or not."""

from __future__ import annotations

from gpuyard.access.callers import KeyRing, KnownKey
from gpuyard.access.signatures import acs, sigv4
from gpuyard.access.signatures.nonces import Nonces
from gpuyard.access.signatures.request import NO_SECRET, Claim, Refusal, SignatureError, SignedRequest, same


def check(request: SignedRequest, keys: KeyRing, nonces: Nonces, now_us: int) -> tuple[KnownKey, Claim]:
    """Whose request this is.

    Raises SignatureError.
    """
    scheme = sigv4 if sigv4.is_signed(request) else acs if acs.is_signed(request) else None
    if scheme is None:
        raise SignatureError(Refusal.MISSING)
    claim = scheme.read(request, now_us)
    known = keys.find(claim.key_id)
    matches = same(scheme.sign(claim, NO_SECRET if known is None else known.secret), claim.signature)
    if known is None:
        raise SignatureError(Refusal.UNKNOWN_KEY)
    if not matches:
        raise SignatureError(Refusal.MISMATCH, claim.to_sign)
    if claim.nonce is not None and not nonces.take(claim.key_id, claim.nonce, claim.signed_us + acs.SKEW_US, now_us):
        raise SignatureError(Refusal.REPLAYED, claim.nonce)
    return known, claim

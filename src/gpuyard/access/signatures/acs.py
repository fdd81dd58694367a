"""The two schemes of Alibaba Cloud's RPC APIs: version 1.0 (HMAC-SHA1 over the parameters) and ACS3-HMAC-SHA256 (over
headers, query and body).

The schemes: https://www.alibabacloud.com/help/en/sdk/product-overview/rpc-mechanism and
https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

from gpuyard.access.signatures.request import (
    MINUTE_US,
    Claim,
    Refusal,
    SignatureError,
    SignedRequest,
    canonical,
    encode,
    fields,
    headers_to_sign,
    moment_us,
    sha256,
)

V1: Final = "HMAC-SHA1"
V3: Final = "ACS3-HMAC-SHA256"
SKEW_US: Final = 31 * MINUTE_US
LONGEST_NONCE: Final = 128
_LAYOUT: Final = "%Y-%m-%dT%H:%M:%SZ"
_MUST: Final = ("host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version")


def is_signed(request: SignedRequest) -> bool:
    """Whether the request claims one of the two."""
    if request.headers.get("authorization", "").startswith(V3):
        return True
    return any(name == "Signature" for name, _ in (*request.query, *request.form))


def read(request: SignedRequest, now_us: int) -> Claim:
    """What the request claims.

    Raises SignatureError `malformed` or `expired`.
    """
    is_v3 = request.headers.get("authorization", "").startswith(V3)
    claim = _v3(request) if is_v3 else _v1(request)
    if abs(now_us - claim.signed_us) > SKEW_US:
        raise SignatureError(Refusal.EXPIRED, "Specified time stamp or date value is expired.")
    if claim.nonce is None or not 0 < len(claim.nonce) <= LONGEST_NONCE:
        raise SignatureError(Refusal.MALFORMED, f"SignatureNonce must have 1 to {LONGEST_NONCE} characters")
    return claim


def _v1(request: SignedRequest) -> Claim:
    pairs = [*request.query, *request.form]
    given = dict(pairs)
    if len(given) != len(pairs):
        raise SignatureError(Refusal.MALFORMED, "a parameter is given twice")
    needed = ("AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SignatureNonce", "Timestamp")
    if absent := [name for name in needed if not given.get(name)]:
        raise SignatureError(Refusal.MALFORMED, f"{absent[0]} is mandatory for this action.")
    if given["SignatureMethod"] != V1 or given["SignatureVersion"] != "1.0":
        raise SignatureError(Refusal.MALFORMED, "SignatureMethod must be HMAC-SHA1 and SignatureVersion 1.0")
    signed = canonical([pair for pair in pairs if pair[0] != "Signature"])
    return Claim(
        key_id=given["AccessKeyId"],
        signature=given["Signature"],
        signed_us=moment_us(given["Timestamp"], _LAYOUT),
        nonce=given["SignatureNonce"],
        region=given.get("RegionId"),
        to_sign=f"{request.method}&{encode('/')}&{encode(signed)}",
        keyed=(),
        scheme=V1,
    )


def _v3(request: SignedRequest) -> Claim:
    found = fields(request.headers["authorization"].removeprefix(V3))
    if not {"Credential", "SignedHeaders", "Signature"} <= found.keys():
        raise SignatureError(Refusal.MALFORMED, "Credential, SignedHeaders and Signature must be given")
    lines = headers_to_sign(request, found["SignedHeaders"], _MUST, "x-acs-")
    body = sha256(request.body)
    if request.headers["x-acs-content-sha256"] != body:
        raise SignatureError(Refusal.MALFORMED, "x-acs-content-sha256 is not the hash of the body")
    parts = [request.method, request.path or "/", canonical(request.query), lines, found["SignedHeaders"], body]
    return Claim(
        key_id=found["Credential"],
        signature=found["Signature"],
        signed_us=moment_us(request.headers["x-acs-date"], _LAYOUT),
        nonce=request.headers["x-acs-signature-nonce"],
        region=dict(request.query).get("RegionId"),
        to_sign=f"{V3}\n{sha256(chr(10).join(parts).encode(errors='surrogateescape'))}",
        keyed=(),
        scheme=V3,
    )


def sign(claim: Claim, secret: str) -> str:
    """The signature that this secret gives."""
    if claim.scheme == V1:
        signed = hmac.digest(f"{secret}&".encode(), claim.to_sign.encode(errors="surrogateescape"), "sha1")
        return base64.b64encode(signed).decode()
    return hmac.digest(secret.encode(), claim.to_sign.encode(), "sha256").hex()

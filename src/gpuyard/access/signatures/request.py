"""A request as its signature sees it, and the ways in which one is refused."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote_from_bytes, unquote_to_bytes

MINUTE_US = 60_000_000
NO_SECRET = "no key has this secret: it keeps the work for an unknown key the same"  # noqa: S105


class Refusal(StrEnum):
    """Why a signature was not taken."""

    MISSING = "missing"  # nothing signs the request
    MALFORMED = "malformed"  # what signs it cannot be read, or leaves out what must be signed
    UNKNOWN_KEY = "unknown_key"
    MISMATCH = "mismatch"
    EXPIRED = "expired"  # signed too long ago, or in the future
    REPLAYED = "replayed"  # its nonce was seen before


class SignatureError(Exception):
    """One refusal. `detail` is for the caller: what was wrong, or the string that the server signed."""

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        self.refusal = refusal
        self.detail = detail
        super().__init__(refusal, detail)


Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """`headers` by lower-case name, those sent more than once joined by commas; `query` and `form` decoded."""

    method: str
    path: str
    query: Pairs
    headers: Mapping[str, str]
    body: bytes
    form: Pairs = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of its own signature. Nothing of it is proven until `proves`."""

    key_id: str
    signature: str
    signed_us: int
    nonce: str | None
    region: str | None
    to_sign: str
    keyed: tuple[str, ...]  # what the scheme mixes into the secret: (date, region, service, "aws4_request")
    scheme: str


def encode(text: str) -> str:
    """RFC 3986: everything but letters, digits and `-_.~`; a space is %20."""
    return _encoded(text.encode(errors="surrogateescape"))


def _encoded(raw: bytes) -> str:
    return quote_from_bytes(raw, safe="-_.~")


def canonical(pairs: Pairs) -> str:
    """Pairs encoded, then sorted as bytes."""
    encoded = sorted((encode(name), encode(value)) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def decode_pairs(raw: bytes, most: int) -> list[tuple[str, str]]:
    """A query or a form. Bytes that are no UTF-8 stay as they came (surrogates), so that what was signed is signed.

    Raises SignatureError `malformed` for more than `most` pairs and for a bad escape.
    """
    if raw.count(b"&") >= most:
        raise SignatureError(Refusal.MALFORMED, f"more than {most} parameters")
    pairs: list[tuple[str, str]] = []
    for part in raw.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((_decode(name), _decode(value)))
    return pairs


def _decode(raw: bytes) -> str:
    if b"%" in raw or b"+" in raw:
        raw = unquote_to_bytes(raw.replace(b"+", b" "))
    return raw.decode(errors="surrogateescape")


def fields(text: str) -> dict[str, str]:
    """`A=b, C=d` of an Authorization header.

    Raises SignatureError `malformed`.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in found:
            raise SignatureError(Refusal.MALFORMED, "the Authorization header cannot be read")
        found[name] = value
    return found


def moment_us(text: str, layout: str) -> int:
    """A moment in UTC.

    Raises SignatureError `malformed`.
    """
    try:
        return int(datetime.strptime(text, layout).replace(tzinfo=UTC).timestamp()) * 1_000_000
    except (ValueError, OverflowError):
        raise SignatureError(Refusal.MALFORMED, "the time of the signature cannot be read") from None


def headers_to_sign(request: SignedRequest, signed: str, must: Sequence[str], prefix: str) -> str:
    """The signed headers, a line each. What must be signed, and every sent header of the scheme's prefix, has to be
    among them: an unsigned one could be changed on the way.

    Raises SignatureError `malformed`.
    """
    names = signed.split(";")
    missing = [name for name in must if name not in names]
    missing += [name for name in request.headers if name.startswith(prefix) and name not in names]
    absent = [name for name in names if name not in request.headers]
    if missing or absent or names != sorted(set(names)):
        raise SignatureError(Refusal.MALFORMED, "the signed headers leave out what must be signed, or name others")
    return "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in names)


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def same(one: str, other: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))

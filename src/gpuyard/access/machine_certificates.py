"""Certificates of machines: who may get one, what is in it, and which of a yard's authorities signs.

A machine's certificate names it as `spiffe://<yard>/machine/<name>` (the form of an X.509-SVID), is for clients alone,
and lives for a day at most. The authorities that sign it are not those of the API's certificates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gpuyard.access.certificates import SKEW, Certified, certificate_builder, certificate_pem, key_usage
from gpuyard.access.machines import MOST_REQUEST_BYTES, spiffe_id
from gpuyard.model.errors import YardError

MACHINE_LIFE: Final = timedelta(hours=24)  # from the moment at which it begins to hold, which is an hour ago
AUTHORITY_LIFE: Final = timedelta(days=365)
NEXT_AUTHORITY_BEFORE: Final = timedelta(days=30)  # the end of the newest, another is made beside it
# How long that one is only trusted: whoever holds a certificate that is still good has been told of it by then.
SETTLING: Final = timedelta(days=3)
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True)
class Authority:
    """One of a yard's authorities for machines, and when it holds."""

    held: Certified
    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, held: Certified) -> Authority:
        """Raises ValueError for what is no certificate."""
        read = x509.load_pem_x509_certificate(held.certificate)
        return cls(held, read.not_valid_before_utc, read.not_valid_after_utc)


@dataclass(frozen=True, slots=True)
class Issued:
    """A machine's new certificate."""

    certificate: bytes  # PEM
    sha256: str  # of its DER form
    key_sha256: str
    until: datetime


def trusted(authorities: Sequence[Authority], now: datetime) -> list[Authority]:
    """Those whose certificates are believed, the oldest first."""
    return sorted((one for one in authorities if now < one.ends), key=lambda one: one.begins)


def signing(authorities: Sequence[Authority], now: datetime) -> Authority:
    """The one that signs: the newest that every machine knows by now, or else the oldest.

    Raises ValueError where none is trusted.
    """
    known = trusted(authorities, now)
    if not known:
        raise ValueError("every authority has ended")
    settled = [one for one in known if one.begins + SKEW + SETTLING <= now]
    return settled[-1] if settled else known[0]


def next_is_due(authorities: Sequence[Authority], now: datetime) -> bool:
    """Whether another one is to be made."""
    known = trusted(authorities, now)
    return not known or known[-1].ends - NEXT_AUTHORITY_BEFORE <= now


def requested_key(request: bytes, yard: str, name: str) -> ec.EllipticCurvePublicKey:
    """The key of a certificate signing request (PEM) that asks for nothing but what this machine gets.

    Raises YardError `machine_request_refused`. What it asks for besides is refused rather than left out: whoever asks
    for more does not know, or is not, what they should be.
    """
    read = _readable(request)
    key = read.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise _refused("key")
    if not read.is_signature_valid:
        raise _refused("signature")
    names = [(attribute.oid, attribute.value) for attribute in read.subject]
    if names != [(NameOID.COMMON_NAME, name)]:
        raise _refused("name")
    for extension in _extensions(read):
        if isinstance(extension, x509.BasicConstraints) and extension.ca:
            raise _refused("authority")
        if not isinstance(extension, x509.SubjectAlternativeName):
            raise _refused("extension")
        if list(extension) != [x509.UniformResourceIdentifier(spiffe_id(yard, name))]:
            raise _refused("name")
    return key


def issue(authority: Authority, key: ec.EllipticCurvePublicKey, yard: str, name: str, now: datetime) -> Issued:
    """A certificate for a machine's key; it never outlives the authority."""
    signer = serialization.load_pem_private_key(authority.held.key, None)
    issuer = x509.load_pem_x509_certificate(authority.held.certificate)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not one of an elliptic curve")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = min(now - SKEW + MACHINE_LIFE, authority.ends)
    built = (
        certificate_builder(subject, issuer.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id(yard, name))]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    sha256 = built.fingerprint(hashes.SHA256()).hex()
    return Issued(certificate_pem(built), sha256, key_digest(key), built.not_valid_after_utc)


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 over a public key (SubjectPublicKeyInfo), as hex."""
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(*form)).hexdigest()


def _readable(request: bytes) -> x509.CertificateSigningRequest:
    if len(request) > MOST_REQUEST_BYTES:
        raise _refused("unreadable")
    try:
        read = x509.load_pem_x509_csr(request)
        read.public_key()  # of a kind that is not known, it fails only here
        _ = read.extensions
    except Exception:  # whatever a library says of bytes that anybody may send
        raise _refused("unreadable") from None
    return read


def _extensions(read: x509.CertificateSigningRequest) -> list[x509.ExtensionType]:
    return [extension.value for extension in read.extensions]


def _refused(because: str) -> YardError:
    return YardError("machine_request_refused", refusal=because)

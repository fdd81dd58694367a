"""Certificates of a yard's own authority: the authority itself, and short-lived ones that it signs for a server."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=30)
RENEW_BEFORE = timedelta(days=10)  # the end of a server's certificate
SKEW = timedelta(hours=1)  # by which a client's clock may be behind


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def new_authority(name: str, now: datetime, life: timedelta = AUTHORITY_LIFE) -> Certified:
    """An authority that signs certificates of servers and machines, and no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    built = (
        certificate_builder(subject, subject, key.public_key(), now, now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certified(certificate_pem(built), _key_pem(key))


def issue(authority: Certified, names: Sequence[str], now: datetime) -> Certified:
    """A server's certificate for host names and addresses; it never outlives the authority.

    Raises ValueError for an authority that is none.
    """
    signer = serialization.load_pem_private_key(authority.key, None)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not one of an elliptic curve")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    end = min(now + SERVER_LIFE, issuer.not_valid_after_utc)
    built = (
        certificate_builder(subject, issuer.subject, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Certified(certificate_pem(built), _key_pem(key))


def is_due(certificate: bytes, authority: bytes, names: Sequence[str], now: datetime) -> bool:
    """Whether a server needs a new certificate: it ends soon, is for other names, or another authority signed it."""
    held = x509.load_pem_x509_certificate(certificate)
    issuer = x509.load_pem_x509_certificate(authority)
    if min(now + RENEW_BEFORE, issuer.not_valid_after_utc - SKEW) >= held.not_valid_after_utc:
        return True
    told = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if set(told) != {_name(name) for name in names}:
        return True
    try:
        held.verify_directly_issued_by(issuer)
    except Exception:  # whatever is wrong with the signature: it is not one of this authority
        return True
    return False


def has_ended(certificate: bytes, now: datetime) -> bool:
    """Whether nobody may rely on it any more."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc <= now


def fingerprint(certificate: bytes) -> str:
    """SHA-256 over the DER form, as 64 hex digits."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    """What every certificate of ours begins with. It holds from an hour ago, for clocks that are behind."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - SKEW).astimezone(UTC))
        .not_valid_after(end.astimezone(UTC))
    )


def key_usage(*, signs: bool) -> x509.KeyUsage:
    """What an authority's key (`signs`) or anybody else's may be used for."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """As text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

"""Whether a certificate was taken back: by revocation lists and OCSP answers that came along, held against the time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from gpuyard.access.attestation.evidence import refused

Answer = x509.CertificateRevocationList | ocsp.OCSPResponse


def read_all(kind: str, found: Sequence[bytes]) -> list[Answer]:
    """Each as what it is. Raises YardError `evidence_refused` (malformed)."""
    return [_read(kind, one) for one in found]


def _read(kind: str, one: bytes) -> Answer:
    for load in (x509.load_pem_x509_crl, x509.load_der_x509_crl, ocsp.load_der_ocsp_response):
        try:
            return load(one)
        except ValueError:
            continue
    raise refused(kind, "malformed", "revocation")


def answer_for(
    kind: str, one: x509.Certificate, issuer: x509.Certificate, answers: Sequence[Answer], now: datetime
) -> datetime | None:
    """Until when an answer of its issuer says that the certificate is good; None where there is no answer about it.

    Raises YardError `evidence_refused` for one that was taken back, and for an answer that is not the issuer's or not
    of now: whoever hands in such a thing hides something, or must fetch it anew.
    """
    until = None
    for answer in answers:
        if isinstance(answer, x509.CertificateRevocationList):
            told = _of_list(kind, one, issuer, answer, now)
        else:
            told = _of_ocsp(kind, one, issuer, answer, now)
        if told is not None:
            until = told if until is None else max(until, told)
    return until


def _of_list(
    kind: str, one: x509.Certificate, issuer: x509.Certificate, crl: x509.CertificateRevocationList, now: datetime
) -> datetime | None:
    if crl.issuer != issuer.subject:
        return None
    try:
        whole = crl.public_bytes(serialization.Encoding.DER).endswith(b"\0" + crl.signature)
        signed = whole and _may_sign_lists(issuer) and crl.is_signature_valid(issuer.public_key())  # pyright: ignore[reportArgumentType]
        partial = any(extension.critical for extension in crl.extensions)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        signed = partial = False
    if not signed:
        raise refused(kind, "revocation_unsigned", issuer.subject.rfc4514_string())
    if partial:  # a difference to another list, or a list of some reasons alone
        raise refused(kind, "revocation_partial", issuer.subject.rfc4514_string())
    until = crl.next_update_utc
    _check_time(kind, crl.last_update_utc, until, now, issuer)
    if crl.get_revoked_certificate_by_serial_number(one.serial_number) is not None:
        raise refused(kind, "revoked", one.subject.rfc4514_string())
    return until


def _of_ocsp(
    kind: str, one: x509.Certificate, issuer: x509.Certificate, response: ocsp.OCSPResponse, now: datetime
) -> datetime | None:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise refused(kind, "malformed", "revocation")
    for single in response.responses:
        if single.serial_number != one.serial_number or not _is_by(single, issuer):
            continue
        if not _signed_for(response, issuer, now):
            raise refused(kind, "revocation_unsigned", issuer.subject.rfc4514_string())
        _check_time(kind, single.this_update_utc, single.next_update_utc, now, issuer)
        if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
            raise refused(kind, "revoked", one.subject.rfc4514_string())
        return single.next_update_utc
    return None


def _check_time(kind: str, since: datetime, until: datetime | None, now: datetime, issuer: x509.Certificate) -> None:
    if until is None or not since <= now < until:
        raise refused(kind, "revocation_stale", issuer.subject.rfc4514_string())


def _is_by(single: ocsp.OCSPSingleResponse, issuer: x509.Certificate) -> bool:
    def hashed(value: bytes) -> bytes:
        digest = hashes.Hash(single.hash_algorithm)
        digest.update(value)
        return digest.finalize()

    key = issuer.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        bits = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    else:
        bits = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    name = issuer.subject.public_bytes()
    return single.issuer_name_hash == hashed(name) and single.issuer_key_hash == hashed(bits)


def _signed_for(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> bool:
    """Whether the issuer signed it, or somebody whom the issuer certified to answer for it."""
    signers = [issuer]
    for one in response.certificates:
        try:
            usage = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            one.verify_directly_issued_by(issuer)
        except (x509.ExtensionNotFound, InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            continue
        if ExtendedKeyUsageOID.OCSP_SIGNING in usage and one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            signers.append(one)
    return any(_signed(response, signer) for signer in signers)


def _signed(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, hashed = signer.public_key(), response.signature_hash_algorithm
    if not isinstance(hashed, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), hashed)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return False

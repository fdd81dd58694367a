"""A certificate chain from the signer of evidence to a root that the operator's policy names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from gpuyard.access.attestation import revocation
from gpuyard.access.attestation.evidence import refused

LONGEST = 8
# What `cryptography` raises of a certificate that it cannot make sense of; some of it only once a field is asked for.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_READ = (x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid)
_DICE = "2.23.133."  # TCG's: about the firmware that a layer was started with, which its key was made from


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that holds: the signer's certificate, and until when nothing of it is out of date."""

    leaf: x509.Certificate
    good_until: datetime


def verify_chain(
    kind: str, pem: str, roots: Sequence[str], revocations: Sequence[bytes], now: datetime, *, must_be_fresh: bool
) -> Chain:
    """The chain, from its first certificate to one of the roots.

    `must_be_fresh`: every authority between must be vouched for by revocation data of now. Raises YardError.
    """
    found = _closed(kind, _read(kind, pem), [x509.load_pem_x509_certificate(root.encode()) for root in roots])
    for index, one in enumerate(found):
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            raise refused(kind, "certificate_time", _name(one))
        _check_extensions(kind, one)
        if index + 1 < len(found):  # the root is trusted because the policy names it
            _check_issued(kind, one, found[index + 1], below=index)
    until = min(one.not_valid_after_utc for one in found)
    answers = revocation.read_all(kind, revocations)
    for index, one in enumerate(found[:-1]):
        answered = revocation.answer_for(kind, one, found[index + 1], answers, now)
        if answered is not None:
            until = min(until, answered)
        elif must_be_fresh and index > 0:
            raise refused(kind, "revocation_missing", _name(one))
    return Chain(found[0], until)


def _read(kind: str, pem: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except UNREADABLE:
        raise refused(kind, "malformed", "certificates") from None
    if len(found) > LONGEST:
        raise refused(kind, "malformed", f"{len(found)} certificates")
    if not all(one.public_bytes(Encoding.DER).endswith(b"\0" + one.signature) for one in found):
        raise refused(kind, "malformed", "certificates")  # a signature of whole bytes has one form alone
    return found


def _closed(kind: str, found: list[x509.Certificate], roots: list[x509.Certificate]) -> list[x509.Certificate]:
    """The chain up to a root, which need not be sent along. The one that counts is the policy's."""
    for root in roots:
        if root in found:
            return found[: found.index(root) + 1]
    for root in roots:
        if found[-1].issuer == root.subject:
            return [*found, root]
    raise refused(kind, "root_unknown", _name(found[-1]))


def _check_issued(kind: str, one: x509.Certificate, issuer: x509.Certificate, below: int) -> None:
    """`below` counts the authorities between the issuer and the signer of the evidence."""
    try:
        rules = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        may_sign = rules.ca and usage.key_cert_sign and (rules.path_length is None or below <= rules.path_length)
    except (x509.ExtensionNotFound, ValueError):
        may_sign = False
    if not may_sign:
        raise refused(kind, "not_an_authority", _name(issuer))
    if not isinstance(one.signature_hash_algorithm, _STRONG):
        raise refused(kind, "chain_broken", _name(one))
    try:
        one.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise refused(kind, "chain_broken", _name(one)) from None


def _check_extensions(kind: str, one: x509.Certificate) -> None:
    """What is marked as critical must be understood."""
    try:
        unread = [e.oid.dotted_string for e in one.extensions if e.critical and e.oid not in _READ]
    except ValueError:
        raise refused(kind, "malformed", _name(one)) from None
    strange = [oid for oid in unread if not oid.startswith(_DICE)]
    if strange:
        raise refused(kind, "extension_unknown", strange[0])


def _name(one: x509.Certificate) -> str:
    return one.subject.rfc4514_string()

"""Authorities that stand in for AMD's, Intel's and NVIDIA's: chains, revocation lists and OCSP answers of a test's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 9, 21, 12, 0, tzinfo=UTC)
YEAR, DAY = timedelta(days=365), timedelta(days=1)
CRL_AT = "http://crl.example/authority.crl"


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP384R1())


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


@dataclass
class Authority:
    """One that may sign. `pss`: with RSASSA-PSS, as AMD does."""

    title: str
    key: Any
    hashed: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    pss: bool = False
    certificate: x509.Certificate = field(init=False)

    def signed(self, builder: Any) -> Any:
        if not self.pss:
            return builder.sign(self.key, self.hashed)
        salted = padding.PSS(padding.MGF1(self.hashed), self.hashed.digest_size)
        return builder.sign(self.key, self.hashed, rsa_padding=salted)

    def issue(
        self,
        title: str,
        public: Any,
        *,
        ca: bool = False,
        path_length: int | None = None,
        since: datetime = NOW - YEAR,
        until: datetime = NOW + 10 * YEAR,
        serial: int | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
        critical: Sequence[x509.ExtensionType] = (),
    ) -> x509.Certificate:
        """A certificate that it signs."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(title))
            .issuer_name(name(self.title))
            .public_key(public)
            .serial_number(x509.random_serial_number() if serial is None else serial)
            .not_valid_before(since)
            .not_valid_after(until)
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = builder.add_extension(usage, critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        for extension in critical:
            builder = builder.add_extension(extension, critical=True)
        return self.signed(builder)

    def below(self, title: str, key: Any, **options: Any) -> Authority:
        """A further authority that it certifies."""
        made = Authority(title, key, self.hashed, self.pss)
        made.certificate = self.issue(title, key.public_key(), ca=True, **options)
        return made

    def crl(
        self,
        revoked: Sequence[int] = (),
        *,
        since: datetime = NOW - DAY,
        until: datetime = NOW + 30 * DAY,
        partial: bool = False,
    ) -> bytes:
        """Its revocation list."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(name(self.title)).last_update(since)
        builder = builder.next_update(until).add_extension(x509.CRLNumber(1), critical=False)
        if partial:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        for serial in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
            builder = builder.add_revoked_certificate(one.build())
        return self.signed(builder).public_bytes(serialization.Encoding.DER)

    def ocsp(
        self,
        certificate: x509.Certificate,
        *,
        good: bool = True,
        since: datetime = NOW - DAY,
        until: datetime = NOW + DAY,
        by: Authority | None = None,
    ) -> bytes:
        """Its answer about a certificate; `by` signs it in its place."""
        signer = by or self
        status = ocsp.OCSPCertStatus.GOOD if good else ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            certificate, self.certificate, hashes.SHA384(), status, since, until, None if good else since, None
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        if by is not None:
            builder = builder.certificates([by.certificate])
        return builder.sign(signer.key, hashes.SHA384()).public_bytes(serialization.Encoding.DER)


def root(title: str, key: Any = None, *, pss: bool = False, hashed: hashes.HashAlgorithm | None = None) -> Authority:
    """An authority that certifies itself."""
    made = Authority(title, key or ec_key(), hashed or hashes.SHA384(), pss)
    made.certificate = made.issue(title, made.key.public_key(), ca=True)
    return made


def rsa_key() -> rsa.RSAPrivateKey:
    """2,048 bits: AMD has 4,096, which take a test seconds to make."""
    return rsa.generate_private_key(65537, 2048)

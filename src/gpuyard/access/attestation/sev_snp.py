"""AMD SEV-SNP attestation reports (SEV Secure Nested Paging Firmware ABI, section "Attestation Report")."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gpuyard.access.attestation.chain import Chain, verify_chain
from gpuyard.access.attestation.evidence import SNP, Claims, Evidence, refused
from gpuyard.access.attestation.policy import SnpPolicy

REPORT_BYTES: Final = 0x4A0
SIGNED_BYTES: Final = 0x2A0
_VERSIONS: Final = (2, 3, 4, 5)
_ECDSA_P384_SHA384: Final = 1
_OIDS: Final = "1.3.6.1.4.1.3704.1."
# Where each part of the firmware's version stands: in the eight bytes of a report, and in a certificate.
_TCB: Final = {"boot_loader": (0, "3.1"), "tee": (1, "3.2"), "snp": (6, "3.3"), "microcode": (7, "3.8")}
_TCB_TURIN: Final = {
    "fmc": (0, "3.9"), "boot_loader": (1, "3.1"), "tee": (2, "3.2"), "snp": (3, "3.3"), "microcode": (7, "3.8"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """The fields that are looked at."""

    policy: int
    vmpl: int
    reported_tcb: bytes
    flags: int
    report_data: bytes
    measurement: str
    host_data: str
    id_key: str
    chip: bytes
    signature: tuple[int, int]
    body: bytes


def read(report: bytes) -> Report:
    """Raises YardError `evidence_refused` (malformed) for what is no such report."""
    if len(report) != REPORT_BYTES:
        raise refused(SNP, "malformed", f"{len(report)} bytes")
    version, _, policy = struct.unpack_from("<IIQ", report)
    vmpl, algorithm = struct.unpack_from("<II", report, 0x30)
    if version not in _VERSIONS:
        raise refused(SNP, "malformed", f"version {version}")
    if algorithm != _ECDSA_P384_SHA384:
        raise refused(SNP, "malformed", f"signature algorithm {algorithm}")
    if any(report[SIGNED_BYTES + 144 :]):  # nothing beyond what is signed may be chosen freely
        raise refused(SNP, "malformed", "signature")
    return Report(
        policy=policy,
        vmpl=vmpl,
        reported_tcb=report[0x180:0x188],
        flags=struct.unpack_from("<I", report, 0x48)[0],
        report_data=report[0x50:0x90],
        measurement=report[0x90:0xC0].hex(),
        host_data=report[0xC0:0xE0].hex(),
        id_key=report[0xE0:0x110].hex(),
        chip=report[0x1A0:0x1E0],
        signature=(
            int.from_bytes(report[SIGNED_BYTES : SIGNED_BYTES + 72], "little"),
            int.from_bytes(report[SIGNED_BYTES + 72 : SIGNED_BYTES + 144], "little"),
        ),
        body=report[:SIGNED_BYTES],
    )


def verify(evidence: Evidence, policy: SnpPolicy, report_data: bytes, now: datetime) -> Claims:
    """What the report says, once everything about it holds. Raises YardError `evidence_refused`."""
    report = read(evidence.report)
    chain = verify_chain(
        SNP, evidence.certificates, policy.roots, evidence.revocation, now, must_be_fresh=policy.revocation
    )
    _check_signature(report, chain)
    levels = _check_certificate(report, chain.leaf)
    if report.report_data != report_data:
        raise refused(SNP, "other_binding")
    _check_guest(report, policy)
    for part, least in policy.minimum_tcb.items():
        if levels.get(part, 0) < least:
            raise refused(SNP, "tcb_old", f"{part} {levels.get(part, 0)} < {least}")
    facts = {"measurement": report.measurement, "vmpl": str(report.vmpl), "guest_policy": f"{report.policy:#x}"}
    facts |= {f"tcb_{part}": str(level) for part, level in levels.items()}
    return Claims(SNP, hashlib.sha256(report.chip).hexdigest(), chain.good_until, facts)


def _check_signature(report: Report, chain: Chain) -> None:
    key = chain.leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise refused(SNP, "signature")
    try:
        key.verify(encode_dss_signature(*report.signature), report.body, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        raise refused(SNP, "signature") from None


def _check_certificate(report: Report, leaf: x509.Certificate) -> Mapping[str, int]:
    """The chip's certificate is for this very chip and firmware: without that, an old key could speak for a new one."""
    told = {e.oid.dotted_string.removeprefix(_OIDS): e.value.public_bytes() for e in leaf.extensions}
    if (report.flags >> 2) & 7 != 0 or "5" in told:  # signed by a key that a cloud's operator holds for many chips
        raise refused(SNP, "not_the_chip")
    turin = "3.9" in told
    layout = _TCB_TURIN if turin else _TCB
    levels = {part: report.reported_tcb[at] for part, (at, _) in layout.items()}
    for part, (_, oid) in layout.items():
        if _integer(told.get(oid, b"")) != levels[part]:
            raise refused(SNP, "tcb_other", part)
    chip = report.chip[:8] if turin else report.chip
    named = told.get("4", b"") in (chip, bytes([4, len(chip)]) + chip)  # AMD writes it bare, and says an OCTET STRING
    if report.flags & 2 or not any(report.chip) or not named:
        raise refused(SNP, "chip_other")
    return levels


def _check_guest(report: Report, policy: SnpPolicy) -> None:
    if report.policy >> 19 & 1:
        raise refused(SNP, "debug")
    if report.policy >> 18 & 1 and not policy.migration:
        raise refused(SNP, "migration")
    if report.policy >> 16 & 1 and not policy.smt:
        raise refused(SNP, "smt")
    if report.vmpl > policy.max_vmpl:
        raise refused(SNP, "vmpl", report.vmpl)
    if report.measurement not in policy.measurements:
        raise refused(SNP, "measurement", report.measurement)
    if policy.host_data and report.host_data not in policy.host_data:
        raise refused(SNP, "measurement", f"host_data {report.host_data}")
    if policy.id_keys and report.id_key not in policy.id_keys:
        raise refused(SNP, "measurement", f"id_key {report.id_key}")


def _integer(der: bytes) -> int | None:
    """An INTEGER of one or two bytes; None where it is none."""
    if len(der) not in (3, 4) or der[0] != 2 or der[1] != len(der) - 2 or der[2] >= 0x80:
        return None
    return int.from_bytes(der[2:], "big")

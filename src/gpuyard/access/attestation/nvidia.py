"""NVIDIA's attestation reports of Hopper cards: an SPDM 1.1 GET_MEASUREMENTS request, its response, and a signature
over both (DMTF DSP0274)."""

from __future__ import annotations

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

from gpuyard.access.attestation.chain import verify_chain
from gpuyard.access.attestation.evidence import GPU, Claims, Evidence, refused
from gpuyard.access.attestation.policy import GpuPolicy

REQUEST_BYTES: Final = 37
SIGNATURE_BYTES: Final = 96
_REQUEST: Final = b"\x11\xe0"
_RESPONSE: Final = b"\x11\x60"
_DMTF: Final = 1
DRIVER, VBIOS, FIRMWARE = 3, 6, 20  # kinds of the vendor's own data
_DICE_TCB_INFO: Final = "2.23.133.5.4.1"


@dataclass(frozen=True, slots=True)
class Report:
    """The fields that are looked at."""

    nonce: bytes
    measurements: Mapping[int, str]
    vendor: Mapping[int, bytes]
    signature: tuple[int, int]
    body: bytes

    @property
    def driver(self) -> str:
        """The driver's version."""
        return self.vendor.get(DRIVER, b"").rstrip(b"\0").decode("ascii", "replace")

    @property
    def vbios(self) -> str:
        """The VBIOS's version, as NVIDIA writes it: 96.00.9F.00.01."""
        raw = self.vendor.get(VBIOS, b"")[::-1]
        half = len(raw) // 2
        return ".".join(f"{byte:02X}" for byte in raw[half:] + raw[max(half - 1, 0) : half])


def read(report: bytes) -> Report:
    """Raises YardError `evidence_refused` (malformed) for what is no such report."""
    try:
        return _read(report)
    except (struct.error, IndexError, ValueError):
        raise refused(GPU, "malformed", f"{len(report)} bytes") from None


def _read(report: bytes) -> Report:
    body = report[:-SIGNATURE_BYTES]
    response = body[REQUEST_BYTES:]
    if body[:2] != _REQUEST or response[:2] != _RESPONSE:
        raise ValueError("not a request and its response")
    count, size = response[4], int.from_bytes(response[5:8], "little")
    vendor_at = 8 + size + 32  # after the card's own nonce
    (vendor_bytes,) = struct.unpack_from("<H", response, vendor_at)
    vendor = response[vendor_at + 2 :]
    if len(vendor) != vendor_bytes or len(report) - len(body) != SIGNATURE_BYTES:
        raise ValueError("lengths")
    signature = report[-SIGNATURE_BYTES:]
    return Report(
        nonce=body[4:36],
        measurements=_measurements(response[8 : 8 + size], count),
        vendor=_vendor(vendor),
        signature=(int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")),
        body=body,
    )


def _measurements(record: bytes, count: int) -> dict[int, str]:
    found: dict[int, str] = {}
    at = 0
    for _ in range(count):
        index, specification, size, _, value_size = struct.unpack_from("<BBHBH", record, at)
        if specification != _DMTF or size != value_size + 3 or index in found or at + 4 + size > len(record):
            raise ValueError("measurement")
        found[index] = record[at + 7 : at + 4 + size].hex()
        at += 4 + size
    if at != len(record):
        raise ValueError("measurements")
    return found


def _vendor(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<HH", data, at)
        if kind in found or at + 4 + size > len(data):
            raise ValueError("vendor")
        found[kind] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def verify(evidence: Evidence, policy: GpuPolicy, nonce: bytes, now: datetime) -> Claims:
    """What the report says, once everything about it holds. Raises YardError `evidence_refused`."""
    report = read(evidence.report)
    chain = verify_chain(
        GPU, evidence.certificates, policy.roots, evidence.revocation, now, must_be_fresh=policy.revocation
    )
    key = chain.leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise refused(GPU, "signature")
    try:
        key.verify(encode_dss_signature(*report.signature), report.body, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        raise refused(GPU, "signature") from None
    if report.nonce != nonce:
        raise refused(GPU, "other_binding")
    _check_firmware(report, chain.leaf)
    if report.driver not in policy.drivers:
        raise refused(GPU, "driver", report.driver)
    if report.vbios not in policy.vbioses:
        raise refused(GPU, "vbios", report.vbios)
    for index, allowed in policy.measurements.items():
        if report.measurements.get(index) not in allowed:
            raise refused(GPU, "measurement", f"{index}: {report.measurements.get(index, '--')}")
    facts = {"driver": report.driver, "vbios": report.vbios, "measured": str(len(policy.measurements))}
    return Claims(GPU, chain.leaf.fingerprint(hashes.SHA256()).hex(), chain.good_until, facts)


def _check_firmware(report: Report, leaf: x509.Certificate) -> None:
    """The key was made from the firmware that the report names, where the report names one."""
    told = report.vendor.get(FIRMWARE)
    if told is None:
        return
    for extension in leaf.extensions:
        if extension.oid.dotted_string.startswith(_DICE_TCB_INFO) and extension.value.public_bytes()[-48:] == told:
            return
    raise refused(GPU, "firmware")

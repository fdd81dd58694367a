"""Quotes of an Intel machine of a test's own, with the collateral that Intel would publish about it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attested_authorities import DAY, NOW, Authority, ec_key, pem, root
from gpuyard.access.attestation.evidence import TDX, Evidence

FMSPC = bytes.fromhex("50806f000000")
PCE_ID = bytes(2)
QE_SIGNER = "dc" * 32
_INTEL = "1.2.840.113741.1.13.1"
P256 = ec.SECP256R1()


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    head = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])
    return bytes([tag]) + head + content


def oid(text: str) -> bytes:
    return x509.ObjectIdentifier(text) and der(6, _oid_body([int(part) for part in text.split(".")]))


def _oid_body(parts: list[int]) -> bytes:
    made = bytes([parts[0] * 40 + parts[1]])
    for part in parts[2:]:
        groups = [part & 127]
        while part := part >> 7:
            groups.insert(0, 128 | part & 127)
        made += bytes(groups)
    return made


def pair(text: str, value: bytes) -> bytes:
    return der(0x30, oid(text) + value)


def raw(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """A signature as quotes hold it: r and s."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass
class TdxMachine:
    """`status` is what Intel says of its firmware; `levels` its components' versions."""

    status: str = "UpToDate"
    advisories: tuple[str, ...] = ()
    measurement: bytes = b"\xa1" * 48
    registers: tuple[bytes, ...] = (b"\xb0" * 48, b"\xb1" * 48, b"\xb2" * 48, b"\xb3" * 48)
    attributes: bytes = b"\x00\x00\x00\x10\x00\x00\x00\x00"  # septVeDisable, as Linux guests run
    evaluation: int = 17
    ca: Authority = field(default_factory=lambda: root("Intel SGX Root CA", ec_key(P256), hashed=hashes.SHA256()))
    platform: Authority = field(init=False)
    signing: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.platform = self.ca.below("Intel SGX PCK Platform CA", ec_key(P256), path_length=0)
        self.signing = Authority("Intel SGX TCB Signing", ec_key(P256), hashes.SHA256())
        self.signing.certificate = self.ca.issue("Intel SGX TCB Signing", self.signing.key.public_key())
        self.pck_key, self.attestation_key = ec_key(P256), ec_key(P256)
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_INTEL), self._pck_extension())
        self.pck = self.platform.issue("Intel SGX PCK Certificate", self.pck_key.public_key(), extensions=[extension])

    @property
    def roots(self) -> list[str]:
        return [pem(self.ca.certificate)]

    def _pck_extension(self) -> bytes:
        tcb = b"".join(pair(f"{_INTEL}.2.{n}", der(2, b"\x05")) for n in range(1, 17))
        tcb += pair(f"{_INTEL}.2.17", der(2, b"\x0b")) + pair(f"{_INTEL}.2.18", der(4, b"\x05" * 16))
        return der(
            0x30,
            pair(f"{_INTEL}.1", der(4, bytes(16)))
            + pair(f"{_INTEL}.2", der(0x30, tcb))
            + pair(f"{_INTEL}.3", der(4, PCE_ID))
            + pair(f"{_INTEL}.4", der(4, FMSPC))
            + pair(f"{_INTEL}.5", der(10, b"\x00")),
        )

    def quote(self, report_data: bytes, change: Callable[[bytearray], None] = lambda _: None) -> bytes:
        """A quote; `change` is made to header and report before they are signed."""
        header = struct.pack("<HHIHH", 4, 2, 0x81, 0, 0) + bytes.fromhex("939a7233f79c4ca9940a0db3957f0607") + bytes(20)
        body = b"\x05" * 16 + b"\xc0" * 48 + bytes(48) + bytes(8) + self.attributes + bytes(8)
        body += self.measurement + bytes(48 * 3) + b"".join(self.registers) + report_data
        signed = bytearray(header + body)
        change(signed)
        public = self.attestation_key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )[1:]
        authentication = bytes(32)
        hashed = hashlib.sha256(public + authentication).digest()
        enclave = bytes(16) + bytes(4) + bytes(28) + b"\x11" + bytes(15) + bytes(32) + bytes(32)
        enclave += bytes.fromhex(QE_SIGNER) + bytes(96) + struct.pack("<HH", 2, 4) + bytes(60) + hashed + bytes(32)
        chain = pem(self.pck, self.platform.certificate, self.ca.certificate).encode()
        inner = enclave + raw(self.pck_key, enclave) + struct.pack("<H", 32) + authentication
        inner += struct.pack("<HI", 5, len(chain)) + chain
        certified = raw(self.attestation_key, bytes(signed)) + public + struct.pack("<HI", 6, len(inner)) + inner
        return bytes(signed) + struct.pack("<I", len(certified)) + certified

    def collateral(self, **changes: Any) -> str:
        """What Intel would publish, as JSON."""
        times = {"issueDate": f"{NOW - DAY:%Y-%m-%dT%H:%M:%SZ}", "nextUpdate": f"{NOW + 29 * DAY:%Y-%m-%dT%H:%M:%SZ}"}
        times |= {name: changes.pop(name) for name in ("issueDate", "nextUpdate") if name in changes}
        components = [{"svn": 5}] * 16
        level = {"sgxtcbcomponents": components, "pcesvn": 11, "tdxtcbcomponents": components}
        info = {
            "id": "TDX", "version": 3, **times, "fmspc": FMSPC.hex().upper(), "pceId": "0000", "tcbType": 0,
            "tcbEvaluationDataNumber": self.evaluation,
            "tdxModule": {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8},
            "tdxModuleIdentities": [
                {"id": "TDX_05", "mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8,
                 "tcbLevels": [{"tcb": {"isvsvn": 5}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"}]}
            ],
            "tcbLevels": [
                {"tcb": level, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": self.status,
                 "advisoryIDs": list(self.advisories)}
            ],
        }  # fmt: skip
        identity = {
            "id": "TD_QE", "version": 2, **times, "tcbEvaluationDataNumber": self.evaluation,
            "miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": "11" + "00" * 15,
            "attributesMask": "FB" + "FF" * 7 + "00" * 8, "mrsigner": QE_SIGNER.upper(), "isvprodid": 2,
            "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"}],
        }  # fmt: skip
        told_info, told_identity = json.dumps(info), json.dumps(identity)
        signers = pem(self.signing.certificate, self.ca.certificate)
        found = {
            "pck_crl_issuer_chain": pem(self.platform.certificate, self.ca.certificate),
            "root_ca_crl": self.ca.crl().hex(),
            "pck_crl": self.platform.crl().hex(),
            "tcb_info_issuer_chain": signers,
            "tcb_info": told_info,
            "tcb_info_signature": raw(self.signing.key, told_info.encode()).hex(),
            "qe_identity_issuer_chain": signers,
            "qe_identity": told_identity,
            "qe_identity_signature": raw(self.signing.key, told_identity.encode()).hex(),
        }
        return json.dumps(found | changes)

    def evidence(self, report_data: bytes, **changes: Any) -> Evidence:
        return Evidence(TDX, self.quote(report_data), collateral=self.collateral(**changes))

    def policy(self, **changes: Any) -> dict[str, Any]:
        return {"roots": self.roots, "measurements": [self.measurement.hex()], **changes}

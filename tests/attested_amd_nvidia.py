"""An AMD machine and an NVIDIA card of a test's own, which report as the real ones do."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attested_authorities import CRL_AT, Authority, ec_key, pem, root, rsa_key
from gpuyard.access.attestation.evidence import GPU, SNP, Evidence

Change = Callable[[bytearray], None]
SMT, RESERVED_ONE = 1 << 16, 1 << 17


def unchanged(report: bytearray) -> None:
    del report


def extension(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def crl_at() -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(CRL_AT)], None, None, None)]
    )


@dataclass
class AmdMachine:
    """`tcb` is the firmware that it runs: boot loader, TEE, SNP, microcode (and, `turin`, FMC first)."""

    tcb: Mapping[str, int] = field(default_factory=lambda: {"boot_loader": 4, "tee": 0, "snp": 22, "microcode": 213})
    measurement: bytes = b"\xa1" * 48
    host_data: bytes = b"\xd0" * 32
    id_key: bytes = b"\xe0" * 48
    guest_policy: int = SMT | RESERVED_ONE | 0x31
    vmpl: int = 0
    turin: bool = False
    version: int = 3
    ark: Authority = field(default_factory=lambda: root("ARK-Test", rsa_key(), pss=True))
    ask: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.ask = self.ark.below("SEV-Test", rsa_key(), path_length=0, extensions=[crl_at()])
        self.key = ec_key()
        self.chip = b"\xc5" * 8 + bytes(56) if self.turin else b"\xc5" * 64
        self.vcek = self.vcek_for()

    def vcek_for(self, *, chip: bytes | None = None, tcb: Mapping[str, int] | None = None) -> x509.Certificate:
        """The certificate that AMD gives out for a chip with some firmware. Its serial is 0, as the real ones' are."""
        oids = {"fmc": "3.9", "boot_loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
        parts = [
            extension(f"1.3.6.1.4.1.3704.1.{oids[part]}", self._integer(level))
            for part, level in (tcb or self.tcb).items()
        ]
        hardware = chip if chip is not None else self.chip[:8] if self.turin else self.chip
        return self.ask.issue(
            "SEV-VCEK", self.key.public_key(), extensions=[*parts, extension("1.3.6.1.4.1.3704.1.4", hardware)]
        )

    @staticmethod
    def _integer(level: int) -> bytes:
        return bytes([2, 1, level]) if level < 128 else bytes([2, 2, 0, level])

    def report(self, report_data: bytes, change: Change = unchanged) -> bytes:
        """A signed report; `change` is made to it before it is signed."""
        if self.turin:
            levels = [self.tcb[part] for part in ("fmc", "boot_loader", "tee", "snp")]
            tcb = bytes([*levels, 0, 0, 0, self.tcb["microcode"]])
        else:
            tcb = bytes([self.tcb["boot_loader"], self.tcb["tee"], 0, 0, 0, 0, self.tcb["snp"], self.tcb["microcode"]])
        body = struct.pack("<IIQ", self.version, 0, self.guest_policy) + bytes(32)
        body += struct.pack("<II", self.vmpl, 1) + tcb + struct.pack("<QII", 1, 0, 0) + report_data
        body += self.measurement + self.host_data + self.id_key + bytes(48) + bytes(32) + b"\xff" * 32 + tcb
        body += bytes(24) + self.chip + tcb + bytes(8) + tcb + bytes(168)
        signed = bytearray(body)
        change(signed)
        r, s = decode_dss_signature(self.key.sign(bytes(signed), ec.ECDSA(hashes.SHA384())))
        return bytes(signed) + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)

    @property
    def chain(self) -> str:
        return pem(self.vcek, self.ask.certificate)

    def evidence(self, report_data: bytes, change: Change = unchanged, **options: Any) -> Evidence:
        options = {"certificates": self.chain, "revocation": (self.ark.crl(),)} | options
        return Evidence(SNP, self.report(report_data, change), **options)

    def policy(self, **changes: Any) -> dict[str, Any]:
        return {
            "roots": [pem(self.ark.certificate)],
            "measurements": [self.measurement.hex()],
            "minimum_tcb": dict(self.tcb),
            **changes,
        }


@dataclass
class NvidiaCard:
    """A card in confidential mode: a key made from its firmware, below a chain of three authorities and a root."""

    driver: str = "550.90.07"
    vbios: bytes = bytes.fromhex("009f009601000000")  # 96.00.9F.00.01
    firmware: bytes = b"\xf1" * 48
    measurements: Mapping[int, bytes] = field(default_factory=lambda: {n: bytes([n]) * 48 for n in range(1, 9)})
    ca: Authority = field(default_factory=lambda: root("NVIDIA Device Identity CA"))
    identity: Authority | None = None
    provisioner: Authority = field(init=False)
    device: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.identity = self.identity or self.ca.below("NVIDIA GH100 Identity", ec_key(), extensions=[crl_at()])
        self.provisioner = self.identity.below("NVIDIA GH100 Provisioner", ec_key(), extensions=[crl_at()])
        self.device = self.provisioner.below("GH100 BROM", ec_key())
        self.key = ec_key()
        self.leaf = self.device.issue(
            "GH100 FMC",
            self.key.public_key(),
            extensions=[extension("2.23.133.5.4.1", b"\x30\x30" + self.firmware)],
        )

    def report(self, nonce: bytes, change: Change = unchanged) -> bytes:
        record = b"".join(
            struct.pack("<BBHBH", index, 1, len(value) + 3, 1, len(value)) + value
            for index, value in self.measurements.items()
        )
        vendor = {6: self.vbios, 3: self.driver.encode() + b"\0", 20: self.firmware}
        told = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in vendor.items())
        body = b"\x11\xe0\x01\xff" + nonce + b"\0"
        body += b"\x11\x60\0\0" + bytes([len(self.measurements)]) + len(record).to_bytes(3, "little") + record
        body += b"\x5a" * 32 + struct.pack("<H", len(told)) + told
        signed = bytearray(body)
        change(signed)
        r, s = decode_dss_signature(self.key.sign(bytes(signed), ec.ECDSA(hashes.SHA384())))
        return bytes(signed) + r.to_bytes(48, "big") + s.to_bytes(48, "big")

    @property
    def chain(self) -> str:
        assert self.identity is not None
        authorities = (self.device, self.provisioner, self.identity, self.ca)
        return pem(self.leaf, *(one.certificate for one in authorities))

    @property
    def revocation(self) -> tuple[bytes, ...]:
        assert self.identity is not None
        return (
            self.ca.crl(),
            self.identity.ocsp(self.provisioner.certificate),
            self.provisioner.ocsp(self.device.certificate),
        )

    def evidence(self, nonce: bytes, change: Change = unchanged, **options: Any) -> Evidence:
        options = {"certificates": self.chain, "revocation": self.revocation} | options
        return Evidence(GPU, self.report(nonce, change), **options)

    def policy(self, **changes: Any) -> dict[str, Any]:
        return {
            "roots": [pem(self.ca.certificate)],
            "measurements": {str(n): [value.hex()] for n, value in self.measurements.items()},
            "drivers": [self.driver],
            "vbioses": ["96.00.9F.00.01"],
            **changes,
        }

"""What evidence must be about: one nonce, tenant, instance, unit and key. Whoever has the five can work it out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import rfc8785


@dataclass(frozen=True, slots=True)
class Binding:
    """`unit` is one start of one replica: evidence of the one before says nothing of this one. `key_sha256` is that of
    a public key (DER, SubjectPublicKeyInfo) whose private half was made inside and stays there."""

    nonce: str
    tenant_id: str
    workload_id: str
    unit: str
    key_sha256: str

    def statement(self) -> bytes:
        """The five as canonical JSON (RFC 8785)."""
        return rfc8785.dumps(
            {
                "v": 1,
                "nonce": self.nonce,
                "tenant": self.tenant_id,
                "instance": self.workload_id,
                "unit": self.unit,
                "key_sha256": self.key_sha256,
            }
        )

    def report_data(self) -> bytes:
        """What a processor's report must carry: SHA-512 of the statement."""
        return hashlib.sha512(self.statement()).digest()

    def card_nonce(self) -> bytes:
        """What a card is to be asked with: SHA-256 of the statement."""
        return hashlib.sha256(self.statement()).digest()

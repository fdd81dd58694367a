"""Evidence as it was handed in, what it turned out to say, and how it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from gpuyard.model.errors import YardError

SNP: Final = "amd-sev-snp"
TDX: Final = "intel-tdx"
GPU: Final = "nvidia-gpu"
KINDS: Final = (SNP, TDX, GPU)
PROCESSORS: Final = frozenset({SNP, TDX})


@dataclass(frozen=True, slots=True)
class Evidence:
    """One report with what proves it. `certificates` (PEM, the signer's own first) and `revocation` (certificate
    revocation lists and OCSP answers, PEM or DER) go with AMD and NVIDIA, `collateral` (JSON) with Intel."""

    kind: str
    report: bytes = field(repr=False)
    certificates: str = field(default="", repr=False)
    revocation: tuple[bytes, ...] = field(default=(), repr=False)
    collateral: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Claims:
    """What verified evidence says. `device` tells chips apart; after `good_until` what proves it is out of date."""

    kind: str
    device: str
    good_until: datetime
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


def refused(kind: str, flaw: str, detail: object = "--") -> YardError:
    """Evidence is refused for its first flaw, which is a stable word; `detail` says where, and what was there."""
    return YardError("evidence_refused", tee=kind, flaw=flaw, detail=str(detail)[:200])

"""Several pieces of evidence for one instance: what they prove together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from gpuyard.access.attestation import nvidia, sev_snp, tdx
from gpuyard.access.attestation.binding import Binding
from gpuyard.access.attestation.chain import UNREADABLE
from gpuyard.access.attestation.evidence import GPU, KINDS, PROCESSORS, SNP, TDX, Claims, Evidence, refused
from gpuyard.access.attestation.policy import Policies
from gpuyard.model.errors import YardError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOST: Final = 17  # one machine and sixteen cards


@dataclass(frozen=True, slots=True)
class Proven:
    """What verified evidence proves, until when. `cards` counts different cards."""

    processor: Claims
    cards: tuple[Claims, ...]
    until_us: int


def judge(found: Sequence[Evidence], policies: Policies, binding: Binding, now_us: int) -> Proven:
    """All of it must hold: evidence that is wrong in one place is not looked at any further.

    Raises YardError `evidence_refused`, and `attestation_off` where the operator's policy takes no such evidence.
    """
    processors = [one for one in found if one.kind in PROCESSORS]
    if len(processors) != 1 or len(found) > MOST:
        # A card does not say in which machine it is: only the software that the processor measured does.
        raise refused(found[0].kind if found else SNP, "one_processor", len(processors))
    now = _EPOCH + timedelta(microseconds=now_us)
    claims = [_verified(one, policies, binding, now) for one in found]
    cards = tuple(one for one in claims if one.kind == GPU)
    if len({one.device for one in cards}) != len(cards):
        raise refused(GPU, "same_card")
    until = min(min(one.good_until for one in claims), now + timedelta(seconds=policies.max_age_s))
    (processor,) = (one for one in claims if one.kind in PROCESSORS)
    return Proven(processor, cards, (until - _EPOCH) // timedelta(microseconds=1))


def _verified(evidence: Evidence, policies: Policies, binding: Binding, now: datetime) -> Claims:
    """What libraries say of things that are malformed in some way they did not expect is a refusal as well."""
    try:
        return _held_against(evidence, policies, binding, now)
    except UNREADABLE as error:
        raise refused(evidence.kind, "malformed", type(error).__name__) from None


def _held_against(evidence: Evidence, policies: Policies, binding: Binding, now: datetime) -> Claims:
    if evidence.kind not in KINDS:
        raise refused(evidence.kind, "malformed", "kind")
    if evidence.kind == SNP and policies.snp is not None:
        return sev_snp.verify(evidence, policies.snp, binding.report_data(), now)
    if evidence.kind == TDX and policies.tdx is not None:
        return tdx.verify(evidence, policies.tdx, binding.report_data(), now)
    if evidence.kind == GPU and policies.gpu is not None:
        return nvidia.verify(evidence, policies.gpu, binding.card_nonce(), now)
    raise YardError("attestation_off", tee=evidence.kind)

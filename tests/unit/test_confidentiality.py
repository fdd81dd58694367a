"""What an instance is called: the least that is proven of all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuyard.control.confidentiality import of_instance
from gpuyard.model.leases import Lease
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.model.states import LeaseState
from gpuyard.store.attestations import Attestation

WHOLE = SliceShape(80 << 30, 1_000_000)
TWO = tuple(Slice("ls-1", f"GPU-{n}", WHOLE, Guarantee.EXCLUSIVE) for n in range(2))
LEASE = Lease("ls-1", "wl-1", "tn-1", 0, LeaseState.ACTIVE, 1, 1, 0, "node", TWO)
PROVEN = Attestation("at-1", "tn-1", "wl-1", "ls-1-1", "k", "p", "e", "amd-sev-snp", 2, "[]", 10, 100)


def called(lease: Lease = LEASE, *attested: Attestation, now_us: int = 50) -> str:
    found = of_instance([lease], attested, now_us)
    return f"{found.level} {found.because}"


def test_a_machine_and_every_card_of_it_proven_is_the_most_there_is() -> None:
    assert called(LEASE, PROVEN) == "processor_and_cards verified"
    assert of_instance([LEASE], [PROVEN], 50).until_us == 100


@pytest.mark.parametrize(
    ("lease", "attested", "called_then"),
    [
        (LEASE, (), "not_confidential no_evidence"),
        (LEASE, (replace(PROVEN, unit="ls-1-2"),), "not_confidential no_evidence"),
        (LEASE, (replace(PROVEN, until_us=50),), "not_confidential evidence_old"),
        (LEASE, (replace(PROVEN, cards=1),), "processor cards_unproven"),
        (replace(LEASE, state=LeaseState.STOPPED), (PROVEN,), "not_confidential not_running"),
        (replace(LEASE, attempt=2), (PROVEN,), "not_confidential no_evidence"),
        (
            replace(LEASE, slices=(TWO[0], replace(TWO[1], guarantee=Guarantee.KERNEL))),
            (PROVEN,),
            "processor cards_not_exclusive",
        ),
    ],
)
def test_whatever_lacks_makes_it_less(lease: Lease, attested: tuple[Attestation, ...], called_then: str) -> None:
    assert called(lease, *attested) == called_then


def test_the_newest_evidence_counts() -> None:
    assert called(LEASE, PROVEN, replace(PROVEN, id="at-2", cards=0, verified_us=20)) == "processor cards_unproven"


def test_a_replica_without_evidence_makes_the_whole_not_confidential() -> None:
    second = replace(LEASE, id="ls-2", replica=1)
    assert of_instance([LEASE, second], [PROVEN], 50).level == "not_confidential"
    assert of_instance([], [PROVEN], 50).because == "not_running"

"""Quotes of Intel machines, on a root of a test's own: what is right is taken, everything else refused."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from attested_authorities import DAY, NOW, ec_key, pem, root
from attested_tdx import P256, TdxMachine
from gpuyard.access.attestation import tdx
from gpuyard.access.attestation.binding import Binding
from gpuyard.access.attestation.evidence import Evidence
from gpuyard.access.attestation.judging import judge
from gpuyard.access.attestation.policy import parse
from gpuyard.model.errors import YardError

pytest.importorskip("dcap_qvl", reason="the extra `attestation` is not installed")

BOUND = Binding("ab" * 32, "tn-1", "wl-1", "ls-1-1", "cd" * 32)


@pytest.fixture(scope="module")
def machine() -> TdxMachine:
    return TdxMachine()


def check(machine: TdxMachine, evidence: Evidence, now: datetime = NOW, **policy: Any) -> Any:
    asked = parse({"intel-tdx": machine.policy(**policy)}).tdx
    assert asked is not None
    return tdx.verify(evidence, asked, BOUND.report_data(), now)


def flaw(machine: TdxMachine, evidence: Evidence, now: datetime = NOW, **policy: Any) -> str:
    with pytest.raises(YardError) as refused:
        check(machine, evidence, now, **policy)
    assert refused.value.code == "evidence_refused"
    return str(refused.value.params["flaw"])


def test_a_quote_of_an_intel_machine_is_taken_with_what_it_says(machine: TdxMachine) -> None:
    claims = check(machine, machine.evidence(BOUND.report_data()))
    assert dict(claims.facts) == {
        "measurement": "a1" * 48, "tcb_status": "UpToDate", "advisories": "--", "evaluation": "17",
    }  # fmt: skip
    assert claims.good_until == NOW + 29 * DAY
    policies = parse({"intel-tdx": machine.policy()})
    now_us = int(NOW.timestamp()) * 1_000_000
    assert judge([machine.evidence(BOUND.report_data())], policies, BOUND, now_us).processor.kind == "intel-tdx"


def test_registers_count_where_the_policy_names_them(machine: TdxMachine) -> None:
    evidence = machine.evidence(BOUND.report_data())
    assert check(machine, evidence, registers={"0": ["b0" * 48], "3": ["00" * 48, "B3" * 48]})
    assert flaw(machine, evidence, registers={"1": ["b0" * 48]}) == "measurement"
    assert flaw(machine, evidence, measurements=["00" * 48]) == "measurement"


def test_a_quote_of_another_binding_is_refused(machine: TdxMachine) -> None:
    assert flaw(machine, machine.evidence(bytes(64))) == "other_binding"


def test_any_byte_of_a_quote_that_is_signed_or_signs_changed_is_refused(machine: TdxMachine) -> None:
    good = machine.evidence(BOUND.report_data())
    certificates_at = good.report.index(b"-----BEGIN")
    for at in range(certificates_at):
        changed = good.report[:at] + bytes([good.report[at] ^ 1]) + good.report[at + 1 :]
        assert flaw(machine, Evidence(good.kind, changed, collateral=good.collateral)), at


@pytest.mark.parametrize("cut", [0, 10, 48, 600, 632, 636, 700, 1500])
def test_a_quote_that_is_cut_off_is_refused(machine: TdxMachine, cut: int) -> None:
    good = machine.evidence(BOUND.report_data())
    assert flaw(machine, Evidence(good.kind, good.report[:cut], collateral=good.collateral))


def test_a_machine_that_may_be_debugged_is_refused() -> None:
    machine = TdxMachine(attributes=b"\x01\x00\x00\x10\x00\x00\x00\x00")
    assert flaw(machine, machine.evidence(BOUND.report_data())) == "debug"


def test_a_quote_below_another_root_is_refused(machine: TdxMachine) -> None:
    assert flaw(machine, TdxMachine().evidence(BOUND.report_data())) == "chain_refused"
    both = [pem(root("Other", ec_key(P256), hashed=hashes.SHA256()).certificate), *machine.roots]
    assert check(machine, machine.evidence(BOUND.report_data()), roots=both)


@pytest.mark.parametrize("now", [NOW + 29 * DAY + DAY, NOW + 40 * DAY, NOW - 2 * DAY])
def test_collateral_that_is_not_of_now_is_refused(machine: TdxMachine, now: datetime) -> None:
    assert flaw(machine, machine.evidence(BOUND.report_data()), now) == "collateral_stale"


def test_a_revoked_machine_or_authority_is_refused(machine: TdxMachine) -> None:
    gone = machine.platform.crl([machine.pck.serial_number]).hex()
    assert flaw(machine, machine.evidence(BOUND.report_data(), pck_crl=gone)) == "chain_refused"
    gone = machine.ca.crl([machine.platform.certificate.serial_number]).hex()
    assert flaw(machine, machine.evidence(BOUND.report_data(), root_ca_crl=gone)) == "chain_refused"


def test_collateral_that_intel_did_not_sign_is_refused(machine: TdxMachine) -> None:
    good = machine.collateral()
    for name in ("tcb_info", "qe_identity"):
        forged = machine.collateral(**{name: json.loads(good)[name].replace("17", "18")})
        assert (
            flaw(machine, Evidence("intel-tdx", machine.quote(BOUND.report_data()), collateral=forged)) == "signature"
        )
    for text in ("", "{}", "[]", "nothing"):
        evidence = Evidence("intel-tdx", machine.quote(BOUND.report_data()), collateral=text)
        assert flaw(machine, evidence) == "malformed"


def test_intels_word_on_the_firmware_is_held_against_the_policy() -> None:
    machine = TdxMachine(status="SWHardeningNeeded", advisories=("INTEL-SA-00001",))
    evidence = machine.evidence(BOUND.report_data())
    assert flaw(machine, evidence) == "tcb_status"
    allowed = ["UpToDate", "SWHardeningNeeded"]
    assert check(machine, evidence, statuses=allowed).facts["advisories"] == "INTEL-SA-00001"
    assert flaw(machine, evidence, statuses=allowed, rejected_advisories=["INTEL-SA-00001"]) == "advisory"
    assert flaw(machine, evidence, statuses=allowed, minimum_evaluation=18) == "tcb_old"
    gone = TdxMachine(status="Revoked")
    assert flaw(gone, gone.evidence(BOUND.report_data()), statuses=allowed)


def test_a_status_that_intel_does_not_have_cannot_be_allowed(machine: TdxMachine) -> None:
    with pytest.raises(YardError) as refused:
        parse({"intel-tdx": machine.policy(statuses=["Revoked"])})
    assert refused.value.params["where"] == "intel-tdx.statuses"

"""Evidence of AMD machines and NVIDIA cards, on chains of a test's own: what is right is taken, everything else refused."""

from __future__ import annotations

import base64
import textwrap
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attested_amd_nvidia import AmdMachine, NvidiaCard
from attested_authorities import DAY, NOW, YEAR, ec_key, pem, root, rsa_key
from gpuyard.access.attestation import nvidia, sev_snp
from gpuyard.access.attestation.binding import Binding
from gpuyard.access.attestation.evidence import Evidence
from gpuyard.access.attestation.judging import judge
from gpuyard.access.attestation.policy import Policies, parse
from gpuyard.model.errors import YardError

BOUND = Binding("ab" * 32, "tn-1", "wl-1", "ls-1-1", "cd" * 32)
NOW_US = int(NOW.timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def amd() -> AmdMachine:
    return AmdMachine()


@pytest.fixture(scope="module")
def card() -> NvidiaCard:
    return NvidiaCard()


def flaw_of(work: Any, *arguments: Any) -> str:
    with pytest.raises(YardError) as refused:
        work(*arguments)
    assert refused.value.code == "evidence_refused"
    return str(refused.value.params["flaw"])


def snp_flaw(amd: AmdMachine, evidence: Evidence, now: datetime = NOW, **policy: Any) -> str:
    return flaw_of(check_snp, amd, evidence, now, policy)


def check_snp(amd: AmdMachine, evidence: Evidence, now: datetime, policy: dict[str, Any]) -> Any:
    asked = parse({"amd-sev-snp": amd.policy(**policy)}).snp
    assert asked is not None
    return sev_snp.verify(evidence, asked, BOUND.report_data(), now)


def check_card(card: NvidiaCard, evidence: Evidence, now: datetime, policy: dict[str, Any]) -> Any:
    asked = parse({"nvidia-gpu": card.policy(**policy)}).gpu
    assert asked is not None
    return nvidia.verify(evidence, asked, BOUND.card_nonce(), now)


def card_flaw(card: NvidiaCard, evidence: Evidence, now: datetime = NOW, **policy: Any) -> str:
    return flaw_of(check_card, card, evidence, now, policy)


# What is right


@pytest.mark.parametrize("version", [2, 3, 5])
def test_a_report_of_an_amd_machine_is_taken_with_what_it_says(version: int) -> None:
    amd = AmdMachine(version=version)
    claims = check_snp(amd, amd.evidence(BOUND.report_data()), NOW, {})
    assert claims.facts["measurement"] == "a1" * 48
    assert claims.facts["tcb_microcode"] == "213"
    assert claims.good_until == NOW + 30 * DAY  # the revocation list ends first


def test_a_turin_machine_has_its_firmware_in_another_order() -> None:
    amd = AmdMachine(tcb={"fmc": 1, "boot_loader": 2, "tee": 3, "snp": 4, "microcode": 5}, turin=True)
    assert check_snp(amd, amd.evidence(BOUND.report_data()), NOW, {}).facts["tcb_snp"] == "4"
    assert snp_flaw(amd, amd.evidence(BOUND.report_data()), minimum_tcb={**amd.tcb, "fmc": 2}) == "tcb_old"


def test_a_report_of_a_card_is_taken_with_what_it_says(card: NvidiaCard) -> None:
    claims = check_card(card, card.evidence(BOUND.card_nonce()), NOW, {})
    assert dict(claims.facts) == {"driver": "550.90.07", "vbios": "96.00.9F.00.01", "measured": "8"}
    assert claims.good_until == NOW + DAY


def test_the_root_need_not_be_sent_along(card: NvidiaCard, amd: AmdMachine) -> None:
    longer = amd.evidence(BOUND.report_data(), certificates=amd.chain + pem(amd.ark.certificate))
    assert check_snp(amd, longer, NOW, {})
    shorter = card.evidence(BOUND.card_nonce(), certificates=card.chain.removesuffix(pem(card.ca.certificate)))
    assert check_card(card, shorter, NOW, {})


def test_a_signer_that_the_authority_certified_may_answer_for_it(card: NvidiaCard) -> None:
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])
    helper = root("Responder")
    helper.certificate = card.provisioner.issue("Responder", helper.key.public_key(), extensions=[usage])
    answered = card.provisioner.ocsp(card.device.certificate, by=helper)
    assert check_card(card, card.evidence(BOUND.card_nonce(), revocation=(*card.revocation[:2], answered)), NOW, {})
    helper.certificate = card.provisioner.issue("Responder", helper.key.public_key())
    answered = card.provisioner.ocsp(card.device.certificate, by=helper)
    evidence = card.evidence(BOUND.card_nonce(), revocation=(*card.revocation[:2], answered))
    assert card_flaw(card, evidence) == "revocation_unsigned"


# One byte


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


@pytest.mark.parametrize("part", range(4))
def test_any_byte_of_an_amd_report_changed_is_refused(amd: AmdMachine, part: int) -> None:
    good = amd.evidence(BOUND.report_data())
    for at in range(part, len(good.report), 4):
        assert snp_flaw(amd, Evidence(good.kind, flipped(good.report, at), good.certificates, good.revocation))


@pytest.mark.slow
def test_any_byte_of_a_cards_report_changed_is_refused(card: NvidiaCard) -> None:
    good = card.evidence(BOUND.card_nonce())
    for at in range(len(good.report)):
        assert card_flaw(card, Evidence(good.kind, flipped(good.report, at), good.certificates, good.revocation))


def armoured(der: bytes) -> str:
    lines = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


@pytest.mark.slow
@pytest.mark.parametrize("bit", [0x01, 0x40])
def test_any_byte_of_a_certificate_or_revocation_list_changed_is_refused(amd: AmdMachine, bit: int) -> None:
    good = amd.evidence(BOUND.report_data())
    chain = [amd.vcek.public_bytes(Encoding.DER), amd.ask.certificate.public_bytes(Encoding.DER)]
    policies = parse({"amd-sev-snp": amd.policy()})
    for index, whole in enumerate(chain):
        for at in range(len(whole)):
            text = "".join(armoured(flipped(one, at, bit) if n == index else one) for n, one in enumerate(chain))
            evidence = Evidence(good.kind, good.report, text, good.revocation)
            assert flaw_of(judge, [evidence], policies, BOUND, NOW_US), at
    for at in range(len(good.revocation[0])):
        evidence = Evidence(good.kind, good.report, good.certificates, (flipped(good.revocation[0], at, bit),))
        assert flaw_of(judge, [evidence], policies, BOUND, NOW_US), at


@pytest.mark.parametrize("cut", [0, 1, 36, 37, 44, 95, 96, 133, 200, -1])
def test_a_report_that_is_cut_off_is_refused(amd: AmdMachine, card: NvidiaCard, cut: int) -> None:
    snp, gpu = amd.evidence(BOUND.report_data()), card.evidence(BOUND.card_nonce())
    assert snp_flaw(amd, Evidence(snp.kind, snp.report[:cut], snp.certificates, snp.revocation)) == "malformed"
    assert card_flaw(card, Evidence(gpu.kind, gpu.report[:cut], gpu.certificates, gpu.revocation)) in {
        "malformed",
        "signature",
    }
    assert card_flaw(card, Evidence(gpu.kind, gpu.report + b"\0", gpu.certificates, gpu.revocation)) == "malformed"


# Well signed, and not what the policy asks for


def put(at: int, value: bytes) -> Any:
    def change(report: bytearray) -> None:
        report[at : at + len(value)] = value

    return change


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (put(0x00, b"\x09"), "malformed"),
        (put(0x34, b"\x02"), "malformed"),
        (put(0x0A, b"\x0b"), "debug"),
        (put(0x0A, b"\x07"), "migration"),
        (put(0x30, b"\x01"), "vmpl"),
        (put(0x48, b"\x02"), "chip_other"),
        (put(0x48, b"\x04"), "not_the_chip"),
        (put(0x50, b"\x00"), "other_binding"),
        (put(0x90, b"\x00"), "measurement"),
        (put(0x180, b"\x05"), "tcb_other"),
        (put(0x186, b"\x17"), "tcb_other"),
        (put(0x187, b"\x00"), "tcb_other"),
        (put(0x1A0, b"\x00"), "chip_other"),
        (put(0x1A0, bytes(64)), "chip_other"),
    ],
)
def test_a_well_signed_amd_report_is_refused_for_what_it_says(amd: AmdMachine, change: Any, flaw: str) -> None:
    assert snp_flaw(amd, amd.evidence(BOUND.report_data(), change)) == flaw


@pytest.mark.parametrize(
    ("policy", "flaw"),
    [
        ({"minimum_tcb": {"boot_loader": 5, "tee": 0, "snp": 22, "microcode": 213}}, "tcb_old"),
        ({"minimum_tcb": {"boot_loader": 4, "tee": 0, "snp": 22, "microcode": 214}}, "tcb_old"),
        ({"minimum_tcb": {"fmc": 1, "boot_loader": 4, "tee": 0, "snp": 22, "microcode": 213}}, "tcb_old"),
        ({"measurements": ["00" * 48]}, "measurement"),
        ({"host_data": ["00" * 32]}, "measurement"),
        ({"id_keys": ["00" * 48]}, "measurement"),
        ({"smt": False}, "smt"),
    ],
)
def test_an_amd_report_is_held_against_the_policy(amd: AmdMachine, policy: dict[str, Any], flaw: str) -> None:
    assert snp_flaw(amd, amd.evidence(BOUND.report_data()), **policy) == flaw


def test_what_the_policy_allows_is_taken(amd: AmdMachine) -> None:
    allowed = {"host_data": ["d0" * 32], "id_keys": ["E0" * 48], "migration": True, "max_vmpl": 1}
    change = put(0x0A, b"\x07")
    assert check_snp(amd, amd.evidence(BOUND.report_data(), change), NOW, allowed)
    assert check_snp(amd, amd.evidence(BOUND.report_data(), put(0x30, b"\x01")), NOW, allowed)


@pytest.mark.parametrize(
    ("policy", "flaw"),
    [
        ({"drivers": ["550.90.08"]}, "driver"),
        ({"vbioses": ["96.00.9F.00.02"]}, "vbios"),
        ({"measurements": {"2": ["00" * 48]}}, "measurement"),
        ({"measurements": {"9": ["09" * 48]}}, "measurement"),
    ],
)
def test_a_cards_report_is_held_against_the_policy(card: NvidiaCard, policy: dict[str, Any], flaw: str) -> None:
    assert card_flaw(card, card.evidence(BOUND.card_nonce()), **policy) == flaw


def test_a_card_whose_key_was_made_from_other_firmware_is_refused(card: NvidiaCard) -> None:
    def change(report: bytearray) -> None:
        report[-48:] = bytes(48)

    assert card_flaw(card, card.evidence(BOUND.card_nonce(), change)) == "firmware"


@pytest.mark.parametrize("other", ["nonce", "tenant_id", "workload_id", "unit", "key_sha256"])
def test_evidence_of_another_nonce_tenant_instance_start_or_key_is_refused(
    amd: AmdMachine, card: NvidiaCard, other: str
) -> None:
    parts = {name: getattr(BOUND, name) for name in ("nonce", "tenant_id", "workload_id", "unit", "key_sha256")}
    bound = Binding(**parts | {other: "ef" * 32})
    assert snp_flaw(amd, amd.evidence(bound.report_data())) == "other_binding"
    assert card_flaw(card, card.evidence(bound.card_nonce())) == "other_binding"


# Chains


def test_a_chain_to_another_root_is_refused_whatever_the_root_is_called(amd: AmdMachine) -> None:
    stranger = AmdMachine()
    assert snp_flaw(amd, stranger.evidence(BOUND.report_data())) == "chain_broken"
    named_otherwise = AmdMachine(ark=root("ARK-Other", rsa_key(), pss=True))
    assert snp_flaw(amd, named_otherwise.evidence(BOUND.report_data())) == "root_unknown"
    whole = stranger.evidence(BOUND.report_data(), certificates=stranger.chain + pem(stranger.ark.certificate))
    assert snp_flaw(amd, whole) == "chain_broken"


def test_a_certificate_of_another_chip_or_of_other_firmware_is_refused(amd: AmdMachine) -> None:
    for vcek, flaw in (
        (amd.vcek_for(chip=b"\xc6" * 64), "chip_other"),
        (amd.vcek_for(tcb={**amd.tcb, "microcode": 214}), "tcb_other"),
        (amd.vcek_for(tcb={"boot_loader": 4}), "tcb_other"),
    ):
        evidence = amd.evidence(BOUND.report_data(), certificates=pem(vcek, amd.ask.certificate))
        assert snp_flaw(amd, evidence) == flaw


def test_a_chips_number_may_be_bare_or_wrapped(amd: AmdMachine) -> None:
    wrapped = amd.vcek_for(chip=bytes([4, 64]) + amd.chip)
    assert check_snp(amd, amd.evidence(BOUND.report_data(), certificates=pem(wrapped, amd.ask.certificate)), NOW, {})


def test_a_certificate_that_may_not_sign_signs_nothing(amd: AmdMachine) -> None:
    """A chip's key certifies a further key: the chain is well signed, and none."""
    evil = ec_key()
    below = root("SEV-VCEK", amd.key)
    forged = below.issue("SEV-VCEK-2", evil.public_key())
    machine = AmdMachine(ark=amd.ark)
    machine.ask, machine.key, machine.vcek = amd.ask, evil, forged
    chain = pem(forged, amd.vcek, amd.ask.certificate)
    assert snp_flaw(amd, machine.evidence(BOUND.report_data(), certificates=chain)) == "not_an_authority"


def test_an_authority_below_one_that_may_have_none_is_refused(amd: AmdMachine) -> None:
    sub = amd.ask.below("Sub", rsa_key())
    machine = AmdMachine(ark=amd.ark)
    machine.ask = sub
    machine.vcek = machine.vcek_for()
    chain = pem(machine.vcek, sub.certificate, amd.ask.certificate)
    assert snp_flaw(amd, machine.evidence(BOUND.report_data(), certificates=chain)) == "not_an_authority"


@pytest.mark.parametrize(("since", "until"), [(NOW + DAY, NOW + YEAR), (NOW - YEAR, NOW - timedelta(seconds=1))])
def test_a_certificate_that_is_not_of_now_is_refused(card: NvidiaCard, since: datetime, until: datetime) -> None:
    card = NvidiaCard(ca=card.ca, identity=card.identity)
    card.leaf = card.device.issue("FMC", card.key.public_key(), since=since, until=until)
    assert card_flaw(card, card.evidence(BOUND.card_nonce())) == "certificate_time"


def test_a_critical_extension_that_is_not_understood_is_refused(card: NvidiaCard) -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0")
    card = NvidiaCard(ca=card.ca, identity=card.identity)
    card.leaf = card.device.issue("FMC", card.key.public_key(), critical=[strange])
    assert card_flaw(card, card.evidence(BOUND.card_nonce())) == "extension_unknown"


@pytest.mark.parametrize("text", ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_chain_is_refused(amd: AmdMachine, text: str) -> None:
    assert snp_flaw(amd, amd.evidence(BOUND.report_data(), certificates=text)) == "malformed"
    assert snp_flaw(amd, amd.evidence(BOUND.report_data(), certificates=amd.chain * 5)) == "malformed"


# Revocation


def test_a_chain_that_nothing_vouches_for_is_refused_unless_the_policy_says_otherwise(amd: AmdMachine) -> None:
    bare = amd.evidence(BOUND.report_data(), revocation=())
    assert snp_flaw(amd, bare) == "revocation_missing"
    assert check_snp(amd, bare, NOW, {"revocation": False})


def test_a_revoked_authority_is_refused_even_where_the_policy_asks_for_no_list(amd: AmdMachine) -> None:
    listed = amd.evidence(BOUND.report_data(), revocation=(amd.ark.crl([amd.ask.certificate.serial_number]),))
    assert snp_flaw(amd, listed) == "revoked"
    assert snp_flaw(amd, listed, revocation=False) == "revoked"
    both = amd.evidence(BOUND.report_data(), revocation=(amd.ark.crl(), *listed.revocation))
    assert snp_flaw(amd, both) == "revoked"


def test_a_revoked_chip_is_refused(amd: AmdMachine) -> None:
    lists = (amd.ark.crl(), amd.ask.crl([amd.vcek.serial_number]))
    assert snp_flaw(amd, amd.evidence(BOUND.report_data(), revocation=lists)) == "revoked"


@pytest.mark.parametrize("now", [NOW - 2 * DAY, NOW + 30 * DAY, NOW + 5 * YEAR])
def test_a_revocation_list_that_is_not_of_now_is_refused(amd: AmdMachine, now: datetime) -> None:
    assert snp_flaw(amd, amd.evidence(BOUND.report_data()), now) == "revocation_stale"


def test_a_list_or_answer_of_somebody_else_is_refused(amd: AmdMachine, card: NvidiaCard) -> None:
    forged = root("ARK-Test", rsa_key(), pss=True).crl()
    assert snp_flaw(amd, amd.evidence(BOUND.report_data(), revocation=(forged,))) == "revocation_unsigned"
    other = root("Another").crl()
    assert snp_flaw(amd, amd.evidence(BOUND.report_data(), revocation=(other,))) == "revocation_missing"
    partial = amd.ark.crl(partial=True)
    assert snp_flaw(amd, amd.evidence(BOUND.report_data(), revocation=(partial,))) == "revocation_partial"
    answered = card.provisioner.ocsp(card.device.certificate, by=root("Mallory"))
    evidence = card.evidence(BOUND.card_nonce(), revocation=(*card.revocation[:2], answered))
    assert card_flaw(card, evidence) == "revocation_unsigned"


def test_an_ocsp_answer_counts_as_a_list_does(card: NvidiaCard) -> None:
    told = card.revocation[:2]
    bad = card.provisioner.ocsp(card.device.certificate, good=False)
    assert card_flaw(card, card.evidence(BOUND.card_nonce(), revocation=(*told, bad))) == "revoked"
    old = card.provisioner.ocsp(card.device.certificate, since=NOW - 3 * DAY, until=NOW - DAY)
    assert card_flaw(card, card.evidence(BOUND.card_nonce(), revocation=(*told, old))) == "revocation_stale"
    assert card_flaw(card, card.evidence(BOUND.card_nonce(), revocation=told)) == "revocation_missing"
    assert card_flaw(card, card.evidence(BOUND.card_nonce(), revocation=(b"nothing",))) == "malformed"


# Together


def all_of(amd: AmdMachine, card: NvidiaCard) -> Policies:
    return parse({"amd-sev-snp": amd.policy(), "nvidia-gpu": card.policy(), "max_age_s": 3600})


def test_a_machine_and_its_cards_prove_more_than_the_machine(amd: AmdMachine, card: NvidiaCard) -> None:
    second = NvidiaCard(ca=card.ca, identity=card.identity)
    found = [amd.evidence(BOUND.report_data()), card.evidence(BOUND.card_nonce()), second.evidence(BOUND.card_nonce())]
    proven = judge(found, all_of(amd, card), BOUND, NOW_US)
    assert (proven.processor.kind, len(proven.cards), proven.until_us - NOW_US) == ("amd-sev-snp", 2, 3600 * 1_000_000)


def test_a_card_alone_two_machines_or_the_same_card_twice_prove_nothing(amd: AmdMachine, card: NvidiaCard) -> None:
    machine, gpu = amd.evidence(BOUND.report_data()), card.evidence(BOUND.card_nonce())
    policies = all_of(amd, card)
    for found, flaw in (
        ([], "one_processor"),
        ([gpu], "one_processor"),
        ([machine, machine], "one_processor"),
        ([machine, gpu, card.evidence(BOUND.card_nonce())], "same_card"),
        ([machine] + [gpu] * 17, "one_processor"),
        ([machine, Evidence("arm-cca", b"")], "malformed"),
    ):
        assert flaw_of(judge, found, policies, BOUND, NOW_US) == flaw


def test_evidence_that_no_policy_is_set_for_is_not_taken(amd: AmdMachine) -> None:
    with pytest.raises(YardError) as refused:
        judge([amd.evidence(BOUND.report_data())], parse({}), BOUND, NOW_US)
    assert refused.value.code == "attestation_off"


@pytest.mark.parametrize(
    ("change", "where", "expected"),
    [
        ({"amd-sev": {}}, "amd-sev", "unknown"),
        ({"max_age_s": 5}, "max_age_s", "integer"),
        ({"max_age_s": True}, "max_age_s", "integer"),
        ({"amd-sev-snp": 1}, "amd-sev-snp", "table"),
        ({"amd-sev-snp": {}}, "amd-sev-snp.minimum_tcb", "missing"),
        ({"amd-sev-snp": {"measurments": ["a"]}}, "amd-sev-snp.measurments", "unknown"),
        ({"nvidia-gpu": {}}, "nvidia-gpu.roots", "missing"),
        ({"intel-tdx": {"roots": ["x"]}}, "intel-tdx.roots", "root"),
    ],
)
def test_a_policy_that_is_not_understood_is_refused_with_its_place(
    change: dict[str, Any], where: str, expected: str
) -> None:
    with pytest.raises(YardError) as refused:
        parse(change)
    assert refused.value.params == {"where": where, "expected": expected}


@pytest.mark.parametrize(
    ("change", "where", "expected"),
    [
        ({"measurements": []}, "measurements", "list"),
        ({"measurements": ["ab"]}, "measurements", "hash"),
        ({"measurements": [1]}, "measurements", "word"),
        ({"minimum_tcb": {"snp": 1}}, "minimum_tcb.boot_loader", "missing"),
        ({"minimum_tcb": {"boot_loader": 1, "tee": 0, "snp": 1, "microcode": 256}}, "minimum_tcb.microcode", "integer"),
        (
            {"minimum_tcb": {"boot_loader": 1, "tee": 0, "snp": 1, "microcode": 2, "ucode": 3}},
            "minimum_tcb.ucode",
            "unknown",
        ),
        ({"smt": 1}, "smt", "boolean"),
        ({"debug": True}, "debug", "unknown"),
    ],
)
def test_a_policy_that_would_let_anything_pass_is_refused(
    amd: AmdMachine, change: dict[str, Any], where: str, expected: str
) -> None:
    with pytest.raises(YardError) as refused:
        parse({"amd-sev-snp": amd.policy(**change)})
    found = refused.value.params
    assert found["where"] == f"amd-sev-snp.{where}"
    assert found["expected"] in {expected, "hash"}


@pytest.mark.parametrize("key", ["0", "01", "256", "one", "-1"])
def test_a_cards_measurements_are_numbered(card: NvidiaCard, key: str) -> None:
    with pytest.raises(YardError) as refused:
        parse({"nvidia-gpu": card.policy(measurements={key: ["00" * 48]})})
    assert refused.value.params["expected"] == "number"
    with pytest.raises(YardError):
        parse({"nvidia-gpu": card.policy(measurements={})})


def test_the_fingerprint_of_a_policy_changes_with_anything_in_it(amd: AmdMachine) -> None:
    first = parse({"amd-sev-snp": amd.policy()})
    assert first.fingerprint == parse({"amd-sev-snp": amd.policy()}).fingerprint
    assert first.fingerprint != parse({"amd-sev-snp": amd.policy(smt=False)}).fingerprint


def test_what_is_bound_can_be_worked_out_without_the_yard() -> None:
    """As the documentation spells it."""
    import hashlib

    text = (
        '{"instance":"wl-1","key_sha256":"'
        + "cd" * 32
        + '","nonce":"'
        + "ab" * 32
        + '","tenant":"tn-1","unit":"ls-1-1","v":1}'
    )
    assert BOUND.report_data() == hashlib.sha512(text.encode()).digest()
    assert BOUND.card_nonce() == hashlib.sha256(text.encode()).digest()

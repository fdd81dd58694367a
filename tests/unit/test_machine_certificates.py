"""Certificates of machines: what is in them, who gets one, and which authority signs while two are trusted."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.access import machine_certificates as machine
from gpuyard.access.certificates import new_authority
from gpuyard.access.machines import is_late, why_not_again, why_not_join, why_refused
from gpuyard.model.errors import YardError
from gpuyard.model.join_tokens import JoinToken, new_join_token, parse_join_token
from gpuyard.model.machines import Invitation, Machine, MachineCertificate, MachineState

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
YARD = "yd-1"
Change = Callable[[x509.CertificateSigningRequestBuilder], x509.CertificateSigningRequestBuilder]


def authority(at: datetime = NOW) -> machine.Authority:
    return machine.Authority.of(new_authority("gpuyard machines", at, machine.AUTHORITY_LIFE))


def request(name: str = "rack2", key: object = None, change: Change = lambda plain: plain) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return change(builder).sign(key, algorithm).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def refusal(made: bytes, name: str = "rack2") -> object:
    with pytest.raises(YardError) as caught:
        machine.requested_key(made, YARD, name)
    assert caught.value.code == "machine_request_refused"
    return caught.value.params["refusal"]


def issued(signer: machine.Authority, at: datetime = NOW) -> x509.Certificate:
    key = machine.requested_key(request(), YARD, "rack2")
    return x509.load_pem_x509_certificate(machine.issue(signer, key, YARD, "rack2", at).certificate)


def test_a_machines_certificate_is_for_a_client_of_that_name_and_for_a_day_at_most() -> None:
    held = issued(authority())
    told = held.extensions
    names = told.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://yd-1/machine/rack2")]
    usage = told.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not told.get_extension_for_class(x509.BasicConstraints).value.ca
    assert held.not_valid_after_utc - held.not_valid_before_utc == timedelta(hours=24)


def test_it_verifies_as_a_client_and_never_as_a_server() -> None:
    signer = authority()
    held = issued(signer)
    policy = PolicyBuilder().store(Store([x509.load_pem_x509_certificate(signer.held.certificate)])).time(NOW)
    subjects = policy.build_client_verifier().verify(held, []).subjects
    assert subjects == [x509.UniformResourceIdentifier("spiffe://yd-1/machine/rack2")]
    with pytest.raises(Exception, match=r"."):
        policy.build_server_verifier(x509.DNSName("rack2")).verify(held, [])


def test_no_certificate_outlives_the_authority_that_signed_it() -> None:
    signer = authority()
    assert issued(signer, signer.ends - timedelta(hours=3)).not_valid_after_utc == signer.ends


def test_who_asks_for_another_name_is_refused() -> None:
    assert refusal(request("rack3")) == "name"
    both = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("rack2", "rack3")])
    empty = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    key = ec.generate_private_key(ec.SECP256R1())
    assert refusal(empty.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)) == "name"
    made = x509.CertificateSigningRequestBuilder().subject_name(both).sign(key, hashes.SHA256())
    assert refusal(made.public_bytes(Encoding.PEM)) == "name"


@pytest.mark.parametrize(
    ("extension", "because"),
    [
        (x509.BasicConstraints(ca=True, path_length=None), "authority"),
        (x509.BasicConstraints(ca=False, path_length=None), "extension"),
        (x509.SubjectAlternativeName([x509.DNSName("rack2")]), "name"),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://yd-1/machine/rack3")]), "name"),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://yd-2/machine/rack2")]), "name"),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), "extension"),
    ],
)
def test_who_asks_for_more_is_refused_and_not_just_given_less(extension: x509.ExtensionType, because: str) -> None:
    assert refusal(request(change=lambda plain: plain.add_extension(extension, critical=True))) == because


def test_who_names_itself_as_it_will_be_named_is_taken() -> None:
    named = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://yd-1/machine/rack2")])
    machine.requested_key(request(change=lambda plain: plain.add_extension(named, critical=False)), YARD, "rack2")
    machine.requested_key(request(key=ec.generate_private_key(ec.SECP384R1())), YARD, "rack2")


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 1024),
        lambda: rsa.generate_private_key(65537, 3072),
        lambda: ec.generate_private_key(ec.SECP192R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: dsa.generate_private_key(1024),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["rsa 1024", "rsa 3072", "P-192", "secp256k1", "dsa", "ed25519"],
)
def test_keys_that_are_weak_or_of_another_kind_are_refused(make: Callable[[], object]) -> None:
    assert refusal(request(key=make())) in {"key", "unreadable"}


def test_whoever_does_not_have_the_key_is_refused() -> None:
    mine, theirs = (x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER) for _ in range(2))
    keys = [x509.load_der_x509_csr(der).public_key() for der in (mine, theirs)]
    points = [key.public_numbers() for key in keys]  # type: ignore[union-attr]
    raw = [p.x.to_bytes(32, "big") + p.y.to_bytes(32, "big") for p in points]  # type: ignore[union-attr]
    swapped = x509.load_der_x509_csr(mine.replace(raw[0], raw[1])).public_bytes(Encoding.PEM)
    assert refusal(swapped) == "signature"


@given(st.binary(max_size=200))
def test_what_is_no_request_is_refused_in_one_word(noise: bytes) -> None:
    assert refusal(noise) == "unreadable"
    assert refusal(b"-----BEGIN CERTIFICATE REQUEST-----\n" + noise) == "unreadable"
    assert refusal(request() + b"x" * 9000) == "unreadable"


def test_one_byte_that_is_not_right_gives_no_certificate() -> None:
    der = x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER)
    for at in range(len(der)):
        broken = bytearray(der)
        broken[at] ^= 1 << at % 8
        text = base64.encodebytes(bytes(broken)).decode()
        pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
        with pytest.raises(YardError, match="machine_request_refused"):
            machine.requested_key(pem.encode(), YARD, "rack2")


def test_a_second_authority_is_made_a_month_before_the_first_ends_and_signs_once_all_know_it() -> None:
    first = authority()
    assert not machine.next_is_due([first], first.ends - timedelta(days=31))
    due = first.ends - timedelta(days=29)
    assert machine.next_is_due([first], due)
    second = authority(due)
    both = [second, first]
    assert machine.trusted(both, due) == [first, second]
    assert machine.signing(both, due) is first
    assert machine.signing(both, due + timedelta(days=2, hours=23)) is first
    assert machine.signing(both, due + timedelta(days=3)) is second
    assert machine.trusted(both, first.ends) == [second]
    assert machine.signing(both, first.ends) is second
    assert not machine.next_is_due(both, first.ends)


def test_after_a_year_of_sleep_the_new_authority_signs_at_once_as_there_is_no_other() -> None:
    first = authority()
    late = first.ends + timedelta(days=5)
    assert machine.next_is_due([first], late)
    with pytest.raises(ValueError, match="ended"):
        machine.signing([first], late)
    second = authority(late)
    assert machine.signing([first, second], late) is second


@given(days=st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_whenever_a_yard_looks_what_it_signs_is_trusted_by_whoever_was_told_within_a_day(days: list[int]) -> None:
    """A machine that renewed at one look knows, for as long as its certificate is good, who signs."""
    kept: list[machine.Authority] = []
    at = NOW
    for pause in days:
        at += timedelta(days=pause)
        if machine.next_is_due(kept, at):
            kept = [*kept, authority(at)]
        told = machine.trusted(kept, at)
        tomorrow = at + machine.MACHINE_LIFE
        later = [*kept, authority(tomorrow)] if machine.next_is_due(kept, tomorrow) else kept
        signer = machine.signing(later, tomorrow)
        assert signer in told or all(one.ends <= tomorrow for one in told)
        assert machine.signing(kept, at).ends > at


JOINED = Machine("mc-1", "rack2", MachineState.JOINED, 0, "admin")
OPEN = Invitation("mi-1", "d", "rack2", 0, "admin", 1000)
USED = Invitation("mi-1", "d", "rack2", 0, "admin", 1000, 5, "key", "mc-1")
CERTIFICATE = MachineCertificate("aa", "mc-1", "mi-1", "key", 5, 5000)


@pytest.mark.parametrize(
    ("invitation", "key", "name", "known", "at_us", "because"),
    [
        (None, "key", "rack2", None, 1, "token_unknown"),
        (OPEN, "key", "rack2", None, 1, None),
        (OPEN, "key", "rack2", JOINED, 1, None),
        (OPEN, "key", "rack2", None, 1000, "token_expired"),
        (OPEN, "key", "rack3", None, 1, "token_other_name"),
        (USED, "key", "rack2", JOINED, 6, None),
        (USED, "other", "rack2", JOINED, 6, "token_used"),
        (USED, "other", "rack2", JOINED, 2000, "token_used"),
        (Invitation("mi-1", "d", None, 0, "admin", 1000), "key", "rack2", JOINED, 1, "name_in_use"),
        (Invitation("mi-1", "d", None, 0, "admin", 1000, withdrawn_us=1), "key", "rack2", None, 2, "token_withdrawn"),
    ],
)
def test_an_invitation_lets_one_key_in_under_the_name_that_it_is_for_and_in_time(
    invitation: Invitation | None, key: str, name: str, known: Machine | None, at_us: int, because: str | None
) -> None:
    assert why_not_join(invitation, key, name, known, at_us) == because


def test_a_lost_answer_is_given_again_until_a_certificate_was_used() -> None:
    assert why_not_again(USED, JOINED, [CERTIFICATE]) is None
    assert why_not_again(USED, JOINED, [CERTIFICATE, replace(CERTIFICATE, sha256="bb")]) is None
    for over in ({"used_us": 6}, {"superseded_us": 6}, {"revoked_us": 6}):
        assert why_not_again(USED, JOINED, [CERTIFICATE, replace(CERTIFICATE, **over)]) == "token_used"  # type: ignore[arg-type]
    assert why_not_again(USED, replace(JOINED, state=MachineState.REVOKED), [CERTIFICATE]) == "token_used"
    assert why_not_again(USED, replace(JOINED, id="mc-2"), [CERTIFICATE]) == "token_used"
    assert why_not_again(USED, None, []) == "token_used"
    assert why_not_again(USED, JOINED, []) == "token_used"


def test_a_certificate_counts_only_while_everything_is_right() -> None:
    assert why_refused(CERTIFICATE, JOINED, 4999) is None
    assert why_refused(None, None, 1) == "unknown"
    assert why_refused(CERTIFICATE, None, 1) == "unknown"
    assert why_refused(CERTIFICATE, JOINED, 5000) == "ended"
    assert why_refused(replace(CERTIFICATE, superseded_us=1), JOINED, 1) == "superseded"
    assert why_refused(replace(CERTIFICATE, revoked_us=1), JOINED, 1) == "revoked"
    assert why_refused(CERTIFICATE, replace(JOINED, state=MachineState.REVOKED), 1) == "revoked"


def test_whether_a_machine_is_late_is_not_guessed() -> None:
    minute = 60_000_000
    assert is_late(None, 0, 10 * minute) is None  # never heard of
    assert is_late(0, None, 10 * minute) is None  # nobody listens
    assert is_late(0, 10 * minute, 10 * minute + 1) is None  # listening for too short a time
    assert is_late(0, 0, minute // 2) is False
    assert is_late(0, 0, minute) is True


def test_a_join_token_reads_back_and_what_is_none_is_refused_without_repeating_it() -> None:
    for sha256 in ("ab" * 32, None):
        token = new_join_token(sha256)
        assert parse_join_token(f" {token.text()}\n") == token
        assert token.secret not in repr(token)
    good = JoinToken("a" * 43, None).text()
    for bad in ("", "gy_x", good[:-1], good.replace("public", "ab" * 31), good + "x", "gyj_" + "a" * 43):
        with pytest.raises(YardError, match="join_token_invalid") as caught:
            parse_join_token(bad)
        assert caught.value.params == {}

"""Certificates of a yard's own authority, and a server that takes a new one while it listens."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.verification import PolicyBuilder, Store

from gpuyard.access import certificates
from gpuyard.control.listening import certified_names, listen, told_address
from gpuyard.control.tls import Files, OwnAuthority, ServerTls, open_tls
from gpuyard.model.errors import YardError

NOW = datetime.now(UTC)
NAMES = ("yard.example", "127.0.0.1", "::1")


def test_a_servers_certificate_holds_for_its_names_and_for_a_month() -> None:
    authority = certificates.new_authority("gpuyard yd-1", NOW)
    server = x509.load_pem_x509_certificate(certificates.issue(authority, NAMES, NOW).certificate)
    store = Store([x509.load_pem_x509_certificate(authority.certificate)])

    def verify(name: str, at: datetime) -> None:
        subject = x509.DNSName(name)
        PolicyBuilder().store(store).time(at).build_server_verifier(subject).verify(server, [])

    verify("yard.example", NOW)
    verify("yard.example", NOW + timedelta(days=29))
    for name, at in (("other.example", NOW), ("yard.example", NOW + timedelta(days=31))):
        with pytest.raises(Exception, match=r"."):
            verify(name, at)


def test_a_new_one_is_due_before_the_end_and_for_other_names_or_another_authority() -> None:
    authority, other = (certificates.new_authority(f"gpuyard {n}", NOW) for n in (1, 2))
    held = certificates.issue(authority, NAMES, NOW).certificate
    assert not certificates.is_due(held, authority.certificate, NAMES, NOW + timedelta(days=19))
    assert certificates.is_due(held, authority.certificate, NAMES, NOW + timedelta(days=21))
    assert certificates.is_due(held, authority.certificate, ("else.example",), NOW)
    assert certificates.is_due(held, other.certificate, NAMES, NOW)


def test_no_certificate_outlives_its_authority() -> None:
    authority = certificates.new_authority("gpuyard yd-1", NOW)
    late = NOW + certificates.AUTHORITY_LIFE - timedelta(days=3)
    held = x509.load_pem_x509_certificate(certificates.issue(authority, NAMES, late).certificate)
    end = x509.load_pem_x509_certificate(authority.certificate).not_valid_after_utc
    assert held.not_valid_after_utc == end


@contextmanager
def _listening(tls: ServerTls) -> Iterator[int]:
    """Answers every handshake on a loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                with tls.context.wrap_socket(raw, server_side=True) as held:
                    held.recv(1)
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def _shown(port: int, ca: bytes, name: str) -> x509.Certificate:
    """What is shown to a client that trusts this authority alone."""
    context = ssl.create_default_context(cadata=ca.decode())
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname=name) as held,
    ):
        shown = held.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])  # an address sends no name in its handshake
def test_a_renewed_certificate_is_shown_without_listening_anew(tmp_path: Path, name: str) -> None:
    source = OwnAuthority(tmp_path / "tls", certified_names("127.0.0.1", ()), "yd-1")
    tls = ServerTls(source, NOW - timedelta(days=19, hours=23, minutes=30))
    with _listening(tls) as port:
        first = _shown(port, source.certificate, name)
        assert not tls.refresh(NOW)
        assert _shown(port, source.certificate, name) == first
        assert tls.refresh(NOW + timedelta(minutes=40))
        assert _shown(port, source.certificate, name).not_valid_after_utc > first.not_valid_after_utc
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}


def test_the_operators_files_are_read_again_and_half_replaced_ones_change_nothing(tmp_path: Path) -> None:
    authority = certificates.new_authority("some authority", NOW)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    one, two = (certificates.issue(authority, ("localhost",), NOW) for _ in range(2))
    chain.write_bytes(one.certificate)
    key.write_bytes(one.key)
    tls = ServerTls(Files(chain, key), NOW)
    assert tls.authority is None
    with _listening(tls) as port:
        chain.write_bytes(two.certificate)
        os.utime(chain, ns=(1, 1))
        with pytest.raises(YardError, match="tls_unusable"):
            tls.refresh(NOW)
        assert _shown(port, authority.certificate, "localhost") == x509.load_pem_x509_certificate(one.certificate)
        key.write_bytes(two.key)
        assert tls.refresh(NOW)
        assert _shown(port, authority.certificate, "localhost") == x509.load_pem_x509_certificate(two.certificate)
        key.unlink()
        with pytest.raises(YardError, match="tls_unusable"):
            tls.refresh(NOW)


def test_an_encrypted_key_is_refused_in_words_and_never_asked_for(tmp_path: Path) -> None:
    authority = certificates.new_authority("some authority", NOW)
    held = certificates.issue(authority, ("localhost",), NOW)
    key = load_pem_private_key(held.key, None)
    (tmp_path / "chain").write_bytes(held.certificate)
    (tmp_path / "key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(YardError, match="encrypted"):
        open_tls(tmp_path, "127.0.0.1", (), (tmp_path / "chain", tmp_path / "key"), "yd-1")


def test_an_authority_that_has_ended_is_replaced_and_one_that_has_not_is_kept(tmp_path: Path) -> None:
    source = OwnAuthority(tmp_path / "tls", ("localhost",), "yd-1")
    source.refresh(NOW)
    first = source.certificate
    source.refresh(NOW + timedelta(days=3000))
    assert source.certificate == first
    source.refresh(NOW + timedelta(days=3651))
    assert source.certificate != first


def test_a_start_that_was_cut_short_between_key_and_certificate_makes_both_anew(tmp_path: Path) -> None:
    source = OwnAuthority(tmp_path / "tls", ("localhost",), "yd-1")
    source.refresh(NOW)
    (tmp_path / "tls" / "ca.pem").unlink()
    tls = ServerTls(source, NOW)
    with _listening(tls) as port:
        _shown(port, source.certificate, "localhost")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_beyond_loopback_nothing_is_listened_on_without_tls_or_a_word(host: str) -> None:
    with pytest.raises(YardError, match="not_loopback"):
        listen(host, 0, guarded=False)


def test_a_yard_that_listens_everywhere_tells_a_name_that_its_certificate_is_for() -> None:
    with listen("0.0.0.0", 0, guarded=True) as listener:
        assert told_address(listener, ("yard.example",), secure=True).startswith("https://yard.example:")
        told = told_address(listener, (), secure=True)
    assert told.split("/")[2].split(":")[0] in certified_names("0.0.0.0", ())
    with pytest.raises(YardError, match="invalid_request"):
        listen("yard.example", 0, guarded=True)

"""What the yard fetches, and from where: no name, encoding or second look-up leads it to an address that is not public."""

from __future__ import annotations

import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuyard.access import certificates
from gpuyard.access.addresses import plain, why_refused
from gpuyard.control.outgoing import MAX_BYTES, Outgoing
from gpuyard.model.errors import YardError

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@given(V4 | V6)
def test_what_the_standard_library_calls_not_global_is_refused(address: Any) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        wraps_public = isinstance(address, ipaddress.IPv6Address) and (
            address.ipv4_mapped is not None or address in ipaddress.ip_network("64:ff9b::/96")
        )
        assert wraps_public or why_refused(address) is not None


@given(V4)
def test_a_wrapped_address_is_judged_as_what_it_wraps(address: ipaddress.IPv4Address) -> None:
    wrapped = [ipaddress.IPv6Address(base + int(address)) for base in (0xFFFF << 32, 0x64FF9B << 96)]
    assert {why_refused(one) for one in wrapped} == {why_refused(address)}
    for tunnelled in (
        ipaddress.IPv6Address((0x2002 << 112) + (int(address) << 80)),
        ipaddress.IPv6Address(int(address)),
    ):
        assert why_refused(tunnelled) is not None


@given(V4 | V6, st.integers(8, 32))
def test_what_the_operator_allowed_is_allowed_and_nothing_beside_it(named: Any, length: int) -> None:
    address: Any = plain(named)
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    assert why_refused(address, (network,)) is None
    outside = type(address)(int(network.network_address) ^ (1 << (address.max_prefixlen - length)))
    assert why_refused(outside, (network,)) == why_refused(outside) or plain(outside) != outside


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b:1::1",
        "::127.0.0.1",
    ],
)
def test_the_addresses_that_attackers_ask_for(address: str) -> None:
    assert why_refused(ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_fetched_from(address: str) -> None:
    assert why_refused(ipaddress.ip_address(address)) is None


@given(st.lists(st.sampled_from(["93.184.216.34", "10.0.0.1", "::1", "2606:4700::1"]), min_size=1, max_size=4))
def test_a_name_with_any_refused_address_is_refused_and_asked_for_once(addresses: list[str]) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return addresses

    outgoing = Outgoing(resolve=resolve)
    if {"10.0.0.1", "::1"} & set(addresses):
        with pytest.raises(YardError, match="fetch_refused"):
            outgoing.judged("name.example", 443)
    else:
        assert [str(one) for one in outgoing.judged("name.example", 443)] == addresses
    assert asked == ["name.example"]


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://[::1]/"),
        *("https://localhost/", "https://[::ffff:127.0.0.1]/", "https://user:word@example.com/", "file:///etc/passwd"),
        *("gopher://example.com/", "//example.com/", "https://", "https://[fe80::1%25lo]/"),
    ],
)
def test_no_url_leads_to_this_machine(url: str) -> None:
    with pytest.raises(YardError, match=r"fetch_refused|fetch_failed"):
        Outgoing().fetch(url)


class _Handler(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        type(self).seen.append((self.headers["Host"], self.path))
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", "http://169.254.169.254/")
        self.end_headers()
        self.wfile.write(b"x" * (MAX_BYTES + 2 if self.path == "/much" else 2))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _server(context: ssl.SSLContext | None) -> Iterator[int]:
    _Handler.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_the_address_that_was_judged_is_the_one_that_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    authority = certificates.new_authority("somebody", now)
    held = certificates.issue(authority, ("login.example",), now)
    (tmp_path / "held.pem").write_bytes(held.certificate + held.key)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # is not asked
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "held.pem")
    answers = iter([["127.0.0.1"], ["192.0.2.1"]])  # the second look-up that there must not be
    outgoing = Outgoing(LOOPBACK, resolve=lambda host, port: next(answers))
    with _server(context) as port:
        assert outgoing.fetch(f"https://login.example:{port}/a").body == b"xx"
        assert _Handler.seen == [(f"login.example:{port}", "/a")]
        elsewhere = Outgoing(LOOPBACK, resolve=lambda host, port: ["127.0.0.1"])
        with pytest.raises(YardError, match="CERTIFICATE_VERIFY_FAILED"):
            elsewhere.fetch(f"https://other.example:{port}/")


def test_redirects_are_not_followed_and_bodies_are_held_to_a_size() -> None:
    outgoing = Outgoing(LOOPBACK)
    with _server(None) as port:
        assert outgoing.fetch(f"http://127.0.0.1:{port}/").status == 200
        for path in ("away", "much"):
            with pytest.raises(YardError, match="fetch_failed"):
                outgoing.fetch(f"http://127.0.0.1:{port}/{path}")


def test_images_of_registries_inside_are_not_fetched_unless_allowed() -> None:
    for reference in ("127.0.0.1:5000/a:1", "10.0.0.7:5000/team/a", "169.254.169.254/a"):
        with pytest.raises(YardError, match="fetch_refused"):
            Outgoing().check_image(reference)
    Outgoing.allowing(["10.0.0.0/8"]).check_image("10.0.0.7:5000/team/a")
    Outgoing(resolve=_unknown).check_image("mirrored.example/a")
    with pytest.raises(YardError, match="invalid_request"):
        Outgoing.allowing(["10.0.0.0/99"])


def _unknown(host: str, port: int) -> list[str]:
    raise OSError("Name or service not known")

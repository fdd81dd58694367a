"""Three schemes of signatures, against requests that real clients signed, published examples, and every byte changed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from gpuyard.access.callers import KnownKey
from gpuyard.access.signatures import acs, sigv4
from gpuyard.access.signatures.checking import check
from gpuyard.access.signatures.nonces import Nonces
from gpuyard.access.signatures.request import MINUTE_US, Refusal, SignatureError, SignedRequest, decode_pairs
from gpuyard.model.tenants import Identity, Role
from shared_data import shared_data


class Ring:
    """A key ring of what a capture says."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self._secrets = secrets

    def find(self, key_id: str) -> KnownKey | None:
        secret = self._secrets.get(key_id)
        return None if secret is None else KnownKey(Identity(key_id, "ann", Role.MEMBER, "tn-1"), secret)


def request_of(method: str, target: str, headers: dict[str, str], body: bytes) -> SignedRequest:
    form = decode_pairs(body, 2000) if "form" in headers.get("content-type", "") else []
    return SignedRequest(method, "/", decode_pairs(urlsplit(target).query.encode(), 2000), headers, body, form)


def captured() -> list[tuple[SignedRequest, Ring, int]]:
    """Every captured request, the keys that it was signed with, and when."""
    found = []
    for file in sorted(shared_data("captures").glob("*.json")):
        capture = json.loads(file.read_text())
        for one in capture.get("exchanges", []):
            method, target, _ = one["start_line"].split(" ")
            headers = {name.lower(): value for name, value in one["headers"]}
            request = request_of(method, target, headers, one["body"].encode())
            secret = capture.get("secret_access_key") or capture["access_key_secret"]
            if "ASIAFAKE" in headers.get("authorization", ""):
                secret = "fakesecret"
            scheme = sigv4 if sigv4.is_signed(request) else acs
            claim = scheme.read(request, _when(request))
            found.append((request, Ring({claim.key_id: secret}), claim.signed_us))
    return found


def _when(request: SignedRequest) -> int:
    if "x-amz-date" in request.headers:
        text, layout = request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"
    else:
        text, layout = request.headers.get("x-acs-date") or dict(request.query)["Timestamp"], "%Y-%m-%dT%H:%M:%SZ"
    return int(datetime.strptime(text, layout).replace(tzinfo=UTC).timestamp()) * 1_000_000


def refusal(request: SignedRequest, ring: Ring, now_us: int) -> Refusal:
    with pytest.raises(SignatureError) as caught:
        check(request, ring, Nonces(), now_us)
    return caught.value.refusal


def test_every_captured_request_of_four_real_clients_is_taken() -> None:
    requests = captured()
    assert len(requests) == 42
    nonces = Nonces()
    for request, ring, now_us in requests:
        known, claim = check(request, ring, nonces, now_us)
        assert known.identity.token_id == claim.key_id


def test_a_nonce_is_taken_once_and_forgotten_when_the_signature_is_too_old() -> None:
    request, ring, now_us = next(one for one in captured() if not sigv4.is_signed(one[0]))
    nonces = Nonces()
    check(request, ring, nonces, now_us)
    with pytest.raises(SignatureError) as caught:
        check(request, ring, nonces, now_us + 30 * MINUTE_US)
    assert caught.value.refusal is Refusal.REPLAYED
    assert nonces.take("key", "n", now_us, now_us)
    assert not nonces.take("key", "n", now_us, now_us)
    assert nonces.take("key", "n", now_us + 2, now_us + 1)
    assert not Nonces(most_per_key=0).take("key", "n", now_us, now_us)


@pytest.mark.parametrize("minutes", [-32, 32])
def test_a_clock_32_minutes_off_is_refused_by_every_scheme(minutes: int) -> None:
    for request, ring, now_us in captured():
        assert refusal(request, ring, now_us + minutes * MINUTE_US) is Refusal.EXPIRED


def test_an_unknown_key_and_a_wrong_secret_are_told_apart_only_after_the_same_work() -> None:
    for request, ring, now_us in captured():
        assert refusal(request, Ring({}), now_us) is Refusal.UNKNOWN_KEY
        wrong = Ring(dict.fromkeys(ring._secrets, "wrong"))
        assert refusal(request, wrong, now_us) is Refusal.MISMATCH


def test_one_byte_changed_in_what_is_signed_is_never_taken() -> None:
    """Each signed header, each parameter and each byte of the body, in one request of each scheme."""
    by_scheme: dict[str, tuple[SignedRequest, Ring, int]] = {}
    for request, ring, now_us in captured():
        by_scheme.setdefault(request.headers.get("authorization", "HMAC-SHA1").split(" ")[0], (request, ring, now_us))
    assert set(by_scheme) == {"AWS4-HMAC-SHA256", "ACS3-HMAC-SHA256", "HMAC-SHA1"}
    tried = 0
    for request, ring, now_us in by_scheme.values():
        for changed in _changed(request):
            with pytest.raises(SignatureError):
                check(changed, ring, Nonces(), now_us)
            tried += 1
    assert tried > 500


def _changed(request: SignedRequest) -> list[SignedRequest]:
    found = []
    for at in range(len(request.body)):
        body = bytearray(request.body)
        body[at] ^= 1
        found.append(replace(request, body=bytes(body)))
    for number, (name, value) in enumerate(request.query):
        rest = [*request.query]
        for changed in (name, value + "x"), (name + "x", value), (name, value[:-1]):
            if changed != (name, value):
                rest[number] = changed
                found.append(replace(request, query=list(rest)))
    authorization = request.headers.get("authorization", "")
    for at in range(len(authorization)):
        told = authorization[:at] + chr(ord(authorization[at]) ^ 1) + authorization[at + 1 :]
        if told.split(",") != authorization.split(","):
            found.append(replace(request, headers={**request.headers, "authorization": told}))
    signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    for name in filter(None, signed):
        headers: dict[str, Any] = {**request.headers, name: request.headers[name] + "x"}
        found.append(replace(request, headers=headers))
    return found


def test_the_published_example_of_version_1() -> None:
    """From Alibaba Cloud's documentation of the RPC signature."""
    given = {
        "Timestamp": "2016-02-23T12:46:24Z",
        "Format": "XML",
        "AccessKeyId": "testid",
        "Action": "DescribeRegions",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
        "Version": "2014-05-26",
        "SignatureVersion": "1.0",
    }
    pairs = [*given.items(), ("Signature", "OLeaidS1JvxuMvnyHOwuJ+uX5qY=")]
    request = SignedRequest("GET", "/", pairs, {}, b"")
    now_us = int(datetime(2016, 2, 23, 12, 46, 24, tzinfo=UTC).timestamp()) * 1_000_000
    known, _ = check(request, Ring({"testid": "testsecret"}), Nonces(), now_us)
    assert known.identity.token_id == "testid"


def test_the_published_example_of_sigv4() -> None:
    """get-vanilla of the suite of AWS, as headers; its key is AKIDEXAMPLE."""
    headers = {
        "host": "example.amazonaws.com",
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    }
    now_us = int(datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()) * 1_000_000
    ring = Ring({"AKIDEXAMPLE": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
    known, claim = check(SignedRequest("GET", "/", [], headers, b""), ring, Nonces(), now_us)
    assert (known.identity.token_id, claim.keyed[2]) == ("AKIDEXAMPLE", "service")


def test_a_header_that_is_not_signed_cannot_speak_for_the_caller() -> None:
    request, ring, now_us = next(one for one in captured() if sigv4.is_signed(one[0]))
    smuggled = replace(request, headers={**request.headers, "x-amz-security-token": "other"})
    if "x-amz-security-token" not in request.headers:
        assert refusal(smuggled, ring, now_us) is Refusal.MALFORMED


def test_more_parameters_than_are_taken_are_refused_before_they_are_read() -> None:
    with pytest.raises(SignatureError) as caught:
        decode_pairs(b"&".join(b"a=%d" % n for n in range(10_000)), 2000)
    assert caught.value.refusal is Refusal.MALFORMED

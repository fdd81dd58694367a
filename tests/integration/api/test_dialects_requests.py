"""Whole requests at the door: what real clients sent, presigned URLs, and what was changed on its way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from httpx import Response

import signing
from api_in_hand import ApiInHand
from clouds_in_hand import RUN, Cloud, code, ids
from gpuyard.model.tenants import Identity, Role
from gpuyard.store import access_keys
from gpuyard.store.access_keys import AccessKey
from shared_data import shared_data

REFUSED = {
    "SignatureDoesNotMatch",
    "AuthFailure",
    "IncompleteSignature",
    "RequestExpired",
    "MissingAuthenticationToken",
}
REFUSED |= {"InvalidAccessKeyId.NotFound", "InvalidTimeStamp.Expired", "SignatureNonceUsed"}
MINUTE_US = 60_000_000


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    found = ApiInHand(tmp_path)
    yield found
    found.close()


@pytest.fixture
def alice(api: ApiInHand) -> Cloud:
    return Cloud(api, "alice")


def captures() -> list[str]:
    return [file.stem for file in sorted(shared_data("captures").glob("a*.json"))]


def signed_us(headers: dict[str, str], query: dict[str, list[str]]) -> int:
    if "x-amz-date" in headers:
        text, layout = headers["x-amz-date"], "%Y%m%dT%H%M%SZ"
    else:
        text, layout = headers.get("x-acs-date") or query["Timestamp"][0], "%Y-%m-%dT%H:%M:%SZ"
    return int(datetime.strptime(text, layout).replace(tzinfo=UTC).timestamp()) * 1_000_000


def test_every_captured_request_is_answered_by_a_yard_of_its_time(api: ApiInHand, alice: Cloud) -> None:
    answered = 0
    for name in captures():
        capture = json.loads((shared_data("captures") / f"{name}.json").read_text())
        secret = capture.get("secret_access_key") or capture["access_key_secret"]
        for one in capture["exchanges"]:
            method, target, _ = one["start_line"].split(" ")
            headers = {key.lower(): value for key, value in one["headers"] if key.lower() != "content-length"}
            keep_key(api, headers, target, secret)
            api.hand.clock.at_us = signed_us(headers, parse_qs(urlsplit(target).query))
            answer = alice.http.request(method, target, headers=headers, content=one["body"].encode())
            assert answer.status_code < 500, (name, answer.text)
            asked = {**headers, **parse_qs(urlsplit(target).query)}
            temporary = {"x-amz-security-token", "x-acs-security-token", "SecurityToken"} & asked.keys()
            told = code(answer) if answer.status_code >= 400 else ""
            assert (told in REFUSED) == bool(temporary), (name, answer.text)
            answered += 1
    assert answered == 42


def keep_key(api: ApiInHand, headers: dict[str, str], target: str, secret: str) -> None:
    """The yard knows the key that the request was signed with."""
    told = headers.get("authorization", "")
    key_id = (
        told.partition("Credential=")[2].partition("/")[0].partition(",")[0]
        or (parse_qs(urlsplit(target).query).get("AccessKeyId", [""])[0])
    )
    if key_id.startswith("ASIAFAKE"):
        secret = "fakesecret"
    sealed = api.hand.yard.sealer.seal({"secret": secret})["secret"]
    with api.hand.yard.store.write() as c:
        if access_keys.find(c, key_id) is None:
            access_keys.insert(c, AccessKey(Identity(key_id, "ann", Role.MEMBER, "tn-alice"), 0, None, None, sealed))


def get(alice: Cloud, query: str) -> Response:
    return alice.http.get(f"/?{query}")


def test_a_presigned_url_is_good_for_as_long_as_it_says(api: ApiInHand, alice: Cloud) -> None:
    asked = {"Action": "DescribeRegions", "Version": "2016-11-15"}
    query = signing.presigned(alice.key, alice.secret, asked, alice.now_us(), seconds=300)
    answer = get(alice, query)
    assert answer.status_code == 200, answer.text
    assert "<regionName>" in answer.text
    api.hand.clock.advance(4 * MINUTE_US)
    assert get(alice, query).status_code == 200
    api.hand.clock.advance(2 * MINUTE_US)
    assert code(get(alice, query)) == "RequestExpired"


def test_a_presigned_url_can_launch_and_a_client_token_makes_it_once(alice: Cloud) -> None:
    asked = {"Action": "RunInstances", "Version": "2016-11-15", **RUN, "ClientToken": "one"}
    query = signing.presigned(alice.key, alice.secret, asked, alice.now_us())
    assert ids(get(alice, query)) == ids(get(alice, query))
    assert len(ids(alice.ec2("DescribeInstances"))) == 1


@pytest.mark.parametrize("seconds", ["0", "-1", "604801", "soon", ""])
def test_a_presigned_url_that_is_to_last_too_long_or_not_at_all_is_refused(alice: Cloud, seconds: str) -> None:
    asked = {"Action": "DescribeRegions", "Version": "2016-11-15"}
    query = signing.presigned(alice.key, alice.secret, asked, alice.now_us(), seconds)  # type: ignore[arg-type]
    assert code(get(alice, query)) in REFUSED


@pytest.mark.parametrize("place", range(0, 600, 7))
def test_one_byte_changed_anywhere_in_a_presigned_url_changes_nothing(alice: Cloud, place: int) -> None:
    asked = {"Action": "RunInstances", "Version": "2016-11-15", **RUN}
    query = signing.presigned(alice.key, alice.secret, asked, alice.now_us())
    at = place % len(query)
    changed = query[:at] + ("0" if query[at] != "0" else "1") + query[at + 1 :]
    answer = get(alice, changed)
    assert 400 <= answer.status_code < 500
    assert code(answer) in REFUSED | {"InvalidParameterCombination"}
    assert ids(alice.ec2("DescribeInstances")) == []


def test_one_byte_changed_anywhere_in_a_body_changes_nothing(alice: Cloud) -> None:
    body = signing.form("RunInstances", **RUN, ClientToken="once")
    headers = signing.sigv4(alice.key, alice.secret, body, alice.now_us())
    for at in range(len(body)):
        changed = body[:at] + ("0" if body[at] != "0" else "1") + body[at + 1 :]
        answer = alice.http.post("/", content=changed.encode(), headers=headers)
        assert (answer.status_code, code(answer)) == (403, "SignatureDoesNotMatch"), changed
    assert ids(alice.ec2("DescribeInstances")) == []
    assert ids(alice.http.post("/", content=body.encode(), headers=headers))

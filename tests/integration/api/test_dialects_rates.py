"""How often a key may ask: each dialect says so in the words that its clients wait upon, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api_in_hand import ApiInHand
from clouds_in_hand import ECS_RUN, RUN, Cloud, code, ids


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    found = ApiInHand(tmp_path)
    yield found
    found.close()


def limit(api: ApiInHand, of: str, burst: int) -> None:
    made = api.operator.put(f"/v1/rate-limits/{of}", json={"per_second": 0.01, "burst": burst})
    assert made.status_code == 200


def test_ec2_says_request_limit_exceeded_with_503(api: ApiInHand) -> None:
    alice, other = Cloud(api, "alice"), Cloud(api, "alice")
    limit(api, "read", 3)
    answers = [alice.ec2("DescribeRegions") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 503]
    assert code(answers[3]) == "RequestLimitExceeded"
    assert "try again in 100 s." in answers[3].text
    assert other.ec2("DescribeRegions").status_code == 200, "another key has a bucket of its own"


def test_ecs_says_throttling_with_400(api: ApiInHand) -> None:
    alice = Cloud(api, "alice")
    limit(api, "launch", 1)
    answers = [alice.ecs("RunInstances", **ECS_RUN) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert code(answers[1]) == "Throttling"
    assert alice.ecs("DescribeInstances").json()["TotalCount"] == 1, "and looking is counted apart"


@pytest.mark.parametrize(
    "action", ["StopInstances", "RebootInstances", "CreateTags", "PurchaseReservedInstancesOffering"]
)
def test_changes_have_a_bucket_of_their_own(api: ApiInHand, action: str) -> None:
    alice = Cloud(api, "alice")
    limit(api, "change", 1)
    assert code(alice.ec2(action)) != "RequestLimitExceeded"
    assert code(alice.ec2(action)) == "RequestLimitExceeded"
    assert ids(alice.ec2("RunInstances", **RUN))


def test_what_is_not_signed_right_uses_up_nobodys_requests(api: ApiInHand) -> None:
    alice = Cloud(api, "alice")
    limit(api, "read", 1)
    secret, alice.secret = alice.secret, "wrong"
    for _ in range(3):
        assert code(alice.ec2("DescribeRegions")) == "SignatureDoesNotMatch"
    alice.secret = secret
    assert alice.ec2("DescribeRegions").status_code == 200

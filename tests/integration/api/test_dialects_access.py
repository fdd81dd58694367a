"""What a tenant may do holds for EC2 and ECS clients as it does for everybody, and is told in their words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_in_hand import ApiInHand
from clouds_in_hand import ECS_RUN, RUN, Cloud, code, ids, states

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "NoQuarters",
            "Effect": "Deny",
            "Action": "ec2:RunInstances",
            "Resource": "*",
            "Condition": {"StringLike": {"ec2:InstanceType": "*-quarter"}},
        },
        {
            "Sid": "KeepWhatIsKept",
            "Effect": "Deny",
            "Action": ["ec2:TerminateInstances", "ec2:StopInstances"],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:ResourceTag/keep": "yes"}},
        },
    ],
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    yield api
    api.close()


@pytest.fixture
def alice(api: ApiInHand) -> Cloud:
    return Cloud(api, "alice")


@pytest.fixture
def bob(api: ApiInHand) -> Cloud:
    return Cloud(api, "bob")


def test_one_policy_holds_at_every_door_and_is_in_the_log(alice: Cloud, bob: Cloud, api: ApiInHand) -> None:
    tag = {"TagSpecification__1__ResourceType": "instance", "TagSpecification__1__Tag__1__Key": "keep"}
    kept = ids(alice.ec2("RunInstances", **RUN, **tag, TagSpecification__1__Tag__1__Value="yes"))[0]
    other = ids(alice.ec2("RunInstances", **RUN))[0]
    api.hand.settle()
    assert api.operator.put("/v1/policies/small", json={"document": json.dumps(POLICY)}).status_code == 200
    attached = {"policy": "small", "kind": "project", "subject": "alice"}
    assert api.operator.post("/v1/attachments", json=attached).status_code == 201
    refusals = [
        alice.ec2("RunInstances", **RUN),
        alice.ec2("RunInstances", **RUN, DryRun="true"),
        alice.ecs("RunInstances", **ECS_RUN),
        alice.ec2("StopInstances", InstanceId__1=other, InstanceId__2=kept),
        alice.ec2("TerminateInstances", InstanceId__1=kept, DryRun="true"),
        alice.ecs("StopInstance", InstanceId=kept),
        alice.ecs("DeleteInstances", InstanceId__1=kept, Force="true"),
    ]
    assert [code(one) for one in refusals[:3]] == ["UnauthorizedOperation", "UnauthorizedOperation", "Forbidden.RAM"]
    assert {code(one) for one in refusals[3:]} == {"UnauthorizedOperation", "Forbidden.RAM"}
    assert {one.status_code for one in refusals} == {403}
    api.hand.settle()
    assert states(alice.ec2("DescribeInstances")) == ["running", "running"]
    assert alice.ecs("StopInstance", InstanceId=other).status_code == 200
    assert ids(bob.ec2("RunInstances", **RUN))
    lines = api.operator.get("/v1/audit/export").text.split("\n")[1:-1]
    decided = [json.loads(line) for line in lines]
    denied = [(one["action"], one["statements"]) for one in decided if not one["allowed"]]
    assert ("ec2:RunInstances", ["small/NoQuarters"]) in denied
    assert ("ec2:StopInstances", ["small/KeepWhatIsKept"]) in denied
    assert ("ec2:TerminateInstances", ["small/KeepWhatIsKept"]) in denied
    assert ("ec2:StopInstances", True) in [(one["action"], one["allowed"]) for one in decided]


def test_a_quota_and_the_geography_are_told_in_each_dialects_words(alice: Cloud, api: ApiInHand) -> None:
    made = ids(alice.ec2("RunInstances", **RUN))[0]
    api.hand.settle()
    quota = {"kind": "project", "subject": "alice", "what": "card_share_ppm", "hard": 250_000}
    assert api.operator.put("/v1/quotas", json=quota).status_code == 204
    before = api.everything()["workloads"]
    assert code(alice.ec2("RunInstances", **RUN)) == "InstanceLimitExceeded"
    assert code(alice.ecs("RunInstances", **ECS_RUN)) == "QuotaExceed.ElasticQuota"
    assert alice.ec2("StopInstances", InstanceId__1=made).status_code == 200
    api.hand.settle()
    abroad = {"card_models": ["RTX4090"], "countries": ["de"]}
    assert api.operator.put("/v1/export-classes/eu", json=abroad).status_code == 204
    assert code(alice.ec2("RunInstances", **RUN)) == "UnauthorizedOperation"
    assert code(alice.ecs("RunInstances", **ECS_RUN)) == "Forbidden.RAM"
    assert code(alice.ec2("StartInstances", InstanceId__1=made)) == "UnauthorizedOperation"
    assert code(alice.ecs("StartInstance", InstanceId=made)) == "Forbidden.RAM"
    assert len(api.everything()["workloads"]) == len(before)
    assert states(alice.ec2("DescribeInstances")) == ["stopped"]

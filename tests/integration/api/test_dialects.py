"""EC2 and ECS over a hand-driven yard: one world, exactly once, tenants apart, and bad input in the dialect's own words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import signing
from api_in_hand import ApiInHand
from clouds_in_hand import ECS_RUN, RUN, Cloud, code, ids, states
from gpuyard.api.dialects import nouns
from gpuyard.api.ec2 import instances as ec2_instances
from gpuyard.api.ec2 import shapes
from gpuyard.api.ec2.dialect import OPERATIONS
from gpuyard.model.errors import YardError


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


def test_what_one_made_every_other_sees_and_can_stop(api: ApiInHand, alice: Cloud) -> None:
    by_ec2 = ids(alice.ec2("RunInstances", **RUN))[0]
    by_ecs = alice.ecs("RunInstances", **ECS_RUN).json()["InstanceIdSets"]["InstanceIdSet"][0]
    wish = {"kind": "instance", "name": "box", "slices": {"offer": "rtx4090-quarter"}}
    by_rest = "i-" + api.alice.post("/v1/workloads", json=wish).json()["id"][3:]
    made = {by_ec2, by_ecs, by_rest}
    api.hand.settle()
    assert set(ids(alice.ec2("DescribeInstances"))) == made
    shown = alice.ecs("DescribeInstances").json()["Instances"]["Instance"]
    assert {(one["InstanceId"], one["Status"]) for one in shown} == {(one, "Running") for one in made}
    assert {"i-" + one["id"][3:] for one in api.alice.get("/v1/workloads").json()["items"]} == made
    assert alice.ecs("StopInstance", InstanceId=by_ec2).status_code == 200
    assert ids(alice.ec2("StopInstances", InstanceId__1=by_rest)) == [by_rest]
    assert api.alice.post(f"/v1/workloads/wl-{by_ecs[2:]}/stop").status_code == 202
    api.hand.settle()
    assert states(alice.ec2("DescribeInstances")) == ["stopped"] * 3
    assert alice.ecs("DeleteInstances", InstanceId__1=by_ec2, InstanceId__2=by_ecs).status_code == 200
    assert states(alice.ec2("TerminateInstances", InstanceId__1=by_rest)) == []
    api.hand.settle()
    assert ids(alice.ec2("DescribeInstances")) == []
    assert states(alice.ec2("DescribeInstances", InstanceId__1=by_ec2)) == ["terminated"]


def test_one_client_token_makes_one_launch_however_often_it_is_sent(alice: Cloud) -> None:
    wish = {**RUN, "MaxCount": "3", "ClientToken": "once"}
    first = ids(alice.ec2("RunInstances", **wish))
    assert len(first) == 3
    assert ids(alice.ec2("RunInstances", **wish)) == first
    assert code(alice.ec2("RunInstances", **{**wish, "MaxCount": "2"})) == "IdempotentParameterMismatch"
    assert len(ids(alice.ec2("DescribeInstances"))) == 3
    again = [alice.ecs("RunInstances", **ECS_RUN, ClientToken="once").json()["InstanceIdSets"] for _ in range(2)]
    assert again[0] == again[1]
    assert len(ids(alice.ec2("DescribeInstances"))) == 4


def test_a_yard_that_was_started_anew_launches_nothing_twice_for_a_replayed_nonce(alice: Cloud) -> None:
    params = alice.signed("RunInstances", **ECS_RUN)
    first = alice.http.post("/", params=params)
    assert first.status_code == 200
    assert code(alice.http.post("/", params=params)) == "SignatureNonceUsed"
    from gpuyard.api.app import About, build

    anew = TestClient(build(alice.api.hand.yard, About("", "", "sqlite")), raise_server_exceptions=False)
    replayed = anew.post("/", params=params)
    assert replayed.json()["InstanceIdSets"] == first.json()["InstanceIdSets"]
    assert len(ids(alice.ec2("DescribeInstances"))) == 1


def test_after_a_launch_is_committed_nothing_answers_5xx(alice: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("cannot be shown")

    monkeypatch.setattr(ec2_instances.views, "instance", broken)
    answer = alice.ec2("RunInstances", **RUN)
    monkeypatch.undo()
    assert ids(answer) == ids(alice.ec2("DescribeInstances"))


def test_a_key_whose_use_cannot_be_written_down_still_gets_its_answer(
    alice: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise YardError("storage_full", what="the database")

    monkeypatch.setattr("gpuyard.store.access_keys.used", full)
    assert len(ids(alice.ec2("RunInstances", **RUN))) == 1


def test_before_the_commit_a_failure_is_5xx_and_changed_nothing(alice: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise YardError("storage_full", what="the database")

    monkeypatch.setattr("gpuyard.control.launching.idempotency.remember", full)
    assert alice.ec2("RunInstances", **RUN, ClientToken="t").status_code == 503
    assert alice.ecs("RunInstances", **ECS_RUN).status_code == 503
    monkeypatch.undo()
    assert ids(alice.ec2("DescribeInstances")) == []


def test_another_tenants_instance_is_as_good_as_none(alice: Cloud, bob: Cloud, api: ApiInHand) -> None:
    hers = ids(alice.ec2("RunInstances", **RUN))[0]
    operator = Cloud(api, "operators", "operator")
    before = api.everything()
    for other in (bob, operator):
        for action in ("DescribeInstances", "StartInstances", "StopInstances", "TerminateInstances"):
            assert code(other.ec2(action, InstanceId__1=hers)) == "InvalidInstanceID.NotFound"
        tags = {"ResourceId__1": hers, "Tag__1__Key": "a", "Tag__1__Value": "b"}
        assert code(other.ec2("CreateTags", **tags)) == "InvalidInstanceID.NotFound"
        assert code(other.ecs("StopInstance", InstanceId=hers)) == "InvalidInstanceId.NotFound"
        assert code(other.ecs("DeleteInstance", InstanceId=hers, Force="true")) == "InvalidInstanceId.NotFound"
        assert other.ecs("DescribeInstances", InstanceIds=f'["{hers}"]').json()["TotalCount"] == 0
    # Only that the keys were used was written down.
    assert {**api.everything(), "access_keys": []} == {**before, "access_keys": []}


def test_a_viewer_looks_and_changes_nothing(api: ApiInHand) -> None:
    viewer = Cloud(api, "alice", "viewer")
    assert ids(viewer.ec2("DescribeInstances")) == []
    assert code(viewer.ec2("RunInstances", **RUN)) == "UnauthorizedOperation"
    assert code(viewer.ec2("RunInstances", **RUN, DryRun="true")) == "UnauthorizedOperation"
    assert code(viewer.ecs("RunInstances", **ECS_RUN)) == "Forbidden.RAM"


def test_a_dry_run_says_412_and_launches_nothing(alice: Cloud) -> None:
    answer = alice.ec2("RunInstances", **RUN, DryRun="true")
    assert (answer.status_code, code(answer)) == (412, "DryRunOperation")
    assert code(alice.ecs("RunInstances", **ECS_RUN, DryRun="True")) == "DryRunOperation"
    assert code(alice.ec2("RunInstances", **{**RUN, "InstanceType": "none"}, DryRun="true")) == "InvalidParameterValue"
    assert ids(alice.ec2("DescribeInstances")) == []


def test_more_than_fits_is_refused_and_what_fits_between_is_launched(alice: Cloud) -> None:
    assert (
        code(alice.ec2("RunInstances", **{**RUN, "MinCount": "9", "MaxCount": "9"})) == "InsufficientInstanceCapacity"
    )
    assert len(ids(alice.ec2("RunInstances", **{**RUN, "MinCount": "2", "MaxCount": "9"}))) == 8


def test_a_revoked_key_is_worthless_at_once(alice: Cloud, api: ApiInHand) -> None:
    assert alice.ec2("DescribeInstances").status_code == 200
    assert api.operator.delete(f"/v1/access-keys/{alice.key}").status_code == 204
    assert code(alice.ec2("DescribeInstances")) == "AuthFailure"
    assert code(alice.ecs("DescribeInstances")) == "InvalidAccessKeyId.NotFound"
    assert alice.secret not in repr(api.everything())


def test_a_secret_never_lies_in_the_database(alice: Cloud, api: ApiInHand) -> None:
    rows = api.everything()["access_keys"]
    assert len(rows) == 1
    assert alice.secret not in repr(api.everything())
    assert alice.secret not in api.operator.get("/v1/access-keys").text


def test_tags_of_any_text_come_back_and_are_found(alice: Cloud) -> None:
    odd = "训练/a*b~c+d <&>"
    tags = {"TagSpecification__1__ResourceType": "instance", "TagSpecification__1__Tag__1__Key": "team"}
    mine = ids(alice.ec2("RunInstances", **RUN, **tags, TagSpecification__1__Tag__1__Value=odd))[0]
    found = {"Filter__1__Name": "tag:team", "Filter__1__Value__1": odd.replace("*", "?")}
    assert ids(alice.ec2("DescribeInstances", **found)) == [mine]
    listed = alice.ecs("ListTagResources", ResourceId__1=mine).json()["TagResources"]["TagResource"]
    assert odd in {one["TagValue"] for one in listed}
    assert alice.ecs("UntagResources", ResourceId__1=mine, TagKey__1="team").status_code == 200
    assert ids(alice.ec2("DescribeInstances", **found)) == []


def test_pages_follow_one_another(alice: Cloud) -> None:
    made = set(ids(alice.ec2("RunInstances", **{**RUN, "MaxCount": "5", "MinCount": "5"})))
    seen: list[str] = []
    token = ""
    while True:
        given = {"MaxResults": "2"} | ({"NextToken": token} if token else {})
        answer = alice.ec2("DescribeInstances", **given)
        seen += ids(answer)
        token = "".join(re.findall(r"<nextToken>(.*?)</nextToken>", answer.text))
        if not token:
            break
    assert (len(seen), set(seen)) == (5, made)
    assert code(alice.ec2("DescribeInstances", MaxResults="2", NextToken="bogus")) == "InvalidNextToken"


BAD = {
    "no action": ("Version=2016-11-15", "UnsupportedOperation"),
    "an action that there is not": ("Action=MakeCoffee&Version=2016-11-15", "UnsupportedOperation"),
    "an action that is not served": ("Action=AllocateAddress&Version=2016-11-15", "UnsupportedOperation"),
    "an unknown parameter": ("Action=DescribeInstances&Version=2016-11-15&Bogus=1", "UnknownParameter"),
    "a value where a list is": ("Action=DescribeInstances&Version=2016-11-15&InstanceId=i-1", "InvalidParameterValue"),
    "a list of odd numbers": ("Action=DescribeInstances&Version=2016-11-15&InstanceId.x=i-1", "InvalidParameterValue"),
    "a parameter twice": (
        "Action=DescribeInstances&Version=2016-11-15&MaxResults=5&MaxResults=6",
        "InvalidParameterCombination",
    ),
    "a word for a number": ("Action=DescribeInstances&Version=2016-11-15&MaxResults=x", "InvalidParameterValue"),
    "an unknown filter": (
        "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=x&Filter.1.Value.1=y",
        "InvalidParameterValue",
    ),
    "no type": ("Action=RunInstances&Version=2016-11-15&ImageId=ami-host&MinCount=1&MaxCount=1", "MissingParameter"),
    "spot": (
        signing.form("RunInstances", **RUN, InstanceMarketOptions__MarketType="capacity-block"),
        "UnsupportedOperation",
    ),
    "a disk with a key of the tenant's": (
        signing.form("RunInstances", **RUN, BlockDeviceMapping__1__Ebs__Encrypted="true"),
        "UnsupportedOperation",
    ),
    "a confidential machine": (
        signing.form("RunInstances", **RUN, CpuOptions__AmdSevSnp="enabled"),
        "UnsupportedOperation",
    ),
    "an enclave": (signing.form("RunInstances", **RUN, EnclaveOptions__Enabled="true"), "UnsupportedOperation"),
    "user data that is no base64": (signing.form("RunInstances", **RUN, UserData="%%"), "InvalidUserData.Malformed"),
    "a key pair that there is not": (signing.form("RunInstances", **RUN, KeyName="none"), "InvalidKeyPair.NotFound"),
    "another version": ("Action=DescribeInstances&Version=2010-01-01", "InvalidParameterValue"),
    "no unicode": ("Action=DescribeInstances&Version=2016-11-15&NextToken=%FF%FE", "IncompleteSignature"),
    "a nul": ("Action=DescribeInstances&Version=2016-11-15&NextToken=%00", "IncompleteSignature"),
    "ten thousand parameters": (
        "Action=DescribeInstances&" + "&".join(f"InstanceId.{n}=i-1" for n in range(10_000)),
        "IncompleteSignature",
    ),
    "deep names": ("Action=DescribeInstances&Version=2016-11-15&" + "a." * 5000 + "=1", "UnknownParameter"),
    "too large": ("Action=DescribeInstances&Version=2016-11-15&NextToken=" + "a" * 300_000, "RequestEntityTooLarge"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_told_in_ec2s_own_words_and_changes_nothing(alice: Cloud, api: ApiInHand, what: str) -> None:
    alice.ec2("DescribeInstances")
    before = api.everything()
    body, expected = BAD[what]
    answer = alice.post(body)
    assert answer.headers["content-type"].startswith("text/xml"), answer.text
    assert (code(answer), 400 <= answer.status_code < 500) == (expected, True), answer.text
    assert api.everything() == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"Amount": "x"}, "InvalidParameter.Amount"),
        ({"Amount": "101"}, "InvalidParameter.Amount"),
        ({"InstanceType": ""}, "MissingParameter.InstanceType"),
        ({"InstanceType": "ecs.none"}, "InvalidInstanceType.NotFound"),
        ({"ImageId": "No Such!"}, "InvalidImageId.NotFound"),
        ({"SpotStrategy": "Cheap"}, "InvalidSpotStrategy.ValueNotSupported"),
        ({"SystemDisk__Encrypted": "true"}, "InvalidParameter.EncryptedNotSupported"),
        ({"SecurityOptions__ConfidentialComputingMode": "TDX"}, "InvalidParameter.NotSupported"),
        ({"DryRun": "perhaps"}, "InvalidParameter.DryRun"),
        ({"UserData": "%%"}, "InvalidUserData.Base64FormatInvalid"),
        ({"KeyPairName": "none"}, "InvalidKeyPairName.NotFound"),
        ({"ClientToken": "é"}, "InvalidClientToken.Malformed"),
    ],
)
def test_bad_input_is_told_in_ecs_own_words_and_changes_nothing(
    alice: Cloud, api: ApiInHand, given: dict[str, str], expected: str
) -> None:
    alice.ecs("DescribeInstances")
    before = api.everything()
    answer = alice.ecs("RunInstances", **{**ECS_RUN, **given})
    assert (code(answer), 400 <= answer.status_code < 500) == (expected, True), answer.text
    assert {"RequestId", "HostId", "Code", "Message"} <= answer.json().keys()
    assert api.everything() == before


def test_a_wrong_secret_gets_the_string_that_was_signed_after_one_colon(alice: Cloud) -> None:
    params = alice.signed("DescribeRegions")
    wrong = {**params, "Signature": "AAAA"}
    answer = alice.http.post("/", params=wrong).json()
    assert answer["Code"] == "SignatureDoesNotMatch"
    assert answer["Message"].split(":", 1)[1].startswith("POST&%2F&AccessKeyId%3D")
    assert alice.secret not in answer["Message"]


def test_ecs_writes_xml_where_no_format_is_named(alice: Cloud) -> None:
    alice.ecs("RunInstances", **{**ECS_RUN, "Amount": "2"})
    answer = alice.ecs("DescribeInstances", Format="XML")
    root = ET.fromstring(answer.content)
    assert root.tag == "DescribeInstancesResponse"
    assert len(root.findall("Instances/Instance/InstanceId")) == 2
    assert ET.fromstring(alice.ecs("DescribeInstances", Format="XML", Status="No").content).tag == "Error"


def test_ecs_takes_its_parameters_from_query_and_form_by_get_and_post(alice: Cloud) -> None:
    now_us = alice.now_us()
    by_get = signing.acs_v1(alice.key, alice.secret, "DescribeRegions", now_us, "GET")
    assert alice.http.get("/", params=by_get).status_code == 200
    by_form = alice.signed("DescribeRegions")
    assert alice.http.post("/", data=by_form).status_code == 200
    mixed = list(alice.signed("DescribeRegions").items())
    assert alice.http.post("/", params=dict(mixed[:4]), data=dict(mixed[4:])).status_code == 200


def test_a_slice_is_told_as_a_part_of_a_card(alice: Cloud) -> None:
    answer = alice.ec2("DescribeInstanceTypes", InstanceType__1="rtx4090-quarter")
    gpu = {e.tag.partition("}")[2]: e.text for e in ET.fromstring(answer.content).iter()}
    assert (gpu["count"], gpu["logicalGpuCount"], gpu["gpuPartitionSize"]) == ("0", "1", "0.25")
    whole = alice.ecs("DescribeInstanceTypes", InstanceTypes__1="rtx4090-full").json()["InstanceTypes"]["InstanceType"]
    assert (whole[0]["GPUAmount"], whole[0]["GPUMemorySize"]) == (1, 24.0)
    price = alice.ecs("DescribePrice", InstanceType="rtx4090-quarter").json()["PriceInfo"]["Price"]
    assert price["TradePrice"] > 0


def test_sts_says_who_asks(alice: Cloud) -> None:
    answer = alice.post("Action=GetCallerIdentity&Version=2011-06-15", "sts")
    assert alice.key in answer.text
    assert "GetCallerIdentityResult" in answer.text


def test_what_is_not_signed_is_told_so_and_pages_are_left_alone(api: ApiInHand) -> None:
    plain = TestClient(api.app, raise_server_exceptions=False)
    assert code(plain.post("/", content=b"Action=DescribeInstances")) == "MissingAuthenticationToken"
    assert plain.get("/").status_code == 404
    assert plain.get("/").headers["content-type"] == "application/problem+json"


def test_user_data_and_a_key_pair_reach_the_instance_and_lie_sealed(alice: Cloud, api: ApiInHand) -> None:
    import base64

    assert "PRIVATE KEY" in alice.ec2("CreateKeyPair", KeyName="k", KeyType="ed25519").text
    script = "#!/bin/sh\necho secret-word\n"
    given = {"UserData": base64.b64encode(script.encode()).decode(), "KeyName": "k"}
    mine = ids(alice.ec2("RunInstances", **RUN, **given))[0]
    shown = api.alice.get(f"/v1/workloads/{nouns.inside(mine)}").json()["spec"]
    assert shown["secret_names"] == [nouns.USER_DATA]
    assert shown["environment"][nouns.PUBLIC_KEY].startswith("ssh-ed25519 ")
    assert "secret-word" not in repr(api.everything())
    assert "<keyName>k</keyName>" in alice.ec2("DescribeInstances").text


def test_every_operation_has_its_shapes_and_every_shape_its_operation() -> None:
    assert set(OPERATIONS) == set(shapes.operations())


def test_every_describe_action_answers_an_empty_request(alice: Cloud) -> None:
    from gpuyard.api.ecs.dialect import OPERATIONS as OF_ECS

    alice.ec2("RunInstances", **RUN)
    for action in OPERATIONS:
        if action.startswith("Describe") and action != "DescribeInstanceAttribute":
            answer = alice.ec2(action)
            assert answer.status_code == 200, answer.text
            ET.fromstring(answer.content)
    for action in OF_ECS:
        if action.startswith("Describe") and action != "DescribePrice":
            assert alice.ecs(action).status_code == 200, action

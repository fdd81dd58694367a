"""Spot and reservations over both dialects: what is asked for is what the yard does, or it is refused in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import signing
from api_in_hand import ApiInHand
from clouds_in_hand import ECS_RUN, RUN, Cloud, code, ids, states
from gpuyard.model.times import to_text
from gpuyard.store import commitments as stored

SECOND = 1_000_000
SPOT = {"InstanceMarketOptions.MarketType": "spot"}
OPTION = "InstanceMarketOptions.SpotOptions."


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    found = ApiInHand(tmp_path, "1xRTX4090")
    yield found
    found.close()


@pytest.fixture
def alice(api: ApiInHand) -> Cloud:
    return Cloud(api, "alice")


def one(text: str, name: str) -> str:
    found = re.findall(rf"<{name}>([^<]*)</{name}>", text)
    assert len(found) == 1, (name, text)
    return found[0]


def lease(api: ApiInHand, instance: str) -> dict[str, object]:
    return api.alice.get(f"/v1/workloads/wl-{instance[2:]}").json()["leases"][0]


def take_back(api: ApiInHand) -> None:
    """Somebody on demand wants the whole card, once everything on spot has run for its minimum."""
    api.hand.clock.advance(700 * SECOND)
    made = api.bob.post("/v1/workloads", json={"kind": "instance", "slices": {"offer": "rtx4090-full"}})
    assert made.status_code == 201
    for _ in range(60):
        api.hand.clock.advance(5 * SECOND)
        api.hand.settle()


def test_a_spot_launch_over_ec2_is_on_spot_and_goes_with_its_slices(api: ApiInHand, alice: Cloud) -> None:
    answer = alice.ec2("RunInstances", **RUN, **SPOT)
    made = ids(answer)[0]
    assert one(answer.text, "instanceLifecycle") == "spot"
    assert one(answer.text, "spotInstanceRequestId") == f"sir-{made[2:]}"
    api.hand.settle()
    assert lease(api, made)["option"] == "spot"
    assert api.alice.get(f"/v1/workloads/wl-{made[2:]}").json()["spec"]["when_reclaimed"] == "remove"
    take_back(api)
    assert states(alice.ec2("DescribeInstances", **{"InstanceId.1": made})) == ["terminated"]
    told = alice.ec2("DescribeSpotInstanceRequests", **{"SpotInstanceRequestId.1": f"sir-{made[2:]}"}).text
    assert (one(told, "state"), one(told, "code")) == ("closed", "instance-terminated-no-capacity")
    assert api.hand.runtime.disks() == {disk for disk in api.hand.runtime.disks() if made[2:] not in disk}


def test_a_persistent_one_waits_and_runs_again_on_its_disk(api: ApiInHand, alice: Cloud) -> None:
    lasting = {f"{OPTION}SpotInstanceType": "persistent", f"{OPTION}InstanceInterruptionBehavior": "stop"}
    made = ids(alice.ec2("RunInstances", **RUN, **SPOT, **lasting))[0]
    api.hand.settle()
    take_back(api)
    named = {"SpotInstanceRequestId.1": f"sir-{made[2:]}"}
    told = alice.ec2("DescribeSpotInstanceRequests", **named).text
    assert (one(told, "state"), one(told, "code")) == ("open", "instance-stopped-no-capacity")
    assert any(made[2:] in disk for disk in api.hand.runtime.disks())
    assert alice.ec2("CancelSpotInstanceRequests", **named).status_code == 200
    api.hand.settle()
    assert states(alice.ec2("DescribeInstances", **{"InstanceId.1": made})) == ["stopped"]
    assert any(made[2:] in disk for disk in api.hand.runtime.disks())


def test_ecs_says_terminate_or_stop(api: ApiInHand, alice: Cloud) -> None:
    made: list[str] = []
    for behaviour in ({}, {"SpotInterruptionBehavior": "Stop"}):
        answer = alice.ecs("RunInstances", **ECS_RUN, SpotStrategy="SpotAsPriceGo", **behaviour)
        made += answer.json()["InstanceIdSets"]["InstanceIdSet"]
    api.hand.settle()
    shown = alice.ecs("DescribeInstances").json()["Instances"]["Instance"]
    assert {row["SpotStrategy"] for row in shown} == {"SpotAsPriceGo"}
    take_back(api)
    shown = alice.ecs("DescribeInstances").json()["Instances"]["Instance"]
    assert [(row["InstanceId"], row["Status"]) for row in shown] == [(made[1], "Pending")]


def test_a_limit_is_a_bid_that_the_lease_is_held_to_and_that_both_dialects_tell(api: ApiInHand, alice: Cloud) -> None:
    (first,) = ids(alice.ec2("RunInstances", **RUN, **SPOT, **{f"{OPTION}MaxPrice": "0.5"}))
    limited = {"SpotStrategy": "SpotWithPriceLimit", "SpotPriceLimit": "0.5"}
    assert alice.ecs("RunInstances", **ECS_RUN, **limited).status_code == 200
    spec = api.alice.get(f"/v1/workloads/wl-{first[2:]}").json()["spec"]
    assert (spec["option"], spec["max_price"]) == ("spot", "0.50")
    told = alice.ec2("DescribeSpotInstanceRequests", **{"SpotInstanceRequestId.1": f"sir-{first[2:]}"}).text
    assert one(told, "spotPrice") == "0.50"
    shown = alice.ecs("DescribeInstances").json()["Instances"]["Instance"]
    assert {(row["SpotStrategy"], row["SpotPriceLimit"]) for row in shown} == {("SpotWithPriceLimit", 0.5)}


@pytest.mark.parametrize("in_force", [None, 600_000_000], ids=["what spot can come down to", "the price in force"])
def test_a_limit_below_what_spot_costs_is_refused_as_the_clouds_do_and_nothing_launched(
    api: ApiInHand, alice: Cloud, in_force: int | None
) -> None:
    limit = "0.0001"
    if in_force is not None:
        limit, api.hand.yard.spot_prices = "0.5", {RUN["InstanceType"]: in_force}
    refused = alice.ec2("RunInstances", **RUN, **SPOT, **{f"{OPTION}MaxPrice": limit})
    assert code(refused) == "SpotMaxPriceTooLow"
    limited = {"SpotStrategy": "SpotWithPriceLimit", "SpotPriceLimit": limit}
    assert code(alice.ecs("RunInstances", **ECS_RUN, **limited)) == "InvalidSpotPriceLimit.LowerThanPublicPrice"
    assert ids(alice.ec2("DescribeInstances")) == []


def test_a_spot_request_below_the_price_waits_for_it(api: ApiInHand, alice: Cloud) -> None:
    api.hand.yard.spot_prices = {RUN["InstanceType"]: 600_000_000}
    wish = {"LaunchSpecification.ImageId": "ami-host", "LaunchSpecification.InstanceType": RUN["InstanceType"]}
    (made,) = re.findall("sir-[0-9a-z]+", alice.ec2("RequestSpotInstances", SpotPrice="0.5", **wish).text)
    told = alice.ec2("DescribeSpotInstanceRequests", **{"SpotInstanceRequestId.1": made}).text
    assert (one(told, "state"), one(told, "code")) == ("open", "price-too-low")
    api.hand.settle()  # nobody else bids: the price comes down
    told = alice.ec2("DescribeSpotInstanceRequests", **{"SpotInstanceRequestId.1": made}).text
    assert (one(told, "state"), one(told, "code")) == ("active", "fulfilled")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"MarketType": "capacity-block"}, "UnsupportedOperation"),
        ({"SpotOptions.MaxPrice": "cheap"}, "InvalidParameterValue"),
        ({"SpotOptions.MaxPrice": "-1"}, "InvalidParameterValue"),
        ({"SpotOptions.BlockDurationMinutes": "60"}, "UnsupportedOperation"),
        ({"SpotOptions.InstanceInterruptionBehavior": "hibernate"}, "UnsupportedOperation"),
        ({"SpotOptions.SpotInstanceType": "persistent", "SpotOptions.InstanceInterruptionBehavior": "terminate"},
         "UnsupportedOperation"),
    ],
    ids=["capacity block", "no price", "negative", "block", "hibernate", "persistent and terminate"],
)  # fmt: skip
def test_what_spot_cannot_do_here_is_refused_and_nothing_launched(
    alice: Cloud, given: dict[str, str], told: str
) -> None:
    asked = {f"InstanceMarketOptions.{name}": value for name, value in given.items()}
    assert code(alice.ec2("RunInstances", **{**RUN, **SPOT, **asked})) == told
    assert ids(alice.ec2("DescribeInstances")) == []


def test_a_request_waits_for_room_and_is_met_or_cancelled(api: ApiInHand, alice: Cloud) -> None:
    whole = {"ImageId": "ami-host", "InstanceType": "rtx4090-full", "MinCount": "1", "MaxCount": "1"}
    holds = ids(alice.ec2("RunInstances", **whole))
    api.hand.settle()
    wish = {"LaunchSpecification.ImageId": "ami-host", "LaunchSpecification.InstanceType": "rtx4090-full"}
    made = alice.ec2("RequestSpotInstances", InstanceCount="2", ClientToken="t", **wish)
    again = alice.ec2("RequestSpotInstances", InstanceCount="2", ClientToken="t", **wish)
    requests = re.findall("sir-[0-9a-z]+", made.text)
    assert len(requests) == 2
    assert re.findall("sir-[0-9a-z]+", again.text) == requests
    api.hand.settle()
    told = alice.ec2("DescribeSpotInstanceRequests").text
    assert re.findall("<state>([a-z]+)</state>", told) == ["open", "open"]
    assert set(re.findall("<code>([a-z-]+)</code>", told)) == {"capacity-not-available"}
    assert alice.ec2("CancelSpotInstanceRequests", **{"SpotInstanceRequestId.1": requests[1]}).status_code == 200
    alice.ec2("TerminateInstances", **{"InstanceId.1": holds[0]})
    api.hand.settle()
    both = {f"SpotInstanceRequestId.{n}": request for n, request in enumerate(requests, 1)}
    told = alice.ec2("DescribeSpotInstanceRequests", **both).text
    assert re.findall("<state>([a-z]+)</state>", told) == ["active", "cancelled"]
    assert re.findall("<code>([a-z-]+)</code>", told) == ["fulfilled", "canceled-before-fulfillment"]
    assert alice.ec2("CancelSpotInstanceRequests", **{"SpotInstanceRequestId.1": requests[0]}).status_code == 200
    api.hand.settle()
    told = alice.ec2("DescribeSpotInstanceRequests", **{"SpotInstanceRequestId.1": requests[0]}).text
    assert (one(told, "state"), one(told, "code")) == ("cancelled", "request-canceled-and-instance-running")
    assert states(alice.ec2("DescribeInstances")) == ["running"]


def test_another_tenants_request_is_as_good_as_none(api: ApiInHand, alice: Cloud) -> None:
    made = ids(alice.ec2("RunInstances", **RUN, **SPOT))[0]
    demand = ids(alice.ec2("RunInstances", **RUN))[0]
    bob = Cloud(api, "bob")
    missing = "InvalidSpotInstanceRequestID.NotFound"
    for action in ("DescribeSpotInstanceRequests", "CancelSpotInstanceRequests"):
        assert code(bob.ec2(action, **{"SpotInstanceRequestId.1": f"sir-{made[2:]}"})) == missing
        assert code(alice.ec2(action, **{"SpotInstanceRequestId.1": f"sir-{demand[2:]}"})) == missing


def test_both_dialects_tell_the_yards_own_spot_prices(api: ApiInHand, alice: Cloud) -> None:
    now_us = api.hand.clock.now_us()
    with api.hand.yard.store.write() as c:
        for minutes, nano in ((300, 40_000_000), (200, 42_000_000), (100, 41_000_000)):
            stored.add_round(c, "rtx4090-quarter", now_us - minutes * 60 * SECOND, nano, "{}")
    known = api.operator.get("/v1/spot/prices", params={"offer": "rtx4090-quarter"}).json()["items"]
    assert known
    told = alice.ec2("DescribeSpotPriceHistory", **{"InstanceType.1": "rtx4090-quarter"}).text
    assert re.findall("<spotPrice>([0-9.]+)</spotPrice>", told) == [each["price"] for each in reversed(known)]
    rows = alice.ecs("DescribeSpotPriceHistory", InstanceType="rtx4090-quarter", NetworkType="vpc").json()
    assert [row["SpotPrice"] for row in rows["SpotPrices"]["SpotPriceType"]] == [
        float(each["price"]) for each in reversed(known)
    ]
    middle = to_text(now_us - 150 * 60 * SECOND)
    told = alice.ec2("DescribeSpotPriceHistory", **{"InstanceType.1": "rtx4090-quarter", "StartTime": middle}).text
    assert re.findall("<spotPrice>([0-9.]+)</spotPrice>", told) == ["0.041", "0.042"], (
        "the one in force then, and after"
    )
    told = alice.ec2("DescribeSpotPriceHistory", **{"InstanceType.1": "rtx4090-half"}).text
    assert one(told, "spotPrice") == "0.12", "the book's, where the market never moved"
    late = alice.ec2(
        "DescribeSpotPriceHistory", **{"InstanceType.1": "rtx4090-quarter", "StartTime": "2099-01-01T00:00:00Z"}
    ).text
    assert re.findall("<spotPrice>([0-9.]+)</spotPrice>", late) == [known[-1]["price"]]
    assert code(alice.ec2("DescribeSpotPriceHistory", StartTime="yesterday")) == "InvalidParameterValue"


def test_a_reservation_is_offered_bought_listed_and_is_the_yards_commitment(api: ApiInHand, alice: Cloud) -> None:
    buyer = Cloud(api, "alice", role="operator")
    asked = {"InstanceType": "rtx4090-half", "OfferingType": "No Upfront", "MaxDuration": "31536000"}
    told = alice.ec2("DescribeReservedInstancesOfferings", **asked).text
    offering = one(told, "reservedInstancesOfferingId")
    assert one(told, "duration") == "31536000"
    assert one(told, "fixedPrice") == "0.00"
    wish = {"ReservedInstancesOfferingId": offering, "InstanceCount": "3"}
    made = one(buyer.ec2("PurchaseReservedInstancesOffering", **wish).text, "reservedInstancesId")
    kept = api.alice.get("/v1/commitments").json()["items"]
    assert [(each["id"], each["offer"], each["years"]) for each in kept] == [(made, "rtx4090-half", 1)]
    shown = alice.ec2("DescribeReservedInstances").text
    assert (one(shown, "instanceCount"), one(shown, "instanceType")) == ("3", "rtx4090-half")
    assert one(shown, "amount") == one(told, "amount")
    rows = alice.ecs("DescribeReservedInstances").json()["ReservedInstances"]["ReservedInstance"]
    assert [(row["ReservedInstanceId"], row["InstanceAmount"]) for row in rows] == [(made, 3)]


def test_a_member_buys_only_where_a_policy_says_so(api: ApiInHand, alice: Cloud) -> None:
    wish = {"ReservedInstancesOfferingId": "rtx4090-half.1y.none", "InstanceCount": "1"}
    assert code(alice.ec2("PurchaseReservedInstancesOffering", **wish)) == "UnauthorizedOperation"
    by_ecs = {"InstanceType": "ecs.rtx4090-half", "OfferingType": "No Upfront", "ClientToken": "once"}
    assert code(alice.ecs("PurchaseReservedInstancesOffering", **by_ecs)) == "Forbidden.RAM"
    assert api.alice.get("/v1/commitments").json()["items"] == []
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ec2:PurchaseReservedInstancesOffering", "Resource": "*"}],
    }
    assert api.operator.put("/v1/policies/buys", json={"document": json.dumps(document)}).status_code == 200
    attached = {"kind": "project", "subject": "alice", "policy": "buys"}
    assert api.operator.post("/v1/attachments", json=attached).status_code == 201
    assert alice.ec2("PurchaseReservedInstancesOffering", **wish).status_code == 200
    first, again = (alice.ecs("PurchaseReservedInstancesOffering", **by_ecs).json() for _ in range(2))
    assert first["ReservedInstanceIdSets"] == again["ReservedInstanceIdSets"]
    assert len(api.alice.get("/v1/commitments").json()["items"]) == 2
    other = {**by_ecs, "InstanceAmount": "2"}
    assert code(alice.ecs("PurchaseReservedInstancesOffering", **other)) == "IdempotentParameterMismatch"


def bought(buyer: Cloud, call: str | None = None, **given: str) -> str:
    wish = {"ReservedInstancesOfferingId": "rtx4090-half.1y.all", "InstanceCount": "1", **given}
    return one(buyer.ec2("PurchaseReservedInstancesOffering", call=call, **wish).text, "reservedInstancesId")


def test_a_purchase_that_an_sdk_sends_again_buys_once_however_late_and_a_new_one_buys_again(api: ApiInHand) -> None:
    buyer = Cloud(api, "alice", role="operator")
    first = bought(buyer, "call-1")
    for pause_s in (1, 300, 86_400):  # each is signed anew
        api.hand.clock.advance(pause_s * SECOND)
        assert bought(buyer, "call-1") == first
    assert bought(buyer, "call-2") != first
    assert len(api.alice.get("/v1/commitments").json()["items"]) == 2
    wish = {"ReservedInstancesOfferingId": "rtx4090-half.1y.all", "InstanceCount": "2"}
    refused = buyer.ec2("PurchaseReservedInstancesOffering", call="call-1", **wish)
    assert code(refused) == "IdempotentParameterMismatch"
    other = Cloud(api, "bob", role="operator")
    assert bought(other, "call-1") not in {first, ""}  # what somebody else calls it is not the same call


def test_a_purchase_that_was_overheard_buys_nothing_whatever_is_said_beside_the_signature(api: ApiInHand) -> None:
    buyer = Cloud(api, "alice", role="operator")
    body = signing.form(
        "PurchaseReservedInstancesOffering",
        ReservedInstancesOfferingId="rtx4090-half.1y.all",
        InstanceCount="1",
    )
    headers = signing.sigv4(buyer.key, buyer.secret, body, buyer.now_us())
    told: set[str] = set()
    for call in (None, "call-1", "call-2", "", "x" * 65):
        more = {} if call is None else {"amz-sdk-invocation-id": call}
        answer = buyer.http.post("/", content=body.encode(), headers={**headers, **more})
        told.add(one(answer.text, "reservedInstancesId"))
        api.hand.clock.advance(200 * SECOND)
    assert len(told) == 1
    assert len(api.alice.get("/v1/commitments").json()["items"]) == 1


def test_of_a_client_that_names_no_call_the_same_purchase_within_minutes_is_one(api: ApiInHand) -> None:
    buyer = Cloud(api, "alice", role="operator")
    first = bought(buyer)
    api.hand.clock.advance(110 * SECOND)
    assert bought(buyer) == first
    assert bought(buyer, InstanceCount="2") != first
    api.hand.clock.advance(241 * SECOND)
    assert bought(buyer) != first
    assert len(api.alice.get("/v1/commitments").json()["items"]) == 3


def test_a_launch_without_a_token_that_an_sdk_sends_again_launches_once(alice: Cloud) -> None:
    first = ids(alice.ec2("RunInstances", call="call-1", **RUN))
    assert ids(alice.ec2("RunInstances", call="call-1", **RUN)) == first
    assert ids(alice.ec2("RunInstances", call="call-2", **RUN)) != first
    assert ids(alice.ec2("RunInstances", **RUN)) != ids(alice.ec2("RunInstances", **RUN))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ReservedInstancesOfferingId": "m5.large.1y.none"}, "InvalidReservedInstancesOfferingId.NotFound"),
        ({"InstanceCount": "0"}, "InvalidParameterValue"),
        ({"InstanceCount": "10001"}, "InvalidParameterValue"),
        ({"LimitPrice.Amount": "0.01"}, "InvalidParameterValue"),
        ({"LimitPrice.Amount": "9999999", "LimitPrice.CurrencyCode": "XAU"}, "InvalidParameterValue"),
        ({"DryRun": "true"}, "DryRunOperation"),
    ],
    ids=["unknown", "none", "too many", "limit", "currency", "dry"],
)
def test_what_cannot_be_bought_is_refused_and_nothing_bought(api: ApiInHand, given: dict[str, str], told: str) -> None:
    buyer = Cloud(api, "alice", role="operator")
    wish = {"ReservedInstancesOfferingId": "rtx4090-half.1y.all", "InstanceCount": "1"}
    assert code(buyer.ec2("PurchaseReservedInstancesOffering", **{**wish, **given})) == told
    assert api.alice.get("/v1/commitments").json()["items"] == []

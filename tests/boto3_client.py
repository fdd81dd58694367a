"""boto3 of whatever age against a yard: run by a Python that has it, with an address, a key and its secret.

Each step asserts; the last line printed is "ok".
"""

from __future__ import annotations

import sys
import time
import urllib.request
from typing import Any

import boto3
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.httpsession import URLLib3Session

URL, KEY, SECRET = sys.argv[1:4]
QUICK = {"Delay": 1, "MaxAttempts": 60}
RUN = {"ImageId": "ami-host", "InstanceType": "rtx4090-quarter"}

ec2: Any = boto3.client(
    "ec2", endpoint_url=URL, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
)


def wait(name: str, **given: Any) -> None:
    ec2.get_waiter(name).wait(WaiterConfig=QUICK, **given)


def code_of(name: str, **given: Any) -> str:
    try:
        getattr(ec2, name)(**given)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "nothing was refused"


def instances() -> list[str]:
    """Launched, rebooted, stopped and started; one of them is left running."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "训练/a*b~c+d"}]}]
    many = {**RUN, "MinCount": 2, "MaxCount": 2, "TagSpecifications": tags, "ClientToken": "one"}
    made, again = ([one["InstanceId"] for one in ec2.run_instances(**many)["Instances"]] for _ in range(2))
    assert made == again
    wait("instance_exists", InstanceIds=made)
    wait("instance_running", InstanceIds=made)
    wait("instance_status_ok", InstanceIds=made)
    wait("system_status_ok", InstanceIds=made)
    ec2.reboot_instances(InstanceIds=made)
    wait("instance_running", InstanceIds=made)
    assert code_of("stop_instances", InstanceIds=[*made, "i-none"]) == "InvalidInstanceID.NotFound"
    ec2.stop_instances(InstanceIds=made)
    wait("instance_stopped", InstanceIds=made)
    assert code_of("reboot_instances", InstanceIds=made) == "IncorrectInstanceState"
    ec2.start_instances(InstanceIds=made)
    wait("instance_running", InstanceIds=made)
    wait("volume_in_use", VolumeIds=["vol-" + one[2:] for one in made])
    ec2.terminate_instances(InstanceIds=made[1:])
    wait("instance_terminated", InstanceIds=made[1:])
    return made[:1]


def spot() -> None:
    """A request that is met, and a price that is told."""
    wish = {"LaunchSpecification": RUN, "InstanceCount": 1, "SpotPrice": "50"}
    request = ec2.request_spot_instances(**wish)["SpotInstanceRequests"][0]["SpotInstanceRequestId"]
    wait("spot_instance_request_fulfilled", SpotInstanceRequestIds=[request])
    shown = ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request])["SpotInstanceRequests"][0]
    assert (shown["State"], shown["Type"], shown["SpotPrice"]) == ("active", "one-time", "50.00")
    ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
    ec2.terminate_instances(InstanceIds=[shown["InstanceId"]])
    wait("instance_terminated", InstanceIds=[shown["InstanceId"]])
    prices = ec2.describe_spot_price_history(InstanceTypes=["rtx4090-quarter"])["SpotPriceHistory"]
    assert prices
    assert all(float(one["SpotPrice"]) > 0 for one in prices)
    market = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.0001"}}
    refused = code_of("run_instances", **RUN, MinCount=1, MaxCount=1, InstanceMarketOptions=market)
    assert refused == "SpotMaxPriceTooLow"


answers: list[int] = []


def lose_the_answer(request: Any, **_: Any) -> None:
    """The purchase is made, and its answer lost: the SDK asks again, by itself and signed anew."""
    if not answers:
        answers.append(URLLib3Session().send(request).status_code)
        time.sleep(1.1)
        raise ConnectionClosedError(endpoint_url=request.url)


def main() -> None:
    left = instances()
    spot()
    offerings = ec2.describe_reserved_instances_offerings(InstanceType="rtx4090-half")["ReservedInstancesOfferings"]
    assert {one["Duration"] for one in offerings} == {31_536_000, 94_608_000}
    assert all(isinstance(one["FixedPrice"], float) for one in offerings)
    ec2.meta.events.register("before-send.ec2.PurchaseReservedInstancesOffering", lose_the_answer)
    bought = ec2.purchase_reserved_instances_offering(
        ReservedInstancesOfferingId=offerings[0]["ReservedInstancesOfferingId"], InstanceCount=1
    )["ReservedInstancesId"]
    assert [one["ReservedInstancesId"] for one in ec2.describe_reserved_instances()["ReservedInstances"]] == [bought]
    pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1})
    assert [i["InstanceId"] for page in pages for r in page["Reservations"] for i in r["Instances"]] == left
    address = ec2.generate_presigned_url(
        "describe_instances", Params={"InstanceIds": left}, ExpiresIn=60, HttpMethod="GET"
    )
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert left[0].encode() in answer.read()
    print(left[0])
    print("ok")


main()

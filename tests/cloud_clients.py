"""Real clients of both clouds against one yard: run by the clients' own Python with an address, a key and its secret.

Each step asserts; the last line printed is "ok".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client as TeaClient
from alibabacloud_tea_openapi.models import Config
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkecs.request.v20140526.DescribeInstancesRequest import DescribeInstancesRequest
from aliyunsdkecs.request.v20140526.RunInstancesRequest import RunInstancesRequest
from botocore.exceptions import ClientError

URL, KEY, SECRET = sys.argv[1:4]
HOST = URL.partition("//")[2]
QUICK = {"Delay": 1, "MaxAttempts": 60}

ec2: Any = boto3.client(
    "ec2", endpoint_url=URL, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
)
tea = TeaClient(Config(access_key_id=KEY, access_key_secret=SECRET, endpoint=HOST, protocol="http"))


def classic(secret: str = SECRET) -> str:
    """What customers' scripts hold, but for the line that names the endpoint."""
    client = AcsClient(KEY, secret, "cn-hangzhou")
    request = RunInstancesRequest()
    request.set_endpoint(HOST)
    request.set_InstanceType("ecs.gn7ia-c8g1.2xlarge")
    request.set_ImageId("ubuntu_20_04_x64_20G_alibase_20230718.vhd")
    request.set_SecurityGroupId("sg-bp1gq7hjdxqjxxxxxx")
    request.set_InstanceChargeType("PostPaid")
    request.set_Amount(1)
    return str(json.loads(client.do_action_with_exception(request))["InstanceIdSets"]["InstanceIdSet"][0])


def code_of(work: Callable[[], object]) -> str:
    """The code that a client's own exception carries."""
    try:
        work()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except ServerException as error:
        return str(error.get_error_code())
    except Exception as error:
        return str(getattr(error, "code", error))
    return "nothing was refused"


def aws(*words: str) -> Any:
    """The AWS CLI's answer."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": URL,
    }
    command = [sys.executable, str(Path(sys.executable).parent / "aws"), *words, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if done.stdout else None


def main() -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "训练/a*b~c+d"}]}]
    run = {"ImageId": "ami-host", "InstanceType": "rtx4090-quarter", "MinCount": 1, "MaxCount": 2}
    first = ec2.run_instances(**run, TagSpecifications=tags, ClientToken="one")
    by_boto = [one["InstanceId"] for one in first["Instances"]]
    again = ec2.run_instances(**run, TagSpecifications=tags, ClientToken="one")
    assert [one["InstanceId"] for one in again["Instances"]] == by_boto
    ec2.get_waiter("instance_running").wait(InstanceIds=by_boto, WaiterConfig=QUICK)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=by_boto, WaiterConfig=QUICK)

    by_classic = classic()
    shape = ["--image-id", "ami-host", "--instance-type", "rtx4090-quarter"]
    by_aws = aws("ec2", "run-instances", *shape)["Instances"][0]["InstanceId"]
    wish = models.RunInstancesRequest(region_id="cn-hangzhou", image_id="m-host", instance_type="ecs.rtx4090-quarter")
    by_tea = tea.run_instances(wish).body.instance_id_sets.instance_id_set[0]
    everything = {*by_boto, by_classic, by_aws, by_tea}

    shown = tea.describe_instances(models.DescribeInstancesRequest(region_id="cn-hangzhou", page_size=50)).body
    assert {one.instance_id for one in shown.instances.instance} == everything
    pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 2})
    assert {i["InstanceId"] for page in pages for r in page["Reservations"] for i in r["Instances"]} == everything
    listing = DescribeInstancesRequest()
    listing.set_endpoint(HOST)
    listing.set_PageSize(50)
    told = json.loads(AcsClient(KEY, SECRET, "cn-hangzhou").do_action_with_exception(listing))
    assert {one["InstanceId"] for one in told["Instances"]["Instance"]} == everything
    assert aws("sts", "get-caller-identity")["UserId"] == KEY

    several = [by_classic, by_aws]
    ec2.get_waiter("instance_running").wait(InstanceIds=several, WaiterConfig=QUICK)
    tea.reboot_instance(models.RebootInstanceRequest(instance_id=by_tea))
    history = models.DescribeSpotPriceHistoryRequest(
        region_id="cn-hangzhou", instance_type="ecs.rtx4090-quarter", network_type="vpc"
    )
    assert tea.describe_spot_price_history(history).body.spot_prices.spot_price_type[0].spot_price > 0
    tea.stop_instances(models.StopInstancesRequest(region_id="cn-hangzhou", instance_id=several))
    ec2.get_waiter("instance_stopped").wait(InstanceIds=several, WaiterConfig=QUICK)
    aws("ec2", "start-instances", "--instance-ids", *several)
    ec2.get_waiter("instance_running").wait(InstanceIds=several, WaiterConfig=QUICK)

    assert code_of(lambda: ec2.run_instances(**run, DryRun=True)) == "DryRunOperation"
    assert code_of(lambda: ec2.allocate_address()) == "UnsupportedOperation"
    assert code_of(lambda: ec2.describe_instances(InstanceIds=["i-none"])) == "InvalidInstanceID.NotFound"
    # The classic client tells a wrong secret from a wrong signature by what comes after the message's colon.
    assert code_of(lambda: classic("wrong")) == "InvalidAccessKeySecret"
    assert code_of(lambda: tea.start_instance(models.StartInstanceRequest(instance_id="i-none"))) == (
        "InvalidInstanceId.NotFound"
    )

    left = by_boto[0]
    ec2.terminate_instances(InstanceIds=sorted(everything - {left}))
    ec2.get_waiter("instance_terminated").wait(InstanceIds=sorted(everything - {left}), WaiterConfig=QUICK)
    print(left)
    print("ok")


main()

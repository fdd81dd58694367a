"""Instances over EC2: launch and look, start, stop, reboot, terminate."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping
from typing import Any

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns, spot
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.ec2 import filters, views
from gpuyard.control import commands
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.states import WorkloadState
from gpuyard.model.workloads import WhenReclaimed, Workload
from gpuyard.store import workloads

log = logging.getLogger(__name__)

Asked = dict[str, Any]
MOST_LISTED = 100_000
_KNOWN = {
    "instance-id": filters.field("InstanceId"),
    "instance-type": filters.field("InstanceType"),
    "instance-state-name": filters.field("State", "Name"),
    "instance-state-code": filters.field("State", "Code"),
    "image-id": filters.field("ImageId"),
    "key-name": filters.field("KeyName"),
    "availability-zone": filters.field("Placement", "AvailabilityZone"),
    "vpc-id": filters.field("VpcId"),
    "subnet-id": filters.field("SubnetId"),
    "root-device-name": filters.field("RootDeviceName"),
    "architecture": filters.field("Architecture"),
}


def run(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    made = launch(caller, asked, call)
    if asked.get("DryRun"):
        raise Fault("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    return _launched(caller, call, made)


def launch(caller: Asking, asked: Asked, call: Call, may_wait: bool = False, key: str = "ec2") -> list[Workload]:
    """Launches what RunInstances or RequestSpotInstances ask for. Raises Fault and YardError."""
    for name in ("NetworkInterfaces", "LaunchTemplate", "Placement"):
        if set(asked.get(name) or ()) - {"AvailabilityZone", "Tenancy"}:
            raise Fault("UnsupportedOperation", f"{name} is not possible here: leave it out.")
    if asked.get("CpuOptions", {}).get("AmdSevSnp") == "enabled" or asked.get("EnclaveOptions", {}).get("Enabled"):
        raise Fault("UnsupportedOperation", nouns.NOT_CONFIDENTIAL)
    for needed in ("InstanceType", "ImageId", "MinCount", "MaxCount"):
        if needed not in asked:
            raise Fault("MissingParameter", f"The request must contain the parameter {needed}")
    decisive = {name: value for name, value in asked.items() if name not in ("DryRun", "ClientToken")}
    token = asked.get("ClientToken")
    if token is not None and (not 0 < len(token) <= 64 or not token.isascii()):
        raise Fault("InvalidParameterValue", "ClientToken takes up to 64 ASCII characters.")
    bought = _market(asked)
    if not may_wait:
        spot.must_meet_the_price(caller, asked["InstanceType"], bought, "SpotMaxPriceTooLow")
    wanted = nouns.Wanted(
        type=asked["InstanceType"],
        image=asked["ImageId"],
        least=asked["MinCount"],
        most=asked["MaxCount"],
        asked=decisive,
        key=f"{key}\n{token}" if token else _called(call, key),
        key_name=asked.get("KeyName"),
        user_data=_user_data(asked.get("UserData")),
        tags=_tags(asked),
        disk_bytes=_disk_bytes(asked),
        option=bought.option,
        when_reclaimed=bought.when_reclaimed,
        max_price_nano=bought.max_price_nano,
        may_wait=may_wait,
    )
    return nouns.launch(caller, wanted, bool(asked.get("DryRun")))


def _called(call: Call, key: str) -> str | None:
    """Where there is no client token, what the SDK named the call stands for it, if it did."""
    return None if call.invocation is None else f"{key}-call\n{call.claim.key_id}\n{call.invocation}"


def _market(asked: Asked) -> spot.Bought:
    """Raises Fault."""
    market = asked.get("InstanceMarketOptions") or {}
    kind = market.get("MarketType") or ("spot" if market.get("SpotOptions") else None)
    if kind is None:
        return spot.Bought()
    if kind != "spot":
        raise Fault("UnsupportedOperation", f"MarketType {kind[:40]} is not sold here: leave it out, or say spot.")
    options = market.get("SpotOptions") or {}
    for name in ("BlockDurationMinutes", "ValidUntil"):
        if options.get(name):
            raise Fault("UnsupportedOperation", f"{name} is not possible here: leave it out.")
    most_nano = spot.limit(options.get("MaxPrice"), "MaxPrice")
    lasting = options.get("SpotInstanceType") or "one-time"
    behaviour = options.get("InstanceInterruptionBehavior") or ("stop" if lasting == "persistent" else "terminate")
    match lasting, behaviour:
        case "one-time", "terminate":
            return spot.Bought(PurchaseOption.SPOT, WhenReclaimed.REMOVE, most_nano)
        case "persistent", "stop":
            return spot.Bought(PurchaseOption.SPOT, WhenReclaimed.WAIT, most_nano)
    told = "one-time is terminated where its slices are taken back, persistent is stopped and runs again: "
    raise Fault("UnsupportedOperation", f"{told}{lasting[:40]} with {behaviour[:40]} is not possible here.")


def _launched(caller: Asking, call: Call, made: list[Workload]) -> Mapping[str, Any]:
    """What was committed is answered, whatever becomes of the rest: a refusal now would launch it twice."""
    owner = caller.identity.tenant_id
    try:
        region = call.claim.region or nouns.REGION
        return views.reservation(owner, made[0], [views.instance(w, region, n) for n, w in enumerate(made)])
    except Exception:
        log.exception("launch_not_shown", extra={"request_id": call.request_id})
        pending = {"Code": 0, "Name": "pending"}
        rows = [{"InstanceId": nouns.outside(workload.id), "State": pending} for workload in made]
        return views.reservation(owner, made[0], rows)


def _user_data(text: str | None) -> str | None:
    if not text:
        return None
    try:
        found = base64.b64decode(text.encode(), validate=True)
        if len(found) > 16_384 or b"\0" in found:
            raise Fault("InvalidUserData.Malformed", "User data is limited to 16384 bytes of text.")
        return found.decode()
    except (binascii.Error, UnicodeError):
        raise Fault("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data, or no UTF-8 inside.") from None


def _tags(asked: Asked) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in asked.get("TagSpecifications", []):
        if one.get("ResourceType") == "instance":  # a volume lives and goes with its instance, and has its tags
            found |= {tag.get("Key", ""): tag.get("Value", "") for tag in one.get("Tags", [])}
    return found


def _disk_bytes(asked: Asked) -> int | None:
    mappings = asked.get("BlockDeviceMappings", [])
    if len(mappings) > 1:
        raise Fault("UnsupportedOperation", "An instance has one disk here: give one BlockDeviceMapping.")
    disk = mappings[0].get("Ebs", {}) if mappings else {}
    if disk.get("Encrypted") or disk.get("KmsKeyId"):
        raise Fault("UnsupportedOperation", nouns.NOT_ENCRYPTED)
    size = disk.get("VolumeSize")
    if size is not None and not 1 <= size <= 65_536:
        raise Fault("InvalidParameterValue", "VolumeSize must be 1 to 65536 GiB.")
    return None if size is None else size * nouns.GIB


def listed(caller: Asking, call: Call, asked: Asked) -> list[Asked]:
    """The instances that are asked for: those of the given ids, removed or not; else all that are not removed."""
    region = call.claim.region or nouns.REGION
    if ids := asked.get("InstanceIds"):
        found = nouns.find(caller, ids)
    else:
        states = _states(asked)
        with caller.yard.store.read() as c:
            found = workloads.page(c, caller.identity.tenant_id, None, states, MOST_LISTED, None)
    return [views.instance(workload, region) for workload in found]


def _states(asked: Asked) -> list[WorkloadState] | None:
    """Removed ones stay for ever and are many: read only where they are asked for."""
    for one in asked.get("Filters", []):
        if one.get("Name") == "instance-state-name":
            return [s for s, (_, name) in views.STATES.items() if name in one.get("Values", [])] or None
    return None


def describe(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    rows = filters.keep(listed(caller, call, asked), asked, _KNOWN)
    some, token = filters.page(rows, asked, "instances")
    owner = caller.identity.tenant_id
    shown = [
        {
            "ReservationId": "r-" + row["InstanceId"][2:],
            "OwnerId": owner,
            "Groups": [],
            "Instances": [row],
        }
        for row in some
    ]
    return {"Reservations": shown, "NextToken": token}


def status(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    rows = listed(caller, call, asked)
    if not asked.get("IncludeAllInstances"):
        rows = [row for row in rows if row["State"]["Name"] == "running"]
    some, token = filters.page(filters.keep(rows, asked, _KNOWN), asked, "statuses")
    shown = []
    for row in some:
        running = row["State"]["Name"] == "running"
        told = {"Status": "ok" if running else "not-applicable"}
        if running:  # the yard saw the unit run; nothing more than that is meant
            told["Details"] = [{"Name": "reachability", "Status": "passed"}]  # type: ignore[assignment]
        shown.append(
            {
                "AvailabilityZone": row["Placement"]["AvailabilityZone"],
                "InstanceId": row["InstanceId"],
                "InstanceState": row["State"],
                "InstanceStatus": told,
                "SystemStatus": told,
            }
        )
    return {"InstanceStatuses": shown, "NextToken": token}


def attribute(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    workload = nouns.find(caller, [asked.get("InstanceId", "")])[0]
    name = asked.get("Attribute", "")
    known: dict[str, Any] = {
        "instanceType": {"InstanceType": {"Value": nouns.type_of(workload)}},
        "disableApiTermination": {"DisableApiTermination": {"Value": False}},
        "disableApiStop": {"DisableApiStop": {"Value": False}},
        "instanceInitiatedShutdownBehavior": {"InstanceInitiatedShutdownBehavior": {"Value": "stop"}},
        "rootDeviceName": {"RootDeviceName": {"Value": "/dev/sda1"}},
        "ebsOptimized": {"EbsOptimized": {"Value": False}},
        "groupSet": {"Groups": [views.GROUP]},
        "userData": {"UserData": {}},  # it lies sealed
    }
    if name not in known:
        raise Fault("UnsupportedOperation", f"The attribute '{name[:60]}' is not kept here.")
    return {"InstanceId": asked["InstanceId"], **known[name]}


def _change(caller: Asking, asked: Asked, command: commands.Commands) -> list[Asked]:
    """All of them in one transaction, or none where one cannot."""
    found = nouns.find(caller, asked.get("InstanceIds", []))
    if not found:
        raise Fault("MissingParameter", "The request must contain the parameter InstanceId")
    return [
        {
            "InstanceId": nouns.outside(before.id),
            "CurrentState": views.state(after),
            "PreviousState": views.state(before),
        }
        for before, after in zip(found, nouns.change(caller, found, command), strict=True)
    ]


def start(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    return {"StartingInstances": _change(caller, asked, commands.start_each)}


def stop(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    return {"StoppingInstances": _change(caller, asked, commands.stop_each)}


def terminate(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    return {"TerminatingInstances": _change(caller, asked, commands.remove_each)}


def reboot(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    _change(caller, asked, commands.reboot_each)
    return {}

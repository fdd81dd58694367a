"""Instances over ECS: launch, look, start, stop, delete, tag."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.ecs import spot
from gpuyard.api.ecs.wire import Parameters
from gpuyard.control import commands
from gpuyard.control.labelling import relabel
from gpuyard.model.errors import YardError
from gpuyard.model.states import WorkloadState
from gpuyard.model.units import SHARE_WHOLE_PPM, format_price
from gpuyard.model.workloads import Workload
from gpuyard.store import workloads
from gpuyard.texts import error_text

Row = dict[str, Any]
MOST_LISTED: Final = 100_000
STATES: Final = {
    WorkloadState.PENDING: "Pending",
    WorkloadState.STARTING: "Starting",
    WorkloadState.RUNNING: "Running",
    WorkloadState.STOPPING: "Stopping",
    WorkloadState.STOPPED: "Stopped",
    WorkloadState.SUCCEEDED: "Stopped",
    WorkloadState.FAILED: "Stopped",
    WorkloadState.REMOVING: "Stopping",
    WorkloadState.REMOVED: "Deleted",
}


def moment(us: int) -> str:
    """ECS tells the minute."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%MZ")


def view(workload: Workload, region: str) -> Row:
    spec = workload.spec
    tags = [{"TagKey": key, "TagValue": value} for key, value in nouns.tags_of(workload).items()]
    return {
        "InstanceId": nouns.outside(workload.id),
        "InstanceName": workload.spec.labels.get("Name", workload.name),
        "HostName": workload.name,
        "Description": "",
        "Status": STATES[nouns.shown_state(workload)],
        "RegionId": region,
        "ZoneId": nouns.zone(region),
        "InstanceType": nouns.type_of(workload),
        "ImageId": nouns.image_of(workload),
        "Cpu": max(1, spec.cpu_milli // 1000),
        "Memory": spec.memory_bytes >> 20,
        "GPUAmount": spec.slices.count if spec.slices.shape.compute_ppm >= SHARE_WHOLE_PPM else 0,
        "GPUSpec": spec.slices.card_model or "",
        "InstanceChargeType": "PostPaid",
        **spot.shown(spec),
        "StoppedMode": "StopCharging" if workload.state is WorkloadState.STOPPED else "Not-applicable",
        "KeyPairName": spec.environment.get(nouns.KEY_NAME, ""),
        "CreationTime": moment(workload.created_us),
        "StartTime": moment(workload.created_us),
        "InstanceNetworkType": "vpc",
        "SecurityGroupIds": {"SecurityGroupId": ["sg-default"]},
        "PublicIpAddress": {"IpAddress": []},
        "InnerIpAddress": {"IpAddress": []},
        "VpcAttributes": {"VpcId": "vpc-default", "VSwitchId": "vsw-default", "PrivateIpAddress": {"IpAddress": []}},
        "OperationLocks": {"LockReason": []},
        "Tags": {"Tag": tags},
    }


def run(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    if (given.text("InstanceChargeType") or "PostPaid") != "PostPaid":
        raise Fault("InvalidInstanceChargeType.ValueNotSupported", "This yard charges PostPaid only.", 403)
    if any(name.startswith("DataDisk.") for name in given.all):
        raise Fault("InvalidDataDisk.NotSupported", "An instance has one disk here: give SystemDisk.Size.", 403)
    if given.flag("SystemDisk.Encrypted") or given.text("SystemDisk.KMSKeyId"):
        raise Fault("InvalidParameter.EncryptedNotSupported", nouns.NOT_ENCRYPTED, 403)
    if given.text("SecurityOptions.ConfidentialComputingMode"):
        raise Fault("InvalidParameter.NotSupported", nouns.NOT_CONFIDENTIAL, 403)
    token = given.text("ClientToken")
    if token is not None and (len(token) > 64 or not token.isascii()):
        raise Fault("InvalidClientToken.Malformed", "ClientToken takes up to 64 ASCII characters.")
    amount = given.number("Amount", 1, 1, nouns.MOST_AT_ONCE)
    dry = given.flag("DryRun")
    size = given.number("SystemDisk.Size", 0, 0, 65_536)
    tags = given.tags()
    if name := given.text("InstanceName"):
        tags.setdefault("Name", name)
    bought = spot.market(caller, given)
    wanted = nouns.Wanted(
        type=given.needed("InstanceType"),
        image=given.needed("ImageId"),
        least=given.number("MinAmount", amount, 1, nouns.MOST_AT_ONCE),
        most=amount,
        asked={name: value for name, value in given.all.items() if name not in ("ClientToken", "DryRun")},
        # Without a token the nonce stands for it: the same request sent again, even to a yard that was started anew
        # meanwhile, launches nothing twice.
        key=f"ecs\n{token}" if token else f"ecs-nonce\n{call.claim.key_id}\n{call.claim.nonce}",
        key_name=given.text("KeyPairName"),
        user_data=_user_data(given.text("UserData")),
        tags=tags,
        disk_bytes=size * nouns.GIB or None,
        option=bought.option,
        when_reclaimed=bought.when_reclaimed,
        max_price_nano=bought.max_price_nano,
    )
    made = nouns.launch(caller, wanted, dry)
    if dry:
        raise Fault("DryRunOperation", "Request validation has been passed with DryRun flag set.")
    return {"InstanceIdSets": {"InstanceIdSet": [nouns.outside(workload.id) for workload in made]}}


def _user_data(text: str | None) -> str | None:
    try:
        found = base64.b64decode((text or "").encode(), validate=True)
        if len(found) > 16_384 or b"\0" in found:
            raise Fault("InvalidUserData.SizeExceeded", "User data is limited to 16384 bytes of text.")
        return found.decode() or None
    except (binascii.Error, UnicodeError):
        raise Fault("InvalidUserData.Base64FormatInvalid", "The user data is no base64, or holds no UTF-8.") from None


def _found(caller: Asking, given: Parameters) -> list[Workload]:
    ids, status = given.listed("InstanceIds") or given.listed("InstanceId"), given.text("Status")
    states = [state for state, name in STATES.items() if name == status] if status else None
    if status and not states:
        raise Fault("InvalidParameter.Status", f"Status is one of {', '.join(sorted(set(STATES.values())))}.")
    with caller.yard.store.read() as c:
        if ids:  # as ECS has it: those that are not there are left out
            every = [workloads.get(c, nouns.inside(one)) for one in dict.fromkeys(ids) if one.startswith("i-")]
            mine = caller.identity.tenant_id
            found = [w for w in every if w is not None and w.tenant_id == mine and w.state is not WorkloadState.REMOVED]
        else:
            found = workloads.page(c, caller.identity.tenant_id, None, states, MOST_LISTED, None)
    names, wanted = given.text("InstanceName"), given.tags()
    return [
        w
        for w in found
        if (states is None or w.state in states)
        and (names is None or nouns.tags_of(w)["Name"] == names)
        and (given.text("InstanceType") in (None, nouns.type_of(w)))
        and all(
            nouns.tags_of(w).get(key) == value or (not value and key in nouns.tags_of(w))
            for key, value in wanted.items()
        )
    ]


def paged(rows: Sequence[Any], given: Parameters) -> tuple[list[Any], Row]:
    """A page by number, or by token where one or MaxResults was given."""
    if given.text("NextToken") or given.text("MaxResults"):
        start = given.number("NextToken", 0, 0, MOST_LISTED)
        end = start + given.number("MaxResults", 10, 1, 100)
        return list(rows[start:end]), {"NextToken": str(end) if end < len(rows) else ""}
    number, size = given.number("PageNumber", 1, 1, 100_000), given.number("PageSize", 10, 1, 100)
    some = list(rows[(number - 1) * size : number * size])
    return some, {"TotalCount": len(rows), "PageNumber": number, "PageSize": size}


def describe(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    some, counts = paged(_found(caller, given), given)
    region = call.claim.region or nouns.REGION
    return {**counts, "Instances": {"Instance": [view(workload, region) for workload in some]}}


def status(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    some, counts = paged(_found(caller, given), given)
    rows = [{"InstanceId": nouns.outside(w.id), "Status": STATES[nouns.shown_state(w)]} for w in some]
    return {**counts, "InstanceStatuses": {"InstanceStatus": rows}}


def disks(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    """Each instance's disk, which comes and goes with it."""
    wanted = given.listed("DiskIds")
    found = [w for w in _found(caller, given) if not wanted or nouns.outside(w.id, "d-") in wanted]
    some, counts = paged(found, given)
    region = call.claim.region or nouns.REGION
    rows = [
        {
            "DiskId": nouns.outside(w.id, "d-"),
            "InstanceId": nouns.outside(w.id),
            "Size": -(-w.spec.disk_bytes // nouns.GIB),
            "Type": "system",
            "Status": "In_use",
            "RegionId": region,
            "ZoneId": nouns.zone(region),
            "DeleteWithInstance": True,
            "Portable": False,
            "CreationTime": moment(w.created_us),
        }
        for w in some
    ]
    return {**counts, "Disks": {"Disk": rows}}


def _change(caller: Asking, given: Parameters, command: commands.Commands) -> list[Row]:
    """All in one transaction, or none where one cannot; with SuccessFirst, each by itself."""
    found = nouns.find(caller, _several(given))
    together = given.text("BatchOptimization") or "AllTogether"
    if together not in ("AllTogether", "SuccessFirst"):
        raise Fault("InvalidParameter.BatchOptimization", "BatchOptimization is AllTogether or SuccessFirst.")
    if together == "AllTogether":
        return [_done(*pair) for pair in zip(found, nouns.change(caller, found, command), strict=True)]
    rows: list[Row] = []
    for workload in found:
        try:
            rows.append(_done(workload, nouns.change(caller, [workload], command)[0]))
        except YardError as error:
            if error.status >= 500 and not rows:
                raise  # later, what was committed is told
            told = {"Code": "IncorrectInstanceStatus", "Message": error_text(error.code, "en", error.params)}
            rows.append(_done(workload, workload) | told)
    return rows


def _done(before: Workload, after: Workload) -> Row:
    return {
        "InstanceId": nouns.outside(before.id),
        "PreviousStatus": STATES[nouns.shown_state(before)],
        "CurrentStatus": STATES[nouns.shown_state(after)],
        "Code": "200",
        "Message": "success",
    }


def _several(given: Parameters) -> list[str]:
    ids = given.listed("InstanceId")
    if not ids:
        raise Fault(
            "MissingParameter.InstanceId", 'The input parameter "InstanceId" that is mandatory is not supplied.'
        )
    return ids


def start(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    return _answer(call, _change(caller, given, commands.start_each))


def stop(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    """A stopped instance is charged for its disk alone, which is StopCharging; KeepCharging is not possible."""
    if (given.text("StoppedMode") or "StopCharging") != "StopCharging":
        raise Fault("InvalidParameter.StoppedMode", "A stopped instance is not charged for its card: StopCharging.")
    return _answer(call, _change(caller, given, commands.stop_each))


def reboot(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    """ForceStop makes no difference: an instance ends within its grace either way."""
    given.flag("ForceStop")
    given.flag("ForceReboot")
    return _answer(call, _change(caller, given, commands.reboot_each))


def delete(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    """What still runs goes only with Force, as there."""
    ids = _several(given)
    running = [w for w in nouns.find(caller, ids) if STATES[w.state] not in ("Stopped", "Deleted")]
    if running and not given.flag("Force"):
        raise Fault("IncorrectInstanceStatus", "The instance is not stopped: stop it first, or give Force.", 403)
    nouns.change(caller, nouns.find(caller, ids), commands.remove_each)
    return {}


def _answer(call: Call, rows: list[Row]) -> Mapping[str, Any]:
    return {"InstanceResponses": {"InstanceResponse": rows}} if call.action.endswith("Instances") else {}


def price(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    from gpuyard.catalog import aliases

    name = aliases.load().offer(given.needed("InstanceType")).lower()
    offer = next((one for one in nouns.offers(caller.yard) if one.name == name), None)
    if offer is None:
        raise YardError("unknown_offer", offer=name[:64], known="DescribeInstanceTypes")
    amount = given.number("Amount", 1, 1, nouns.MOST_AT_ONCE)
    # A number in JSON, written from the exact decimal so that nothing is rounded on the way.
    cost = json.loads(format_price(offer.price_per_hour_nano * amount))
    told = {"OriginalPrice": cost, "DiscountPrice": 0, "TradePrice": cost, "Currency": offer.currency}
    return {"PriceInfo": {"Price": told, "Rules": {"Rule": []}}}


def tag(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    tags = given.tags()
    if not tags or any(not 0 < len(key) <= 128 or len(value) > 256 for key, value in tags.items()):
        raise Fault("InvalidParameter.Tag", "Give tags with keys of 1 to 128 characters and values up to 256.")
    found = nouns.find(caller, given.listed("ResourceId"))
    relabel(caller.yard, [w.id for w in found], lambda labels: {**labels, **tags}, caller.identity.user)
    return {}


def untag(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    goes, every = set(given.listed("TagKey")), given.flag("All")
    found = nouns.find(caller, given.listed("ResourceId"))

    def change(labels: Mapping[str, str]) -> Mapping[str, str]:
        return {} if every else {key: value for key, value in labels.items() if key not in goes}

    relabel(caller.yard, [w.id for w in found], change, caller.identity.user)
    return {}


def tags(caller: Asking, _: Call, given: Parameters) -> Mapping[str, Any]:
    ids = given.listed("ResourceId")
    with caller.yard.store.read() as c:
        every = workloads.page(c, caller.identity.tenant_id, None, None, MOST_LISTED, None)
    found = nouns.find(caller, ids) if ids else every
    rows = [
        {"ResourceId": nouns.outside(w.id), "ResourceType": "instance", "TagKey": key, "TagValue": value}
        for w in found
        for key, value in nouns.tags_of(w).items()
    ]
    return {"TagResources": {"TagResource": rows}, "NextToken": ""}

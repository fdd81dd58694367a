"""Spot over EC2: market options of a launch, spot requests, and the price history.

A spot request and its instance are one workload that is bought on spot: `sir-X` is `i-X` is `wl-X`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns, spot
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.ec2 import filters, instances, views
from gpuyard.control import spot_requests
from gpuyard.control.bidding import is_outbid
from gpuyard.control.spot_requests import CANCELLED, MARK
from gpuyard.model.leases import RECLAIMED, PurchaseOption
from gpuyard.model.states import WorkloadState
from gpuyard.model.units import format_price
from gpuyard.model.workloads import WhenReclaimed, Workload
from gpuyard.store import workloads

Asked = dict[str, Any]
PRODUCT: Final = "Linux/UNIX"
_KNOWN = {
    "spot-instance-request-id": filters.field("SpotInstanceRequestId"),
    "instance-id": filters.field("InstanceId"),
    "state": filters.field("State"),
    "status-code": filters.field("Status", "Code"),
    "type": filters.field("Type"),
    "launch.instance-type": filters.field("LaunchSpecification", "InstanceType"),
    "launch.image-id": filters.field("LaunchSpecification", "ImageId"),
    "launch.key-name": filters.field("LaunchSpecification", "KeyName"),
    "launched-availability-zone": filters.field("LaunchedAvailabilityZone"),
    "product-description": filters.field("ProductDescription"),
}


def request(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    """Launches on spot what there is room for, and has the rest wait for it."""
    for name in ("BlockDurationMinutes", "LaunchGroup", "AvailabilityZoneGroup", "ValidFrom", "ValidUntil"):
        if asked.get(name):
            raise Fault("UnsupportedOperation", f"{name} is not possible here: leave it out.")
    given = asked.get("LaunchSpecification") or {}
    options = {
        "SpotInstanceType": asked.get("Type", "one-time"),
        "MaxPrice": asked.get("SpotPrice"),
        "InstanceInterruptionBehavior": asked.get("InstanceInterruptionBehavior"),
    }
    count = asked.get("InstanceCount", 1)
    tags = [
        {**one, "ResourceType": "instance"}
        for one in asked.get("TagSpecifications", [])
        if one.get("ResourceType") == "spot-instances-request"
    ]
    launch = {
        **given,
        "MinCount": count,
        "MaxCount": count,
        "ClientToken": asked.get("ClientToken"),
        "DryRun": asked.get("DryRun"),
        "TagSpecifications": tags,
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {k: v for k, v in options.items() if v}},
    }
    launch = {name: value for name, value in launch.items() if value is not None}
    made = instances.launch(caller, launch, call, may_wait=True, key="ec2-spot")
    if asked.get("DryRun"):
        raise Fault("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    return {"SpotInstanceRequests": [_row(caller, one, None, call.claim.region or nouns.REGION) for one in made]}


def describe(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    region = call.claim.region or nouns.REGION
    found = _named(caller, asked) if asked.get("SpotInstanceRequestIds") else _all(caller)
    with caller.yard.store.read() as c:
        reasons = spot_requests.reasons(c, found)
    rows = [_row(caller, workload, reasons.get(workload.id), region) for workload in found]
    some, token = filters.page(filters.keep(rows, asked, _KNOWN), asked, "spot requests")
    return {"SpotInstanceRequests": some, "NextToken": token}


def cancel(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    """As EC2 has it: a request that waits ends, an instance that runs goes on."""
    found = _named(caller, asked)
    if not found:
        raise Fault("MissingParameter", "The request must contain the parameter SpotInstanceRequestId")
    spot_requests.cancel(caller.yard, [workload.id for workload in found], caller.identity.user)
    rows = [{"SpotInstanceRequestId": nouns.outside(one.id, "sir-"), "State": "cancelled"} for one in found]
    return {"CancelledSpotInstanceRequests": rows}


def prices(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    zone = nouns.zone(call.claim.region or nouns.REGION)
    from_us = spot.moment(asked.get("StartTime"), "StartTime")
    until_us = spot.moment(asked.get("EndTime"), "EndTime")
    rows = [
        {
            "AvailabilityZone": zone,
            "InstanceType": price.offer,
            "ProductDescription": PRODUCT,
            "SpotPrice": format_price(price.price_nano),
            "Timestamp": price.at_us,
        }
        for price in spot.history(caller, asked.get("InstanceTypes", ()), from_us, until_us)
    ]
    products = asked.get("ProductDescriptions")
    rows = [row for row in rows if not products or any(PRODUCT in one for one in products)]
    rows = [row for row in rows if asked.get("AvailabilityZone") in (None, row["AvailabilityZone"])]
    known = {"instance-type": filters.field("InstanceType"), "availability-zone": filters.field("AvailabilityZone")}
    known |= {"product-description": filters.field("ProductDescription"), "spot-price": filters.field("SpotPrice")}
    some, token = filters.page(filters.keep(rows, asked, known), asked, "spot prices")
    return {"SpotPriceHistory": some, "NextToken": token}


def _all(caller: Asking) -> list[Workload]:
    with caller.yard.store.read() as c:
        every = workloads.page(c, caller.identity.tenant_id, None, None, instances.MOST_LISTED, None)
    return [workload for workload in every if workload.spec.option is PurchaseOption.SPOT]


def _named(caller: Asking, asked: Asked) -> list[Workload]:
    """Raises Fault for a request that is not the caller's, or was never one."""
    ids: Sequence[str] = list(dict.fromkeys(asked.get("SpotInstanceRequestIds") or ()))
    found: list[Workload] = []
    with caller.yard.store.read() as c:
        for one in ids:
            workload = workloads.get(c, nouns.inside(one, "sir-")) if one.startswith("sir-") else None
            mine = workload is not None and workload.tenant_id == caller.identity.tenant_id
            if workload is None or not mine or workload.spec.option is not PurchaseOption.SPOT:
                told = f"The spot instance request ID '{one[:80]}' does not exist"
                raise Fault("InvalidSpotInstanceRequestID.NotFound", told)
            found.append(workload)
    return found


def _row(caller: Asking, workload: Workload, reason: str | None, region: str) -> Asked:
    state, code = _state(workload, reason, is_outbid(caller.yard, workload))
    persistent, bid = workload.spec.when_reclaimed is WhenReclaimed.WAIT, workload.spec.max_price_nano
    row: Asked = {
        "SpotInstanceRequestId": nouns.outside(workload.id, "sir-"),
        "State": state,
        "Status": {"Code": code, "Message": code.replace("-", " "), "UpdateTime": workload.updated_us},
        "Type": "persistent" if persistent else "one-time",
        "InstanceInterruptionBehavior": "stop" if persistent else "terminate",
        "CreateTime": workload.created_us,
        "ProductDescription": PRODUCT,
        "SpotPrice": None if bid is None else format_price(bid),
        "LaunchSpecification": {
            "ImageId": views.image_id(workload),
            "InstanceType": nouns.type_of(workload),
            "KeyName": workload.spec.environment.get(nouns.KEY_NAME),
            "SecurityGroups": [views.GROUP],
        },
        "Tags": views.tag_list(workload),
    }
    if state != "open" and code != "canceled-before-fulfillment":
        row |= {"InstanceId": nouns.outside(workload.id), "LaunchedAvailabilityZone": nouns.zone(region)}
    return row


def _state(workload: Workload, reason: str | None, outbid: bool) -> tuple[str, str]:
    """EC2's state and status code. `reason` is that of the lease; `outbid`: its bid is too low now."""
    cancelled = workload.spec.labels.get(MARK) == CANCELLED
    match workload.state:
        case WorkloadState.REMOVING | WorkloadState.REMOVED:
            if workload.reason == RECLAIMED:
                return "closed", f"instance-terminated-{'by-price' if outbid else 'no-capacity'}"
            if cancelled and reason is None:
                return "cancelled", "canceled-before-fulfillment"
            return ("cancelled" if cancelled else "closed"), "instance-terminated-by-user"
        case WorkloadState.STOPPING | WorkloadState.STOPPED | WorkloadState.SUCCEEDED | WorkloadState.FAILED:
            return ("cancelled" if cancelled else "disabled"), "instance-stopped-by-user"
        case WorkloadState.PENDING:
            if reason == RECLAIMED:
                return "open", f"instance-stopped-{'by-price' if outbid else 'no-capacity'}"
            if outbid:
                return "open", "price-too-low"
            return "open", "pending-fulfillment" if workload.reason is None else "capacity-not-available"
        case _:
            return ("cancelled", "request-canceled-and-instance-running") if cancelled else ("active", "fulfilled")

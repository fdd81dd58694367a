"""Spot in ECS's words: what a launch asks for, and the price history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns, spot
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.dialects.spot import Bought
from gpuyard.api.ecs.wire import Parameters
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.times import to_text
from gpuyard.model.units import format_price
from gpuyard.model.workloads import WhenReclaimed, WorkloadSpec

LOW: Final = "InvalidSpotPriceLimit.LowerThanPublicPrice"
_PAGE: Final = 1000


def market(caller: Asking, given: Parameters) -> Bought:
    """Raises Fault."""
    most_nano: int | None = None
    match given.text("SpotStrategy") or "NoSpot":
        case "NoSpot":
            return Bought()
        case "SpotAsPriceGo":
            pass
        case "SpotWithPriceLimit":
            most_nano = spot.limit(given.needed("SpotPriceLimit"), "SpotPriceLimit")
        case _:
            told = "SpotStrategy is NoSpot, SpotAsPriceGo or SpotWithPriceLimit."
            raise Fault("InvalidSpotStrategy.ValueNotSupported", told, 403)
    if given.number("SpotDuration", 0, 0, 6):
        told = "No hour is protected here: an instance runs for the yard's own minimum. Give SpotDuration 0."
        raise Fault("InvalidSpotDuration.NotSupported", told, 403)
    match given.text("SpotInterruptionBehavior") or "Terminate":
        case "Terminate":
            bought = Bought(PurchaseOption.SPOT, WhenReclaimed.REMOVE, most_nano)
        case "Stop":
            bought = Bought(PurchaseOption.SPOT, WhenReclaimed.WAIT, most_nano)
        case _:
            raise Fault("InvalidParameter.SpotInterruptionBehavior", "SpotInterruptionBehavior is Terminate or Stop.")
    spot.must_meet_the_price(caller, given.needed("InstanceType"), bought, LOW)
    return bought


def shown(spec: WorkloadSpec) -> Mapping[str, Any]:
    """How an instance was bought."""
    if spec.option is not PurchaseOption.SPOT:
        return {"SpotStrategy": "NoSpot"}
    if spec.max_price_nano is None:
        return {"SpotStrategy": "SpotAsPriceGo"}
    return {"SpotStrategy": "SpotWithPriceLimit", "SpotPriceLimit": json.loads(format_price(spec.max_price_nano))}


def prices(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    kinds = given.listed("InstanceType")
    from_us = spot.moment(given.text("StartTime"), "StartTime")
    until_us = spot.moment(given.text("EndTime"), "EndTime")
    start = given.number("Offset", 0, 0, 10_000_000)
    found = spot.history(caller, kinds, from_us, until_us)
    zone = nouns.zone(call.claim.region or nouns.REGION)
    rows = [
        {
            "InstanceType": price.offer,
            "ZoneId": zone,
            "NetworkType": given.text("NetworkType") or "vpc",
            "IoOptimized": "optimized",
            # Numbers in JSON, written from the exact decimals.
            "SpotPrice": json.loads(format_price(price.price_nano)),
            "OriginPrice": json.loads(format_price(price.on_demand_nano)),
            "Timestamp": to_text(price.at_us)[:19] + "Z",
        }
        for price in found[start : start + _PAGE]
    ]
    more = start + _PAGE if start + _PAGE < len(found) else 0
    return {"NextOffset": more, "Currency": caller.yard.book.currency, "SpotPrices": {"SpotPriceType": rows}}

"""Reserved instances in ECS's words are a tenant's commitments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns, reservations
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.ecs.instances import moment, paged
from gpuyard.api.ecs.wire import Parameters
from gpuyard.catalog import aliases
from gpuyard.control import buying

STATUS: Final = {"queued": "Queued", "active": "Active", "retired": "Expired"}


def purchase(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    """Reserves at the prices in force, from the next full hour on: it cannot be undone."""
    if (given.text("PeriodUnit") or "Year") != "Year":
        raise Fault("InvalidParameter.PeriodUnit", "Terms are counted in years here: PeriodUnit is Year.")
    paid = given.text("OfferingType") or "All Upfront"
    upfront = next((key for key, name in reservations.PAID.items() if name == paid), None)
    if upfront is None:
        raise Fault("InvalidParameter.OfferingType", f"OfferingType is one of {', '.join(reservations.PAID.values())}.")
    token = given.text("ClientToken")
    if token is not None and (len(token) > 64 or not token.isascii()):
        raise Fault("InvalidClientToken.Malformed", "ClientToken takes up to 64 ASCII characters.")
    wish = buying.Wish(
        card_model=None,
        offer=aliases.load().offer(given.needed("InstanceType")).lower(),
        count=given.number("InstanceAmount", 1, 1, reservations.MOST_AT_ONCE),
        years=given.number("Period", 1, 1, 10),
        upfront=upfront,
    )
    key = f"ecs-reserve\n{token}" if token else f"ecs-reserve-nonce\n{call.claim.key_id}\n{call.claim.nonce}"
    made = buying.reserve_for(caller.yard, caller.tenant(None), wish, caller.identity.user, (key,))
    return {"ReservedInstanceIdSets": {"ReservedInstanceId": [made.id]}}


def bought(caller: Asking, call: Call, given: Parameters) -> Mapping[str, Any]:
    now_us, ids = caller.yard.clock.now_us(), given.listed("ReservedInstanceId")
    region = call.claim.region or nouns.REGION
    rows = []
    for each in reservations.bought(caller):
        kind, count = reservations.as_instances(each)
        rows.append(
            {
                "ReservedInstanceId": each.id,
                "ReservedInstanceName": each.id,
                "InstanceType": kind,
                "InstanceAmount": count,
                "OfferingType": reservations.PAID[each.upfront],
                "Status": STATUS[reservations.state(each, now_us)],
                "StartTime": moment(each.start_us),
                "CreationTime": moment(each.start_us),
                "ExpiredTime": moment(each.end_us),
                "RegionId": region,
                "Scope": "Region",
                "Platform": "Linux",
                "Tags": {"Tag": []},
            }
        )
    kind, status = given.text("InstanceType"), given.listed("Status")
    rows = [
        row for row in rows if (not ids or row["ReservedInstanceId"] in ids) and kind in (None, row["InstanceType"])
    ]
    some, counts = paged([row for row in rows if not status or row["Status"] in status], given)
    return {**counts, "ReservedInstances": {"ReservedInstance": some}}

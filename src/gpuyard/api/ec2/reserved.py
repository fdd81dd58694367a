"""Reserved instances over EC2 are a tenant's commitments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gpuyard.api.asking import Asking
from gpuyard.api.dialects import reservations
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault
from gpuyard.api.dialects.nouns import fingerprint
from gpuyard.api.ec2 import filters
from gpuyard.billing.commitments import Commitment
from gpuyard.control import buying
from gpuyard.model.errors import YardError
from gpuyard.model.units import SECOND_US, format_price, parse_price

Asked = dict[str, Any]
YEAR_S: Final = 31_536_000
ALIKE_US: Final = 120 * SECOND_US
_KNOWN = {
    "instance-type": filters.field("InstanceType"),
    "duration": filters.field("Duration"),
    "product-description": filters.field("ProductDescription"),
    "scope": filters.field("Scope"),
    "fixed-price": filters.field("FixedPrice"),
}


def _terms(commitment: Commitment, kind: str, count: int) -> Asked:
    """What both an offering and a purchase say; prices are those of one instance."""
    hourly = format_price(commitment.recurring_per_hour_nano // count)
    return {
        "InstanceType": kind,
        "Duration": commitment.years * YEAR_S,
        "FixedPrice": format_price(commitment.upfront_nano // count),
        "UsagePrice": "0.00",
        "RecurringCharges": [{"Frequency": "Hourly", "Amount": hourly}],
        "CurrencyCode": commitment.currency,
        "OfferingType": reservations.PAID[commitment.upfront],
        "OfferingClass": "standard",
        "InstanceTenancy": "default",
        "ProductDescription": "Linux/UNIX",
        "Scope": "Region",
    }


def offerings(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    rows = [
        {**_terms(each.preview, each.offer, 1), "ReservedInstancesOfferingId": each.id, "Marketplace": False}
        for each in reservations.offerings(caller)
    ]
    if ids := asked.get("ReservedInstancesOfferingIds"):
        if unknown := set(ids) - {row["ReservedInstancesOfferingId"] for row in rows}:
            raise _no_offering(sorted(unknown)[0])
        rows = [row for row in rows if row["ReservedInstancesOfferingId"] in ids]
    for name in ("InstanceType", "OfferingType", "OfferingClass", "ProductDescription", "InstanceTenancy"):
        rows = [row for row in rows if asked.get(name) in (None, row[name])]
    least, most = asked.get("MinDuration", 0), asked.get("MaxDuration", 10 * YEAR_S)
    rows = [row for row in rows if least <= row["Duration"] <= most]
    known = {**_KNOWN, "reserved-instances-offering-id": filters.field("ReservedInstancesOfferingId")}
    known["marketplace"] = filters.field("Marketplace")
    some, token = filters.page(filters.keep(rows, asked, known), asked, "reserved offerings")
    return {"ReservedInstancesOfferings": some, "NextToken": token}


def purchase(caller: Asking, call: Call, asked: Asked) -> Mapping[str, Any]:
    """Reserves at the prices in force, from the next full hour on: it cannot be undone."""
    wanted, count = asked.get("ReservedInstancesOfferingId", ""), asked.get("InstanceCount", 0)
    if asked.get("PurchaseTime"):
        raise Fault("UnsupportedOperation", "A purchase takes effect at the next full hour: leave PurchaseTime out.")
    if not 1 <= count <= reservations.MOST_AT_ONCE:
        raise Fault("InvalidParameterValue", f"InstanceCount must be 1 to {reservations.MOST_AT_ONCE}.")
    offering = next((each for each in reservations.offerings(caller) if each.id == wanted), None)
    if offering is None:
        raise _no_offering(wanted)
    terms = offering.preview
    _must_be_within(asked.get("LimitPrice") or {}, terms, count)
    wish = buying.Wish(None, offering.offer, count, terms.years, terms.upfront)
    keys, before = _sameness(call, fingerprint(asked), caller.yard.clock.now_us())
    made = buying.reserve_for(caller.yard, caller.tenant(None), wish, caller.identity.user, keys, before)
    return {"ReservedInstancesId": made.id}


def _sameness(call: Call, mark: str, now_us: int) -> tuple[list[str], list[str]]:
    """What makes a purchase the same one again: EC2 has no client token for it, and it cannot be undone.

    A signature, which nobody but the key's holder makes, buys once: whoever overheard the request buys nothing. An SDK
    that asks again signs anew and repeats the name that it gave the call. Of a client that names no call, the same
    purchase within two minutes, or up to four, is taken for one that is asked again.
    """
    who = call.claim.key_id
    keys = [f"ec2-reserve-signature\n{who}\n{call.claim.signature}"]
    if call.invocation is not None:
        return [*keys, f"ec2-reserve-call\n{who}\n{call.invocation}"], []
    span = now_us // ALIKE_US
    alike = [f"ec2-reserve-alike\n{who}\n{mark}\n{each}" for each in (span, span - 1)]
    return [*keys, alike[0]], alike[1:]


def _must_be_within(limit: Asked, terms: Commitment, count: int) -> None:
    """Raises Fault where what is due upfront is more than the client wants to pay."""
    if not limit:
        return
    try:
        most = parse_price(limit.get("Amount", ""))
    except YardError:
        raise Fault("InvalidParameterValue", "LimitPrice.Amount must be a sum such as 100.50.") from None
    if limit.get("CurrencyCode") not in (None, terms.currency):
        raise Fault("InvalidParameterValue", f"This yard's prices are in {terms.currency}.")
    if terms.upfront_nano * count > most:
        due = format_price(terms.upfront_nano * count)
        raise Fault("InvalidParameterValue", f"{due} {terms.currency} is due upfront, which is above LimitPrice.")


def bought(caller: Asking, _: Call, asked: Asked) -> Mapping[str, Any]:
    now_us = caller.yard.clock.now_us()
    rows = [_row(each, now_us) for each in reservations.bought(caller)]
    if ids := asked.get("ReservedInstancesIds"):
        if unknown := set(ids) - {row["ReservedInstancesId"] for row in rows}:
            told = f"The reserved instances ID '{sorted(unknown)[0][:80]}' does not exist"
            raise Fault("InvalidReservedInstancesID.NotFound", told)
        rows = [row for row in rows if row["ReservedInstancesId"] in ids]
    for name in ("OfferingType", "OfferingClass"):
        rows = [row for row in rows if asked.get(name) in (None, row[name])]
    known = {**_KNOWN, "state": filters.field("State"), "reserved-instances-id": filters.field("ReservedInstancesId")}
    return {"ReservedInstances": filters.keep(rows, asked, known)}


def _row(commitment: Commitment, now_us: int) -> Asked:
    kind, count = reservations.as_instances(commitment)
    return {
        **_terms(commitment, kind, count),
        "ReservedInstancesId": commitment.id,
        "InstanceCount": count,
        "Start": commitment.start_us // SECOND_US * SECOND_US,
        "End": commitment.end_us // SECOND_US * SECOND_US,
        "State": reservations.state(commitment, now_us),
    }


def _no_offering(wanted: str) -> Fault:
    told = f"The offering '{wanted[:80]}' does not exist: see DescribeReservedInstancesOfferings"
    return Fault("InvalidReservedInstancesOfferingId.NotFound", told)

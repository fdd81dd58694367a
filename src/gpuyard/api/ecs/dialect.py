"""The ECS dialect as the door sees it: which action does what, who may, and how a refusal is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from gpuyard.access.rate_limits import ActionClass
from gpuyard.access.rules import Action
from gpuyard.access.signatures.request import Refusal, SignatureError, SignedRequest
from gpuyard.api.asking import Asking
from gpuyard.api.dialects import nouns
from gpuyard.api.dialects.call import Call
from gpuyard.api.dialects.faults import Fault, from_yard
from gpuyard.api.ecs import catalogue, instances, reserved, spot
from gpuyard.api.ecs.wire import Parameters, as_json, as_xml
from gpuyard.model.errors import YardError

Handler = Callable[[Asking, Call, Parameters], Mapping[str, Any]]
_HOST_ID: Final = "gpuyard"


@dataclass(frozen=True, slots=True)
class Operation:
    """What does it, what that takes, and whether it may change something."""

    work: Handler
    takes: Action
    changes: bool = False


def identity(caller: Asking, _: Call, __: Parameters) -> Mapping[str, Any]:
    who = caller.identity
    return {
        "AccountId": who.tenant_id,
        "UserId": who.token_id,
        "PrincipalId": who.token_id,
        "IdentityType": "RAMUser",
        "Arn": f"acs:ram::{who.tenant_id}:user/{who.user}",
    }


_READ = {
    "DescribeInstances": instances.describe,
    "DescribeInstanceStatus": instances.status,
    "DescribeDisks": instances.disks,
    "ListTagResources": instances.tags,
    "DescribeReservedInstances": reserved.bought,
    "DescribeKeyPairs": catalogue.pairs,
    "DescribeSecurityGroups": catalogue.groups,
    "DescribeVpcs": catalogue.vpcs,
    "GetCallerIdentity": identity,
    **dict.fromkeys(catalogue.NONE, catalogue.none),
}
_FLEET = {
    "DescribeRegions": catalogue.regions,
    "DescribeZones": catalogue.zones,
    "DescribeInstanceTypes": catalogue.types,
    "DescribeAvailableResource": catalogue.available,
    "DescribeImages": catalogue.image_list,
    "DescribePrice": instances.price,
    "DescribeSpotPriceHistory": spot.prices,
}
_CONTROL = {
    "StartInstance": instances.start,
    "StartInstances": instances.start,
    "StopInstance": instances.stop,
    "StopInstances": instances.stop,
    "RebootInstance": instances.reboot,
    "RebootInstances": instances.reboot,
    "DeleteInstance": instances.delete,
    "DeleteInstances": instances.delete,
    "TagResources": instances.tag,
    "UntagResources": instances.untag,
    "CreateKeyPair": catalogue.create_pair,
    "ImportKeyPair": catalogue.import_pair,
    "DeleteKeyPairs": catalogue.delete_pairs,
    **dict.fromkeys(catalogue.REFUSED, catalogue.refuse),
}
OPERATIONS: Final[Mapping[str, Operation]] = {
    **{name: Operation(work, Action.READ) for name, work in _READ.items()},
    **{name: Operation(work, Action.READ_FLEET) for name, work in _FLEET.items()},
    **{name: Operation(work, Action.CONTROL, changes=True) for name, work in _CONTROL.items()},
    "RunInstances": Operation(instances.run, Action.LAUNCH, changes=True),
    "PurchaseReservedInstancesOffering": Operation(reserved.purchase, Action.COMMIT, changes=True),
}

# One set of policies holds at every door: they are written in EC2's verbs.
VERBS: Final[Mapping[str, str]] = {
    "StartInstance": "ec2:StartInstances",
    "StopInstance": "ec2:StopInstances",
    "RebootInstance": "ec2:RebootInstances",
    "DeleteInstance": "ec2:TerminateInstances",
    "DeleteInstances": "ec2:TerminateInstances",
    "TagResources": "ec2:CreateTags",
    "UntagResources": "ec2:DeleteTags",
    "ListTagResources": "ec2:DescribeTags",
    "DescribeDisks": "ec2:DescribeVolumes",
    "DeleteKeyPairs": "ec2:DeleteKeyPair",
    "DescribeZones": "ec2:DescribeAvailabilityZones",
    "DescribeAvailableResource": "ec2:DescribeInstanceTypeOfferings",
    "GetCallerIdentity": "sts:GetCallerIdentity",
}
_CODES: Final = {
    "workload_not_found": ("InvalidInstanceId.NotFound", 404),
    "key_pair_not_found": ("InvalidKeyPairName.NotFound", 404),
    "name_taken": ("KeyPair.AlreadyExist", 400),
    "invalid_public_key": ("PublicKey.Malformed", 400),
    "unknown_offer": ("InvalidInstanceType.NotFound", 404),
    "no_card_of_model": ("InvalidInstanceType.NotFound", 404),
    "unknown_image": ("InvalidImageId.NotFound", 404),
    "runtime_unavailable": ("InvalidImageId.NotSupported", 403),
    "wrong_state": ("IncorrectInstanceStatus", 403),
    "cpu_only_switch": ("IncorrectInstanceStatus", 403),
    "idempotency_mismatch": ("IdempotentParameterMismatch", 400),
    "no_reservation": ("InvalidParameter.Period", 400),
    "bid_refused": (spot.LOW, 400),
    "no_capacity": ("OperationDenied.NoStock", 403),
    "insufficient_credit": ("InvalidAccountStatus.NotEnoughBalance", 403),
    "quota_exceeded": ("QuotaExceed.ElasticQuota", 403),
    "outside_geography": ("Forbidden.RAM", 403),
    "forbidden": ("Forbidden.RAM", 403),
    "denied_by_policy": ("Forbidden.RAM", 403),
    "too_many_requests": ("Throttling", 400),  # what its clients wait upon and ask again
    "internal": ("InternalError", 500),
    "store_unavailable": ("ServiceUnavailable", 503),
    "storage_full": ("ServiceUnavailable", 503),
}


class Ecs:
    """See `door.Dialect`."""

    def action(self, request: SignedRequest) -> str:
        if "x-acs-action" in request.headers and request.headers.get("authorization", "").startswith("ACS3-"):
            return request.headers["x-acs-action"]
        return next((value for name, value in (*request.query, *request.form) if name == "Action"), "")

    def classify(self, action: str) -> ActionClass:
        operation = OPERATIONS.get(action)
        if operation is None or not operation.changes:
            return ActionClass.READ
        return ActionClass.LAUNCH if operation.takes is Action.LAUNCH else ActionClass.CHANGE

    def answer(self, caller: Asking, call: Call) -> Response:
        operation = OPERATIONS.get(call.action)
        if operation is None:
            raise Fault(
                "UnsupportedOperation", f"The action {call.action[:100] or '(none)'} is not served by this yard."
            )
        given = Parameters(call.pairs)
        if operation.takes is not Action.LAUNCH:  # which is judged with all that it asks for
            nouns.must(caller, operation.takes, VERBS.get(call.action, f"ec2:{call.action}"), _named(given))
        value = {"RequestId": call.request_id, **operation.work(caller, call, given)}
        is_json = call.claim.scheme == "ACS3-HMAC-SHA256" or _wants_json(call.pairs)
        return _written(f"{call.action}Response", value, is_json, 200)

    def refuse(self, error: Exception, request: SignedRequest, request_id: str) -> Response:
        fault = _fault(error)
        is_v3 = request.headers.get("authorization", "").startswith("ACS3-")
        value = {
            "RequestId": request_id,
            "HostId": _HOST_ID,
            "Code": fault.code,
            "Message": fault.message,
            "Recommend": "",
        }
        return _written("Error", value, is_v3 or _wants_json([*request.query, *request.form]), fault.status)


def _named(given: Parameters) -> list[str]:
    """The instances that a request is about."""
    return [one for name in ("InstanceIds", "InstanceId", "ResourceId") for one in given.listed(name)]


def _wants_json(pairs: list[tuple[str, str]]) -> bool:
    """XML is what is written where no format is named."""
    return any(name == "Format" and value.upper() == "JSON" for name, value in pairs)


def _written(root: str, value: Mapping[str, Any], is_json: bool, status: int) -> Response:
    if is_json:
        return Response(as_json(value), status, media_type="application/json")
    return Response(as_xml(root, value), status, media_type="text/xml")


def _fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, YardError):
        return from_yard(error, _CODES, "InvalidParameter")
    assert isinstance(error, SignatureError)  # noqa: S101 - the door lets nothing else through
    return _unsigned(error)


def _unsigned(error: SignatureError) -> Fault:
    match error.refusal:
        case Refusal.MISSING | Refusal.MALFORMED:
            return Fault("IncompleteSignature", error.detail or "The request is not signed.")
        case Refusal.UNKNOWN_KEY:
            return Fault("InvalidAccessKeyId.NotFound", "Specified access key is not found.", 404)
        case Refusal.EXPIRED:
            return Fault("InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
        case Refusal.REPLAYED:
            return Fault("SignatureNonceUsed", "Specified signature nonce was used already.")
        case Refusal.MISMATCH:
            # Clients cut this message at its colon and compare the rest with what they signed themselves.
            told = "Specified signature is not matched with our calculation. server string to sign is:"
            return Fault("SignatureDoesNotMatch", told + error.detail)

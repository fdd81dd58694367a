"""The EC2 dialect as the door sees it: which action does what, who may, and how a refusal is written."""

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
from gpuyard.api.ec2 import catalogue, instances, refused, reserved, shapes, spot, tags
from gpuyard.model.errors import YardError

Handler = Callable[[Asking, Call, dict[str, Any]], Mapping[str, Any]]
VERSIONS: Final = ("2016-11-15", "2011-06-15")
_NOT_OURS: Final = ("Action", "Version")


@dataclass(frozen=True, slots=True)
class Operation:
    """What does it, what that takes, and whether it may change something."""

    work: Handler
    takes: Action
    changes: bool = False


def identity(caller: Asking, _: Call, __: dict[str, Any]) -> Mapping[str, Any]:
    who = caller.identity
    return {"UserId": who.token_id, "Account": who.tenant_id, "Arn": f"arn:aws:iam::{who.tenant_id}:user/{who.user}"}


_READ = {
    "DescribeInstances": instances.describe,
    "DescribeInstanceStatus": instances.status,
    "DescribeInstanceAttribute": instances.attribute,
    "DescribeVolumes": catalogue.volumes,
    "DescribeTags": tags.describe,
    "DescribeKeyPairs": tags.describe_pairs,
    "DescribeSpotInstanceRequests": spot.describe,
    "DescribeReservedInstances": reserved.bought,
    "DescribeSecurityGroups": catalogue.groups,
    "DescribeVpcs": catalogue.vpcs,
    "DescribeSubnets": catalogue.subnets,
    "GetCallerIdentity": identity,
    **dict.fromkeys(refused.NONE, refused.none),
}
_FLEET = {
    "DescribeRegions": catalogue.regions,
    "DescribeAvailabilityZones": catalogue.zones,
    "DescribeInstanceTypes": catalogue.types,
    "DescribeInstanceTypeOfferings": catalogue.offerings,
    "DescribeImages": catalogue.image_list,
    "DescribeAccountAttributes": catalogue.account,
    "DescribeSpotPriceHistory": spot.prices,
    "DescribeReservedInstancesOfferings": reserved.offerings,
}
_CONTROL = {
    "StartInstances": instances.start,
    "StopInstances": instances.stop,
    "RebootInstances": instances.reboot,
    "TerminateInstances": instances.terminate,
    "CancelSpotInstanceRequests": spot.cancel,
    "CreateTags": tags.create,
    "DeleteTags": tags.delete,
    "CreateKeyPair": tags.create_pair,
    "ImportKeyPair": tags.import_pair,
    "DeleteKeyPair": tags.delete_pair,
    **dict.fromkeys(refused.REFUSED, refused.refuse),
}
OPERATIONS: Final[Mapping[str, Operation]] = {
    **{name: Operation(work, Action.READ) for name, work in _READ.items()},
    **{name: Operation(work, Action.READ_FLEET) for name, work in _FLEET.items()},
    **{name: Operation(work, Action.CONTROL, changes=True) for name, work in _CONTROL.items()},
    "RunInstances": Operation(instances.run, Action.LAUNCH, changes=True),
    "RequestSpotInstances": Operation(spot.request, Action.LAUNCH, changes=True),
    "PurchaseReservedInstancesOffering": Operation(reserved.purchase, Action.COMMIT, changes=True),
}

_CODES: Final = {
    "workload_not_found": ("InvalidInstanceID.NotFound", 400),
    "key_pair_not_found": ("InvalidKeyPair.NotFound", 400),
    "name_taken": ("InvalidKeyPair.Duplicate", 400),
    "invalid_public_key": ("InvalidKey.Format", 400),
    "unknown_offer": ("InvalidParameterValue", 400),
    "no_card_of_model": ("InvalidParameterValue", 400),
    "unknown_image": ("InvalidAMIID.NotFound", 400),
    "runtime_unavailable": ("InvalidAMIID.Unavailable", 400),
    "wrong_state": ("IncorrectInstanceState", 400),
    "cpu_only_switch": ("IncorrectInstanceState", 400),
    "idempotency_mismatch": ("IdempotentParameterMismatch", 400),
    "no_reservation": ("InvalidReservedInstancesOfferingId.NotFound", 400),
    "bid_refused": ("SpotMaxPriceTooLow", 400),
    "no_capacity": ("InsufficientInstanceCapacity", 400),  # not 500: clients would ask five times more at once
    "insufficient_credit": ("InsufficientFundsException", 400),
    "quota_exceeded": ("InstanceLimitExceeded", 400),
    "outside_geography": ("UnauthorizedOperation", 403),
    "forbidden": ("UnauthorizedOperation", 403),
    "denied_by_policy": ("UnauthorizedOperation", 403),
    "too_many_requests": ("RequestLimitExceeded", 503),  # what its clients wait upon and ask again
    "internal": ("InternalError", 500),
    "store_unavailable": ("Unavailable", 503),
    "storage_full": ("Unavailable", 503),
}
_UNSIGNED: Final = {
    Refusal.MISSING: ("MissingAuthenticationToken", 403, "Request is missing Authentication Token"),
    Refusal.MALFORMED: ("IncompleteSignature", 400, ""),
    Refusal.UNKNOWN_KEY: ("AuthFailure", 401, "AWS was not able to validate the provided access credentials"),
    Refusal.MISMATCH: (
        "SignatureDoesNotMatch",
        403,
        "The request signature we calculated does not match the signature you provided. Check your secret access key "
        "and signing method.",
    ),
    Refusal.EXPIRED: ("RequestExpired", 400, ""),
    Refusal.REPLAYED: ("RequestExpired", 400, "The request was sent before."),
}


class Ec2:
    """See `door.Dialect`."""

    def action(self, request: SignedRequest) -> str:
        return next((value for name, value in (*request.form, *request.query) if name == "Action"), "")

    def classify(self, action: str) -> ActionClass:
        operation = OPERATIONS.get(action)
        if operation is None or not operation.changes:
            return ActionClass.READ
        return ActionClass.LAUNCH if operation.takes is Action.LAUNCH else ActionClass.CHANGE

    def answer(self, caller: Asking, call: Call) -> Response:
        operation = OPERATIONS.get(call.action)
        if operation is None or not shapes.serves(call.action):
            raise Fault(
                "UnsupportedOperation", f"The action {call.action[:100] or '(none)'} is not served by this yard."
            )
        if call.claim.scheme != "AWS4-HMAC-SHA256" or call.claim.keyed[2] not in ("ec2", "sts"):
            raise Fault("SignatureDoesNotMatch", "Credential should be scoped to correct service: 'ec2'.", 403)
        pairs = [(name, value) for name, value in call.pairs if not name.startswith("X-Amz-")]
        version = next((value for name, value in pairs if name == "Version"), "")
        if version not in VERSIONS:
            raise Fault("InvalidParameterValue", f"Version must be {VERSIONS[0]}.")
        asked = shapes.parse(call.action, [pair for pair in pairs if pair[0] not in _NOT_OURS])
        if operation.takes is not Action.LAUNCH:  # which is judged with all that it asks for
            nouns.must(caller, operation.takes, _verb(call.action), _named(asked))
        if asked.get("DryRun") and operation.takes is not Action.LAUNCH:
            raise Fault("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        return _xml(shapes.render(call.action, call.request_id, operation.work(caller, call, asked)))

    def refuse(self, error: Exception, request: SignedRequest, request_id: str) -> Response:
        fault = _fault(error)
        sts = self.action(request) == "GetCallerIdentity"
        return _xml(shapes.render_fault(fault, request_id, sts), fault.status)


def _verb(action: str) -> str:
    return f"{'sts' if action == 'GetCallerIdentity' else 'ec2'}:{action}"


def _named(asked: Mapping[str, Any]) -> list[str]:
    """The instances that a request is about, by their own ids or their disks'."""
    requests = ["i-" + one.removeprefix("sir-") for one in asked.get("SpotInstanceRequestIds") or ()]
    disks = [one for name in ("Resources", "VolumeIds") for one in asked.get(name) or ()]
    ids = [*(asked.get("InstanceIds") or ()), *filter(None, [asked.get("InstanceId")])]
    return [*ids, *requests, *("i-" + one.removeprefix("vol-") if one.startswith("vol-") else one for one in disks)]


def _fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, SignatureError):
        code, status, told = _UNSIGNED[error.refusal]
        return Fault(code, told or error.detail, status)
    assert isinstance(error, YardError)  # noqa: S101 - the door lets nothing else through
    return from_yard(error, _CODES, "InvalidParameterValue")


def _xml(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="text/xml")

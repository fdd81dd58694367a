"""What is asked of access, in the words of policies: an action, the resource's name, and the facts of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gpuyard.access.policies.engine import Request
from gpuyard.access.policies.engine import context as lowered
from gpuyard.access.policies.patterns import Values
from gpuyard.access.rules import Action
from gpuyard.model.tenants import Identity
from gpuyard.model.times import to_text

# The verb of each action where the caller names none that is more exact.
VERBS: Final[dict[Action, str]] = {
    Action.READ_FLEET: "gpuyard:ReadFleet",
    Action.OPERATE_YARD: "gpuyard:OperateYard",
    Action.READ: "ec2:DescribeInstances",
    Action.LAUNCH: "ec2:RunInstances",
    Action.CONTROL: "ec2:StopInstances",
    Action.ENTER: "gpuyard:EnterWorkload",
    Action.COMMIT: "ec2:PurchaseReservedInstancesOffering",
    Action.MANAGE_TENANTS: "gpuyard:ManageTenants",
    Action.MANAGE_TOKENS: "gpuyard:ManageTokens",
}
_PERSONAL: Final = frozenset({"aws:username", "aws:userid", "aws:sourceip", "aws:useragent", "aws:principalarn"})


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `verb` is the action as policies name it; `facts` are the keys that the request fills."""

    identity: Identity
    action: Action
    tenant_id: str | None  # whose it is; None for the yard itself
    verb: str
    resource: str
    facts: Mapping[str, Values] = field(default_factory=dict[str, Values])

    def request(self) -> Request:
        """As the engine takes it."""
        return Request(self.verb, self.resource, lowered(self.facts))

    def personal(self) -> dict[str, Values]:
        """The facts by which a person may be known."""
        return {key: value for key, value in self.facts.items() if key.lower() in _PERSONAL}

    def impersonal(self) -> dict[str, Values]:
        """The other facts."""
        return {key: value for key, value in self.facts.items() if key.lower() not in _PERSONAL}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as far as the yard saw it itself."""

    address: str | None = None
    user_agent: str | None = None
    secure: bool = False


def ask(
    identity: Identity,
    action: Action,
    tenant_id: str | None,
    origin: Origin,
    now_us: int,
    *,
    verb: str | None = None,
    about: str = "*",
    facts: Mapping[str, Values] | None = None,
) -> Question:
    """A question of an identity. `about` is the workload's id, or `volume/NAME`, where it is about one."""
    principal = f"arn:aws:iam::{identity.tenant_id}:user/{identity.user}"
    filled: dict[str, Values] = {
        "aws:username": identity.user,
        "aws:userid": identity.token_id,
        "aws:PrincipalAccount": identity.tenant_id,
        "aws:PrincipalArn": principal,
        "aws:PrincipalType": "User",
        "aws:CurrentTime": to_text(now_us),
        "aws:EpochTime": str(now_us // 1_000_000),
        "aws:SecureTransport": "true" if origin.secure else "false",
        "gpuyard:Role": identity.role.value,
        **(facts or {}),
    }
    if origin.address is not None:
        filled["aws:SourceIp"] = origin.address
    if origin.user_agent:
        filled["aws:UserAgent"] = origin.user_agent[:256]
    return Question(identity, action, tenant_id, verb or VERBS[action], resource_name(action, tenant_id, about), filled)


def resource_name(action: Action, tenant_id: str | None, about: str = "*") -> str:
    """The ARN that policies name a resource by."""
    if about.startswith("volume/"):
        return f"arn:aws:ec2::{tenant_id or ''}:{about}"
    if action in (Action.READ, Action.LAUNCH, Action.CONTROL, Action.ENTER):
        return f"arn:aws:ec2::{tenant_id or ''}:instance/{about}"
    if action is Action.COMMIT:
        return f"arn:aws:ec2::{tenant_id or ''}:reserved-instances/{about}"
    return f"arn:aws:gpuyard::{tenant_id or ''}:yard"

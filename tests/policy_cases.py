"""Random policies and requests, within what IAM documents: keys of their type, set operators on keys of many values only."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from gpuyard.access.policies.patterns import Values

ACCOUNT = "123456789012"
PRINCIPAL = f"arn:aws:iam::{ACCOUNT}:user/alice"
_ACTIONS = ("ec2:RunInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances")
_ACTION_TEXTS = (
    *_ACTIONS, "*", "ec2:*", "ec2:Run*", "EC2:runinstances", "ec2:St?pInstances", "ec2:*Instances", "s3:*", "ec2:Describe*",
)  # fmt: skip
_RESOURCES = tuple(
    f"arn:aws:ec2:{place}:{ACCOUNT}:instance/{name}" for place in ("eu-1", "cn-2") for name in ("i-1", "i-22")
)
_RESOURCE_TEXTS = (
    *_RESOURCES, "*", "arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:eu-*:*:instance/*", "arn:aws:ec2:*:*:instance/i-?",
    f"arn:aws:ec2:cn-2:{ACCOUNT}:*", "arn:aws:ec2:*:*:volume/*", "arn:aws:ec2:*:*:instance/*-1",
    "arn:aws:ec2:*:*:instance/${aws:PrincipalTag/home}",
)  # fmt: skip
# key -> (values of requests, values of policies, operators)
_STRINGS = (
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
)
_NUMBERS = (
    "NumericEquals",
    "NumericNotEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
)
_DATES = tuple(name.replace("Numeric", "Date") for name in _NUMBERS)
_ADDRESSES = ("IpAddress", "NotIpAddress")
_ARNS = ("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike")
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "aws:username": (("alice", "Bob"), ("alice", "bob", "al*", "?ob", "${aws:PrincipalTag/home}", "b${*}b", "*"), _STRINGS),
    "aws:PrincipalTag/home": (("i-1", "alice", "al*"), ("i-1", "ALICE", "${aws:username}", "i-?", "${aws:userid, 'i-1'}"), _STRINGS),
    "aws:UserAgent": (("Boto3/1.44", "curl"), ("boto3/*", "Boto3/1.??", "curl", "*/*", "${$}"), _STRINGS),
    "aws:RequestedRegion": (("eu-1", "cn-2"), ("eu-*", "cn-2", "CN-2", "us-1"), _STRINGS),
    "aws:EpochTime": (("1800000000",), ("1700000000", "1800000000", "1900000000"), _NUMBERS),
    "aws:CurrentTime": (
        ("2026-11-27T02:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-11-27T02:00:00Z", "2026-11-27T03:00:00+01:00", "2025-01-01T00:00:00Z", "2027-01-01"), _DATES),
    "aws:SecureTransport": (("true", "false"), ("true", "false"), ("Bool",)),
    "aws:SourceIp": (
        ("10.1.2.3", "203.0.113.9", "2001:db8::7"), ("10.0.0.0/8", "203.0.113.9", "203.0.113.0/29", "2001:db8::/32", "0.0.0.0/1"), _ADDRESSES),
    "aws:PrincipalArn": ((PRINCIPAL,), (PRINCIPAL, "arn:aws:iam::*:user/*", "arn:aws:iam::*:role/*", "arn:aws:iam::*:user/${aws:username}"), _ARNS),
}  # fmt: skip
_TAG_KEYS = ("team", "Team", "cost", "env")


@dataclass(frozen=True, slots=True)
class Case:
    """Policies of an identity, perhaps fences, and a request."""

    identity: list[dict[str, Any]]
    boundary: dict[str, Any] | None
    organisation: list[dict[str, Any]]
    action: str
    resource: str
    context: dict[str, Values]

    def simulation(self) -> dict[str, Any]:
        """As the oracle reads it."""
        context = {key: list(value) if isinstance(value, tuple) else value for key, value in self.context.items()}
        named = [{"name": f"p{n}", "policy": policy} for n, policy in enumerate(self.identity)]
        found: dict[str, Any] = {
            "request": {
                "principal": PRINCIPAL,
                "action": self.action,
                "resource": {"resource": self.resource, "accountId": ACCOUNT},
                "contextVariables": context,
            },
            "identityPolicies": named,
            "serviceControlPolicies": [
                {"orgIdentifier": f"ou-{n}", "policies": [{"name": "fence", "policy": policy}]}
                for n, policy in enumerate(self.organisation)
            ],
            "resourceControlPolicies": [],
        }
        if self.boundary is not None:
            found["permissionBoundaryPolicies"] = [{"name": "boundary", "policy": self.boundary}]
        return found


def case(chance: random.Random) -> Case:
    """One case."""
    context: dict[str, Values] = {"aws:PrincipalArn": PRINCIPAL}
    for key in ("aws:username", "aws:PrincipalTag/home"):  # variables: what one without a value means, nobody agrees on
        context[key] = chance.choice(_KEYS[key][0])
    for key, (values, _, _) in _KEYS.items():
        if key not in context and chance.random() < 0.7:
            context[key] = chance.choice(values)
    if chance.random() < 0.6:
        context["aws:TagKeys"] = tuple(chance.sample(_TAG_KEYS, chance.randint(1, 3)))
    made = Case(
        identity=[_policy(chance) for _ in range(chance.randint(1, 3))],
        boundary=_policy(chance, wide=0.6) if chance.random() < 0.25 else None,
        organisation=[_policy(chance, wide=0.7) for _ in range(chance.choice((0, 0, 0, 1, 2)))],
        action=chance.choice(_ACTIONS),
        resource=chance.choice(_RESOURCES),
        context=context,
    )
    if "NotIpAddress" in str(made) and ":" in str(context.get("aws:SourceIp", "")):
        context["aws:SourceIp"] = "10.1.2.3"  # the oracle takes no IPv6 address to be outside an IPv4 network
    return made


def _policy(chance: random.Random, wide: float = 0.0) -> dict[str, Any]:
    statements = [_statement(chance) for _ in range(chance.randint(1, 3))]
    if chance.random() < wide:
        statements.append({"Effect": "Allow", "Action": "*", "Resource": "*"})
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(chance: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"Effect": "Deny" if chance.random() < 0.25 else "Allow"}
    actions = chance.sample(_ACTION_TEXTS, chance.randint(1, 2))
    found["NotAction" if chance.random() < 0.15 else "Action"] = actions
    resources = chance.sample(_RESOURCE_TEXTS, chance.randint(1, 2))
    found["NotResource" if chance.random() < 0.15 else "Resource"] = resources
    if chance.random() < 0.75:
        found["Condition"] = {}
        for _ in range(chance.randint(1, 2)):
            operator, key, values = _condition(chance)
            found["Condition"].setdefault(operator, {})[key] = values
    return found


def _condition(chance: random.Random) -> tuple[str, str, list[str] | str]:
    key = chance.choice((*_KEYS, "aws:TagKeys", "null"))
    if key == "null":
        return "Null", chance.choice((*_KEYS, "aws:TagKeys")), chance.choice(("true", "false"))
    if key == "aws:TagKeys":
        operator = f"{chance.choice(('ForAnyValue', 'ForAllValues'))}:{chance.choice(_STRINGS)}"
        return operator, key, chance.sample((*_TAG_KEYS, "te*", "?nv"), chance.randint(1, 3))
    _, values, operators = _KEYS[key]
    operator = chance.choice(operators) + ("IfExists" if chance.random() < 0.25 else "")
    return (
        operator,
        chance.choice((key, key.upper(), key)),
        chance.sample(values, chance.randint(1, min(2, len(values)))),
    )

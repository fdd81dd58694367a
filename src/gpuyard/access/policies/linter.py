"""What is wrong with a policy before it counts: a key that is never there makes a negated condition always true, and a
misspelt action protects nothing. So what is not known is refused when it is saved, with the name that was probably
meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gpuyard.access.policies import operators, vocabulary
from gpuyard.access.policies.document import Condition, Policy, Statement
from gpuyard.access.policies.operators import Operator
from gpuyard.access.policies.patterns import variables
from gpuyard.model.errors import YardError

_PARTITIONS: Final = ("aws", "aws-cn", "*")
# Which types of keys the values of an operator may be compared with.
_FITS: Final = {
    "string": ("string", "strings", "arn", "arns"),
    "arn": ("arn", "arns"),
    "numeric": ("numeric",),
    "date": ("date",),
    "bool": ("bool",),
    "binary": ("binary",),
    "ip": ("ip",),
}


def lint(policy: Policy) -> list[YardError]:
    """Everything for which the policy is refused, in the order in which it stands there; empty for a good one."""
    return [finding for statement in policy.statements for finding in _statement(policy, statement)]


def warnings(policy: Policy) -> list[YardError]:
    """What is allowed and probably not meant."""
    found: list[YardError] = []
    for statement in policy.statements:
        where = f"{policy.name}/{statement.label}"
        for condition in statement.conditions:
            operator = operators.find(condition.operator)
            if statement.deny and operator is not None and operator.base == "ipaddress":
                found.append(_refused(where, "policy_deny_list", key=condition.key))
        if not statement.deny and (statement.not_actions or statement.not_resources):
            found.append(_refused(where, "policy_allow_not"))
    return found


def _statement(policy: Policy, statement: Statement) -> Iterator[YardError]:
    where = f"{policy.name}/{statement.label}"
    known = vocabulary.load()
    for action in statement.actions:
        if not known.has_action(action):
            yield _refused(where, "policy_unknown_action", action=action, nearest=known.nearest_action(action))
    for resource in statement.resources:
        yield from _resource(where, policy, resource)
    for condition in statement.conditions:
        yield from _condition(where, policy, statement, condition)


def _resource(where: str, policy: Policy, resource: str) -> Iterator[YardError]:
    if resource == "*":
        return
    parts = resource.split(":", 5)
    whole = len(parts) == 6 and parts[0] == "arn" and parts[1] in _PARTITIONS and parts[5] != ""
    # What a wildcard in the kind of a resource matches is documented nowhere, unless it stands for every resource.
    if not whole or (parts[5] != "*" and set(parts[5].partition("/")[0]) & {"*", "?"}):
        yield _refused(where, "policy_resource", resource=resource)
    yield from _variables(where, policy, resource)


def _condition(where: str, policy: Policy, statement: Statement, condition: Condition) -> Iterator[YardError]:
    known = vocabulary.load()
    operator = operators.find(condition.operator)
    if operator is None:
        nearest = vocabulary.nearest(condition.operator, spelled())
        yield _refused(where, "policy_unknown_operator", operator=condition.operator, nearest=nearest)
        return
    kind = known.type_of(condition.key)
    if kind is None:
        reason = "policy_key_not_filled" if known.defined(condition.key) else "policy_unknown_key"
        yield _refused(where, reason, key=condition.key, nearest=known.nearest_key(condition.key))
        return
    if not condition.values:
        yield _refused(where, "policy_empty", element=condition.key)
    yield from _readable(where, operator, condition)
    if operator.base == "null":
        return
    if kind not in _FITS[operators.TYPES[operator.base]]:
        yield _refused(where, "policy_type", key=condition.key, kind=kind, operator=condition.operator)
    yield from _sets(where, statement, operator, condition, kind.endswith(vocabulary.MANY))
    for value in condition.values:
        if operators.TYPES[operator.base] in ("string", "arn"):
            yield from _variables(where, policy, value)


def _readable(where: str, operator: Operator, condition: Condition) -> Iterator[YardError]:
    reader = operators.READERS.get(operator.base)
    for value in condition.values:
        try:
            if reader is not None:
                reader(value)
        except ValueError:
            yield _refused(where, "policy_value", value=value[:100], operator=condition.operator)


def _sets(
    where: str, statement: Statement, operator: Operator, condition: Condition, many: bool
) -> Iterator[YardError]:
    if many is (operator.over is None):
        reason = "policy_needs_set" if many else "policy_no_set"
        yield _refused(where, reason, key=condition.key, operator=condition.operator)
    if operator.over == "any" and operator.if_exists:
        yield _refused(where, "policy_any_if_exists", operator=condition.operator)
    if operator.over == "all" and not statement.deny and not _must_be_there(statement, condition.key):
        yield _refused(where, "policy_all_of_none", key=condition.key, operator=condition.operator)


def _must_be_there(statement: Statement, key: str) -> bool:
    return any(
        condition.operator.lower() == "null"
        and condition.key.lower() == key.lower()
        and [value.lower() for value in condition.values] == ["false"]
        for condition in statement.conditions
    )


def _variables(where: str, policy: Policy, text: str) -> Iterator[YardError]:
    if "${" in text and not policy.with_variables:
        yield _refused(where, "policy_old_variables", text=text[:100])
    for key in variables(text):
        kind = vocabulary.load().type_of(key)
        if kind is None or kind.endswith(vocabulary.MANY):
            yield _refused(where, "policy_unknown_variable", key=key, nearest=vocabulary.load().nearest_key(key))


def spelled() -> list[str]:
    """Operators as people write them."""
    names: str = (
        "StringEquals StringNotEquals StringEqualsIgnoreCase StringNotEqualsIgnoreCase StringLike StringNotLike "
        "NumericEquals NumericNotEquals NumericLessThan NumericLessThanEquals NumericGreaterThan "
        "NumericGreaterThanEquals DateEquals DateNotEquals DateLessThan DateLessThanEquals DateGreaterThan "
        "DateGreaterThanEquals Bool BinaryEquals IpAddress NotIpAddress ArnEquals ArnLike ArnNotEquals ArnNotLike Null"
    )
    return list(names.split())


def _refused(where: str, reason: str, **facts: object) -> YardError:
    return YardError("invalid_policy", where=where, reason=reason, **facts)

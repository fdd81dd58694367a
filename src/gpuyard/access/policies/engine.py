"""The decision: may this principal take this action on this resource, now?

The order is the one that IAM documents: a Deny that applies wins over everything; an Allow of the identity is needed,
and each fence (organisation, boundary, session) must allow as well. What cannot be understood works against the
request: an Allow with it does not apply, a Deny with it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gpuyard.access.policies import operators
from gpuyard.access.policies.document import Condition, Policy, Statement
from gpuyard.access.policies.patterns import Context, Matcher, Values, compile_arn, compile_text, variables

_REMEMBERED: Final = 2048  # actions whose statements are kept at hand
_NOTHING: Final = ""
# Three answers: holds, does not hold, cannot be told.
_Test = Callable[[Context], "bool | None"]


class Because(StrEnum):
    """Why a decision is as it is."""

    EXPLICIT_DENY = "explicit_deny"  # a statement denies it
    NOT_ALLOWED = "not_allowed"  # no statement allows it
    ORGANISATION = "organisation"  # the organisation's fence does not let it through
    BOUNDARY = "boundary"  # the permissions boundary does not
    SESSION = "session"  # the session's policy does not
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class Request:
    """Who is asking is part of the context (`aws:username`, ...), whose keys are in lower case."""

    action: str
    resource: str
    context: Context = field(default_factory=dict[str, Values])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision and the statements that made it, as `policy/statement`; empty where none applied."""

    allowed: bool
    because: Because
    statements: tuple[str, ...] = ()


def context(values: Mapping[str, Values]) -> Context:
    """A request's values under the keys as they are compared: in lower case."""
    return {key.lower(): value for key, value in values.items()}


@dataclass(frozen=True, slots=True)
class _Compiled:
    name: str
    deny: bool
    action: Callable[[str], bool]
    resource: Matcher
    left_out_by: tuple[str, ...]  # the keys that say what NotResource leaves out
    tests: tuple[_Test, ...]

    def applies(self, request: Request) -> bool:
        if not self.resource(request.resource, request.context):
            return False
        # What a key without one value leaves out cannot be told, and it must not come to leave out nothing.
        unknown = any(not isinstance(request.context.get(key), str) for key in self.left_out_by)
        for test in self.tests:
            held = test(request.context)
            if held is False:
                return False
            unknown |= held is None
        return self.deny if unknown else True


class Policies:
    """Policies that are alike in rank, compiled once and asked often."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._statements = [_compile(policy, statement) for policy in policies for statement in policy.statements]
        self._at_hand: dict[str, tuple[list[_Compiled], list[_Compiled]]] = {}

    def denying(self, request: Request) -> str:
        """The first statement that denies it."""
        return _first(self._about(request.action)[0], request)

    def allowing(self, request: Request) -> str:
        """The first statement that allows it."""
        return _first(self._about(request.action)[1], request)

    def _about(self, action: str) -> tuple[list[_Compiled], list[_Compiled]]:
        """The denying and the allowing statements that speak of this action."""
        found = self._at_hand.get(action)
        if found is None:
            low = action.lower()
            about = [statement for statement in self._statements if statement.action(low)]
            found = [one for one in about if one.deny], [one for one in about if not one.deny]
            if len(self._at_hand) >= _REMEMBERED:
                self._at_hand.clear()
            self._at_hand[action] = found
        return found


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that applies to one principal. A fence that is None is not there; one that is empty lets nothing
    through. Of the organisation's fences, one for each level, every one must allow."""

    identity: Policies
    organisation: tuple[Policies, ...] = ()
    boundary: Policies | None = None
    session: Policies | None = None


def decide(rules: Rules, request: Request) -> Verdict:
    """The verdict, and the statement that made it."""
    fences: list[tuple[Policies, Because]] = [(level, Because.ORGANISATION) for level in rules.organisation]
    if rules.boundary is not None:
        fences.append((rules.boundary, Because.BOUNDARY))
    if rules.session is not None:
        fences.append((rules.session, Because.SESSION))
    if denied := rules.identity.denying(request):
        return Verdict(False, Because.EXPLICIT_DENY, (denied,))
    for fence, _ in fences:
        if denied := fence.denying(request):
            return Verdict(False, Because.EXPLICIT_DENY, (denied,))
    allowed = rules.identity.allowing(request)
    if not allowed:
        return Verdict(False, Because.NOT_ALLOWED)
    through = [allowed]
    for fence, name in fences:
        if not (let := fence.allowing(request)):
            return Verdict(False, name)
        through.append(let)
    return Verdict(True, Because.ALLOWED, tuple(through))


def _first(statements: list[_Compiled], request: Request) -> str:
    for statement in statements:
        if statement.applies(request):
            return statement.name
    return _NOTHING


def _compile(policy: Policy, statement: Statement) -> _Compiled:
    actions = [compile_text(text.lower(), wildcards=True, with_variables=False) for text in statement.actions]
    resources = [compile_arn(text, with_variables=policy.with_variables) for text in statement.resources]
    return _Compiled(
        name=f"{policy.name}/{statement.label}",
        deny=statement.deny,
        action=_actions(actions, statement.not_actions),
        resource=_resources(resources, statement.not_resources),
        left_out_by=_needed(policy, statement),
        tests=tuple(_test(condition, policy.with_variables) for condition in statement.conditions),
    )


def _actions(matchers: list[Matcher], negated: bool) -> Callable[[str], bool]:
    return lambda action: any(matches(action, {}) for matches in matchers) is not negated


def _resources(matchers: list[Matcher], negated: bool) -> Matcher:
    if len(matchers) == 1 and not negated:
        return matchers[0]
    return lambda resource, context: any(matches(resource, context) for matches in matchers) is not negated


def _needed(policy: Policy, statement: Statement) -> tuple[str, ...]:
    if not statement.not_resources or not policy.with_variables:
        return ()
    return tuple(key.lower() for text in statement.resources for key in variables(text))


def _test(condition: Condition, with_variables: bool) -> _Test:
    operator = operators.find(condition.operator)
    key = condition.key.lower()
    if operator is None:
        return _never_known
    try:
        if operator.base == "null":
            absent = {operators.boolean(value) for value in condition.values}
            return lambda context: (key not in context) in absent
        matcher = operators.BASES[operator.base](condition.values, with_variables)
    except ValueError:
        return _never_known
    return _one_value(operator, key, matcher) if operator.over is None else _every_value(operator, key, matcher)


def _never_known(context: Context) -> bool | None:
    del context
    return None


def _one_value(operator: operators.Operator, key: str, matcher: Matcher) -> _Test:
    negated = operator.negated
    if_absent = negated or operator.if_exists

    def test(context: Context) -> bool | None:
        value = context.get(key)
        if value is None:
            return if_absent
        if not isinstance(value, str):
            return None  # one of many values, and the policy does not say whether any or all
        try:
            return matcher(value, context) is not negated
        except ValueError:
            return None

    return test


def _every_value(operator: operators.Operator, key: str, matcher: Matcher) -> _Test:
    negated, over_all, if_exists = operator.negated, operator.over == "all", operator.if_exists

    def test(context: Context) -> bool | None:
        values = context.get(key)
        if values is None:
            # "any of none" is false and "if it is there" true: nothing says which of the two counts
            return True if over_all else (None if if_exists else False)
        if isinstance(values, str):
            values = (values,)
        try:
            held = [matcher(value, context) is not negated for value in values]
        except ValueError:
            return None
        return all(held) if over_all else any(held)

    return test

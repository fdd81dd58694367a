"""The whole decision: the role's rules, which keep tenants apart, and the policies, which may deny or, within a tenant,
allow what the role does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpuyard.access.policies.document import Policy
from gpuyard.access.policies.engine import Because, Policies, Request
from gpuyard.access.questions import Question
from gpuyard.access.rules import Action, decide
from gpuyard.model.attachments import Attachment
from gpuyard.model.tenants import Identity

# What a policy may allow beyond a role: never to run the yard, and never in another tenant.
_GRANTABLE: Final = frozenset(
    {Action.READ, Action.LAUNCH, Action.CONTROL, Action.ENTER, Action.READ_FLEET, Action.COMMIT}
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Allowed or not, the rule or the reason, and the statements that decided."""

    allowed: bool
    because: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holdings:
    """The policies that count for one identity; `fences` each by itself."""

    own: Policies
    fences: tuple[Policies, ...]
    any: bool


def holdings(
    identity: Identity, organisation: str | None, attachments: Sequence[Attachment], policies: Mapping[str, Policy]
) -> Holdings:
    """What is attached to an identity, to what it belongs to, or to everyone."""
    subjects = {
        ("everyone", "*"),
        ("project", identity.tenant_id),
        ("user", f"{identity.tenant_id}/{identity.user}"),
        ("token", identity.token_id),
    }
    if organisation is not None:
        subjects.add(("organisation", organisation))
    mine = [one for one in attachments if (one.kind, one.subject) in subjects]
    own = [policies[one.policy] for one in mine if not one.fence]
    fences = tuple(Policies([policies[one.policy]]) for one in mine if one.fence)
    return Holdings(Policies(own), fences, bool(mine))


def judge(question: Question, held: Holdings) -> Judgement:
    """Nothing that is not understood is allowed; a tenant's things are nobody else's, whatever a policy says."""
    by_role = decide(question.identity, question.action, question.tenant_id)
    role = (f"role-{question.identity.role.value}/{by_role.rule}",)
    grantable = by_role.rule == "role" and question.action in _GRANTABLE and _own(question)
    if not by_role.allowed and not grantable:
        return Judgement(False, by_role.rule, role)
    if not held.any:
        return Judgement(by_role.allowed, by_role.rule, role)
    return _by_policies(question.request(), held, role if by_role.allowed else ())


def _own(question: Question) -> bool:
    if question.tenant_id is None:
        return question.action is Action.READ_FLEET
    return question.tenant_id == question.identity.tenant_id


def _by_policies(request: Request, held: Holdings, role: tuple[str, ...]) -> Judgement:
    for policies in (held.own, *held.fences):
        if denied := policies.denying(request):
            return Judgement(False, Because.EXPLICIT_DENY.value, (denied,))
    allowed = role or tuple(filter(None, (held.own.allowing(request),)))
    if not allowed:
        return Judgement(False, "role", ())
    through: list[str] = []
    for fence in held.fences:
        if not (let := fence.allowing(request)):
            return Judgement(False, Because.BOUNDARY.value, ())
        through.append(let)
    return Judgement(True, Because.ALLOWED.value, (*allowed, *through))

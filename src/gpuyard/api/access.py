"""Policies over HTTP: saved, attached, explained, and tried on the past."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from gpuyard.access.authority import judge
from gpuyard.access.policies import linter, vocabulary
from gpuyard.access.policies.document import Policy, parse
from gpuyard.access.policies.patterns import Values
from gpuyard.access.questions import VERBS, Origin, ask
from gpuyard.access.rules import Action
from gpuyard.api import access_schemas as shapes
from gpuyard.api import schemas, views
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import answer, page
from gpuyard.control.dry_run import Outcome, dry_run
from gpuyard.model.attachments import Attachment
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Identity, Role
from gpuyard.model.times import to_text
from gpuyard.store import events, policies
from gpuyard.texts import error_text

router = APIRouter(tags=["access"])

MANAGE = "gpuyard:ManageAccess"
DAY_US = 86_400_000_000
PolicyInPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9+=,.@_-]{0,127}$")]


def may_manage(caller: Asking) -> None:
    """Raises YardError `forbidden` for whoever does not run the yard."""
    caller.must(Action.OPERATE_YARD, None, verb=MANAGE)


def sentences(found: list[YardError], caller: Asking) -> list[str]:
    """Findings as the caller reads them."""
    return [error_text(one.code, caller.language, one.params) for one in found]


def checked(name: str, document: str) -> Policy:
    """A policy that may be saved. Raises YardError `invalid_policy` for the first thing that is wrong with it."""
    policy = parse(name, document)
    for finding in linter.lint(policy):
        raise finding
    return policy


def _view(caller: Asking, row: policies.PolicyRow) -> views.View:
    return {
        "name": row.name,
        "document": row.document,
        "updated_at": to_text(row.updated_us),
        "warnings": sentences(linter.warnings(parse(row.name, row.document)), caller),
    }


@router.get("/policies", responses={200: {"model": schemas.Page[shapes.PolicyView]}})
async def list_policies(caller: Caller) -> Response:
    """Every policy."""
    may_manage(caller)

    def work() -> Response:
        with caller.yard.store.read() as c:
            found = policies.listing(c)
        return page([_view(caller, row) for row in found], None)

    return await caller.read(work)


@router.put("/policies/{policy}", responses={200: {"model": shapes.PolicyView}})
async def put_policy(caller: Caller, policy: PolicyInPath, body: shapes.PolicyRequest) -> Response:
    """Saves a policy, unless something in it is not understood."""
    may_manage(caller)

    def work() -> Response:
        checked(policy, body.document)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            policies.put(c, policy, body.document, now_us)
            events.append(c, [Event("policy.saved", policy, now_us, None, caller.identity.user)])
            row = policies.get(c, policy)
        caller.yard.authority.forget()
        return answer(_view(caller, row))

    return await caller.write(work)


@router.delete("/policies/{policy}", status_code=204)
async def delete_policy(caller: Caller, policy: PolicyInPath) -> Response:
    """Deletes a policy that is attached to nothing."""
    may_manage(caller)

    def work() -> Response:
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            policies.delete(c, policy)
            events.append(c, [Event("policy.deleted", policy, now_us, None, caller.identity.user)])
        caller.yard.authority.forget()
        return Response(status_code=204)

    return await caller.write(work)


@router.post("/access/check", responses={200: {"model": shapes.CheckView}})
async def check_policy(caller: Caller, body: shapes.PolicyRequest) -> Response:
    """Everything that is wrong with a policy, without saving it."""
    caller.must(Action.READ_FLEET, None)
    try:
        policy = parse("policy", body.document)
    except YardError as error:
        return answer({"findings": sentences([error], caller), "warnings": []})
    found = {"findings": sentences(linter.lint(policy), caller), "warnings": sentences(linter.warnings(policy), caller)}
    return answer(found)


@router.get("/attachments", responses={200: {"model": schemas.Page[shapes.AttachmentView]}})
async def list_attachments(caller: Caller) -> Response:
    """What every policy is attached to."""
    may_manage(caller)

    def work() -> Response:
        with caller.yard.store.read() as c:
            return page([attachment_view(one) for one in policies.attachments(c)], None)

    return await caller.read(work)


def attachment_view(one: Attachment) -> views.View:
    return {"policy": one.policy, "kind": one.kind, "subject": one.subject, "fence": one.fence}


def to_attachment(caller: Asking, body: shapes.AttachmentRequest) -> Attachment:
    """With ids in the place of names. Raises YardError where there is no such subject."""
    subject = subject_of(caller, body.kind, body.subject)
    return Attachment(body.policy, body.kind, subject, body.fence)


def subject_of(caller: Asking, kind: str, subject: str) -> str:
    """A subject by its id, given its name. Raises YardError `tenant_not_found` or `not_found`."""
    if kind == "everyone":
        return "*"
    if kind == "organisation":
        with caller.yard.store.read() as c:
            for known, name in policies.organisations(c).items():
                if subject in (known, name):
                    return known
        raise YardError("not_found", path=subject)
    if kind == "project":
        return caller.tenant(subject).id
    if kind == "user":
        tenant, slash, user = subject.partition("/")
        if not slash or not user:
            raise YardError("invalid_request", reason="subject_of_user", value=subject[:100])
        return f"{caller.tenant(tenant).id}/{user}"
    return subject


@router.post("/attachments", status_code=201, responses={201: {"model": shapes.AttachmentView}})
async def attach_policy(caller: Caller, body: shapes.AttachmentRequest) -> Response:
    """Has a policy count for someone from now on."""
    may_manage(caller)

    def work() -> Response:
        attachment = to_attachment(caller, body)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            policies.attach(c, attachment)
            told = Event(
                "policy.attached", body.policy, now_us, None, caller.identity.user, attachment_view(attachment)
            )
            events.append(c, [told])
        caller.yard.authority.forget()
        return answer(attachment_view(attachment), 201)

    return await caller.write(work)


@router.delete("/attachments", status_code=204)
async def detach_policy(
    caller: Caller,
    policy: Annotated[str, Query(max_length=128)],
    kind: Annotated[str, Query(pattern="^(everyone|organisation|project|user|token)$")],
    subject: Annotated[str, Query(min_length=1, max_length=300)],
) -> Response:
    """Has a policy no longer count for someone."""
    may_manage(caller)

    def work() -> Response:
        attachment = Attachment(policy, kind, subject_of(caller, kind, subject), False)
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            if not policies.detach(c, attachment):
                raise YardError("policy_not_found", policy=policy)
            told = Event("policy.detached", policy, now_us, None, caller.identity.user, attachment_view(attachment))
            events.append(c, [told])
        caller.yard.authority.forget()
        return Response(status_code=204)

    return await caller.write(work)


@router.post("/access/explain", responses={200: {"model": shapes.ExplainView}})
async def explain(caller: Caller, body: shapes.ExplainRequest) -> Response:
    """What would be decided of a request, and the statements that would decide it. Nothing is changed."""
    may_manage(caller)

    def work() -> Response:
        tenant = caller.tenant(body.tenant)
        identity = Identity(body.token, body.user, Role(body.role), tenant.id)
        facts: dict[str, Values] = {k: tuple(v) if isinstance(v, list) else v for k, v in body.facts.items()}
        if not vocabulary.load().has_action(body.action) or {"*", "?"} & set(body.action):
            nearest = vocabulary.load().nearest_action(body.action)
            reason = "policy_unknown_action"
            raise YardError("invalid_policy", where="action", reason=reason, action=body.action, nearest=nearest)
        action = _kind_of(body.action)
        owner = tenant.id if action not in (Action.OPERATE_YARD, Action.MANAGE_TENANTS, Action.MANAGE_TOKENS) else None
        now_us = caller.yard.clock.now_us()
        question = ask(identity, action, owner, Origin(), now_us, verb=body.action, about=body.resource_id, facts=facts)
        judged = judge(question, caller.yard.authority.book().holdings(identity))
        return answer(
            {
                "allowed": judged.allowed,
                "because": judged.because,
                "statements": list(judged.statements),
                "action": question.verb,
                "resource": question.resource,
            }
        )

    return await caller.read(work)


def _kind_of(verb: str) -> Action:
    """What kind of action the roles know a verb as."""
    low = verb.lower()
    for action, known in VERBS.items():
        if known.lower() == low:
            return action
    name = low.partition(":")[2]
    if low.startswith("gpuyard:"):
        return Action.OPERATE_YARD
    if name.startswith(("describe", "get", "list")):
        return Action.READ
    return Action.CONTROL


@router.post("/access/dry-run", responses={200: {"model": shapes.DryRunView}})
async def try_policy(caller: Caller, body: shapes.DryRunRequest) -> Response:
    """What a policy would have decided of the last days' requests: which would be another. Nothing is changed."""
    may_manage(caller)

    def work() -> Response:
        policy = checked(body.policy, body.document)
        attachment = None if body.attach is None else to_attachment(caller, body.attach)
        since_us = caller.yard.clock.now_us() - body.days * DAY_US
        return answer(_outcome(dry_run(caller.yard, policy, attachment, since_us)))

    return await caller.write(work)


def _outcome(outcome: Outcome) -> views.View:
    return {
        "entries": outcome.entries,
        "changed": outcome.changed,
        "not_told": outcome.not_told,
        "complete": outcome.complete,
        "changes": [
            {
                "at": change.entry["at"],
                "user": change.user,
                "action": change.entry["action"],
                "resource": change.entry["resource"],
                "was_allowed": change.entry["allowed"],
                "would_be_allowed": change.allowed,
                "statements": list(change.statements),
                "count": change.entry["count"],
            }
            for change in outcome.changes
        ],
    }

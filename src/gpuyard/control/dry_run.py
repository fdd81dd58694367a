"""What a changed policy would have decided: the requests of the last days, asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gpuyard.access.authority import judge
from gpuyard.access.policies.document import Policy
from gpuyard.access.policies.patterns import Values
from gpuyard.access.questions import Question
from gpuyard.access.rules import Action
from gpuyard.control.authority import Book
from gpuyard.control.yard import Yard
from gpuyard.model.attachments import Attachment
from gpuyard.model.tenants import Identity, Role
from gpuyard.store import audit

MOST = 200_000  # entries that are asked again
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that would be another. `user` is None for nobody that may be told."""

    entry: Mapping[str, object]
    user: str
    allowed: bool
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many entries were asked again, how many would change, and how many cannot be told."""

    entries: int
    changed: int
    not_told: int
    complete: bool
    changes: tuple[Change, ...]


def dry_run(yard: Yard, policy: Policy, attachment: Attachment | None, since_us: int) -> Outcome:
    """Asks again with this policy in the place of the one of its name, attached as it is and to `attachment`."""
    book = changed_book(yard.authority.book(), policy, attachment)
    auditor = yard.authority.auditor
    auditor.settle(yard.clock.now_us())
    with yard.store.read() as c:
        lines = audit.since(c, since_us, MOST + 1)
        keys = auditor.subject_keys(c)
    changes: list[Change] = []
    changed = not_told = 0
    for line in lines[:MOST]:
        entry = json.loads(line)
        personal = auditor.opened(line, keys)
        question = None if personal is None else question_of(entry, personal)
        if question is None:
            not_told += 1
            continue
        judged = judge(question, book.holdings(question.identity))
        if judged.allowed == entry["allowed"]:
            continue
        changed += entry["count"]
        if len(changes) < SHOWN:
            changes.append(Change(entry, question.identity.user, judged.allowed, judged.statements))
    return Outcome(min(len(lines), MOST), changed, not_told, len(lines) <= MOST, tuple(changes))


def changed_book(book: Book, policy: Policy, attachment: Attachment | None) -> Book:
    """The book with one policy changed or added."""
    attachments = book.attachments
    if attachment is not None:
        same = (attachment.policy, attachment.kind, attachment.subject)
        kept = [one for one in attachments if (one.policy, one.kind, one.subject) != same]
        attachments = (*kept, attachment)
    return replace(book, policies={**book.policies, policy.name: policy}, attachments=tuple(attachments))


def question_of(entry: Mapping[str, object], personal: Mapping[str, object]) -> Question | None:
    """The question that an entry answered; None for what was no question to the policies."""
    raw = entry["context"]
    context: dict[str, Values] = {}
    for key, value in {**(raw if isinstance(raw, dict) else {}), **personal}.items():
        context[str(key)] = tuple(map(str, value)) if isinstance(value, list) else str(value)
    named = context.pop("gpuyard:Action", None)
    if not isinstance(named, str) or entry["because"] in _NOT_BY_POLICY or entry["role"] not in set(Role):
        return None
    tenant_id = str(entry["tenant"])
    identity = Identity(str(entry["token"]), str(context.pop("user")), Role(str(entry["role"])), tenant_id)
    context["aws:CurrentTime"] = str(entry["at"])
    resource = str(entry["resource"])
    owner = resource.split(":")[4] or None
    return Question(identity, Action(named), owner, str(entry["action"]), resource, context)


# Refused for where it came from, whatever the policies said.
_NOT_BY_POLICY = frozenset(
    {"tenant_unverified", "tenant_expired", "tenant_country", "caller_unknown", "caller_country"}
)

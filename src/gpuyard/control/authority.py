"""Decides every request and has the audit log write it down."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from gpuyard.access.audit.entries import Entry
from gpuyard.access.authority import Holdings, Judgement, holdings, judge
from gpuyard.access.policies.document import Policy, parse
from gpuyard.access.questions import Question
from gpuyard.control.atlas import Atlas, read_atlas
from gpuyard.control.auditing import Auditor
from gpuyard.model.attachments import Attachment
from gpuyard.model.tenants import Identity
from gpuyard.store import policies
from gpuyard.store.database import Store

_AT_HAND = 10_000  # identities whose policies are kept compiled


@dataclass(frozen=True, slots=True)
class Book:
    """Every policy and what it is attached to, as one reading of the store."""

    policies: Mapping[str, Policy]
    attachments: tuple[Attachment, ...]
    organisations: Mapping[str, str]  # of tenants

    def holdings(self, identity: Identity) -> Holdings:
        """What counts for an identity."""
        return holdings(identity, self.organisations.get(identity.tenant_id), self.attachments, self.policies)


class Authority:
    """One yard's decisions. `forget` is to be called after every change of a policy or of what one is attached to."""

    def __init__(self, store: Store, auditor: Auditor) -> None:
        self.auditor = auditor
        self._store = store
        self._lock = threading.Lock()
        self._book: Book | None = None
        self._atlas: Atlas | None = None
        self._held: dict[Identity, Holdings] = {}
        self._forgotten = 0

    def decide(self, question: Question, now_us: int) -> Judgement:
        """The judgement, which is also noted."""
        judged = judge(question, self._holdings(question.identity))
        self.note(question, judged, now_us)
        return judged

    def note(self, question: Question, judged: Judgement, now_us: int) -> None:
        """A judgement for the audit log."""
        self.auditor.note(
            Entry(
                at_us=now_us,
                tenant_id=question.identity.tenant_id,
                user=question.identity.user,
                role=question.identity.role.value,
                token_id=question.identity.token_id,
                action=question.verb,
                resource=question.resource,
                allowed=judged.allowed,
                because=judged.because,
                statements=judged.statements,
                context=_lasting(question.impersonal()) | {"gpuyard:Action": question.action.value},
                personal=question.personal(),
            )
        )

    def book(self) -> Book:
        """The policies as they are now."""
        with self._lock:
            if self._book is not None:
                return self._book
            forgotten = self._forgotten
        read = read_book(self._store)
        with self._lock:
            if forgotten == self._forgotten:  # a change meanwhile makes this reading old
                self._book = read
        return read

    def atlas(self) -> Atlas:
        """The geography as it is now."""
        with self._lock:
            if self._atlas is not None:
                return self._atlas
            forgotten = self._forgotten
        with self._store.read() as c:
            read = read_atlas(c)
        with self._lock:
            if forgotten == self._forgotten:
                self._atlas = read
        return read

    def forget(self) -> None:
        """Something changed: read anew."""
        with self._lock:
            self._forgotten += 1
            self._book = None
            self._atlas = None
            self._held = {}

    def _holdings(self, identity: Identity) -> Holdings:
        held = self._held.get(identity)
        if held is not None:
            return held
        forgotten = self._forgotten
        made = self.book().holdings(identity)
        with self._lock:
            if forgotten == self._forgotten and len(self._held) < _AT_HAND:
                self._held[identity] = made
        return made


def read_book(store: Store) -> Book:
    """Every policy that was saved, parsed."""
    with store.read() as c:
        found = {row.name: parse(row.name, row.document) for row in policies.listing(c)}
        return Book(found, tuple(policies.attachments(c)), policies.projects(c))


def _lasting(facts: Mapping[str, object]) -> dict[str, str | tuple[str, ...]]:
    """Without the moment, which the entry has of its own: the same decision a second later is the same."""
    return {
        key: value if isinstance(value, (str, tuple)) else str(value)
        for key, value in facts.items()
        if key not in ("aws:CurrentTime", "aws:EpochTime")
    }

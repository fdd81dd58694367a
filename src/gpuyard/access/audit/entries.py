"""One entry of the audit log, as the bytes that are hashed: JSON in the canonical form of RFC 8785."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import rfc8785

from gpuyard.access.policies.patterns import Values
from gpuyard.model.times import to_text

VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision. `user` and `personal` are sealed before it is written; everything else is readable by whoever has the
    log. `count` is how often the same was decided between two writings."""

    at_us: int
    tenant_id: str  # whose user asked
    user: str
    role: str
    token_id: str
    action: str
    resource: str
    allowed: bool
    because: str
    statements: tuple[str, ...] = ()
    context: Mapping[str, Values] = field(
        default_factory=dict[str, Values]
    )  # what the decision read, but nothing personal
    personal: Mapping[str, Values] = field(default_factory=dict[str, Values])
    count: int = 1

    def same(self) -> tuple[object, ...]:
        """What makes two decisions one entry."""
        return (
            self.token_id, self.action, self.resource, self.allowed, self.because, self.statements,
            tuple(sorted(self.context.items())), tuple(sorted(self.personal.items())),
        )  # fmt: skip

    def again(self, more: Entry) -> Entry:
        """Both as one."""
        return replace(self, count=self.count + more.count)


def leaf(entry: Entry, sequence: int, subject: str, sealed: str) -> bytes:
    """The entry's bytes. `sealed` holds what is personal in it."""
    return rfc8785.dumps(
        {
            "v": VERSION,
            "seq": sequence,
            "at": to_text(entry.at_us),
            "tenant": entry.tenant_id,
            "subject": subject,
            "sealed": sealed,
            "role": entry.role,
            "token": entry.token_id,
            "action": entry.action,
            "resource": entry.resource,
            "allowed": entry.allowed,
            "because": entry.because,
            "statements": list(entry.statements),
            "context": {key: list(v) if isinstance(v, tuple) else v for key, v in entry.context.items()},
            "count": entry.count,
        }
    )

"""What the port for machines stands on, and what the audit log is told there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from gpuyard.access.audit.entries import Entry
from gpuyard.access.policies.patterns import Values
from gpuyard.access.rates import Buckets
from gpuyard.control.yard import Yard
from gpuyard.model.events import Event
from gpuyard.store import events

if TYPE_CHECKING:
    from gpuyard.control.machines.authorities import MachineAuthorities

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROLE: Final = "machine"
NOBODY: Final = "--"


def now() -> datetime:
    """This machine's wall clock."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Gate:
    """One yard's port for machines. `wall` is what certificates are held against: the machine's time, not the yard's.
    `ca_sha256` is of the authority that signed the API's certificate; None where it is not the yard's own."""

    yard: Yard
    authorities: MachineAuthorities
    address: str  # that machines reach it by
    ca_sha256: str | None = None
    wall: Callable[[], datetime] = now
    since_us: int = field(init=False)  # yard time since which heartbeats could be heard
    # A machine that is refused asks again and again: that is written down once a minute, not each time.
    refusals: Buckets = field(default_factory=lambda: Buckets(per_second=1 / 60, burst=1))
    pace: Buckets = field(default_factory=lambda: Buckets(per_second=2, burst=40))  # requests, by machine
    renewals: Buckets = field(default_factory=lambda: Buckets(per_second=1 / 60, burst=5))  # by machine
    heard_us: dict[str, int] = field(default_factory=dict[str, int])  # by machine, the last heartbeat
    kept_us: dict[str, int] = field(default_factory=dict[str, int])  # by machine, the last that was written down

    def __post_init__(self) -> None:
        self.since_us = self.yard.clock.now_us()

    def wall_us(self) -> int:
        """The wall clock in microseconds."""
        return (self.wall() - _EPOCH) // timedelta(microseconds=1)

    def note(
        self,
        action: str,
        name: str,
        certificate: str | None,
        because: str | None,
        address: str | None = None,
        context: Mapping[str, Values] | None = None,
    ) -> None:
        """A decision about a machine, for the audit log; `because` None for one that allowed."""
        self.yard.authority.auditor.note(
            Entry(
                at_us=self.yard.clock.now_us(),
                tenant_id="",
                user=name if certificate is not None else NOBODY,  # what a stranger calls itself names nobody
                role=ROLE,
                token_id=certificate or "--",
                action=f"gpuyard:{action}",
                resource=f"arn:aws:gpuyard:::machine/{name}",
                allowed=because is None,
                because=because or "certificate",
                context=context or {},
                personal={} if address is None else {"aws:SourceIp": address},
            )
        )

    def refused(self, action: str, name: str, certificate: str, because: str, address: str | None) -> None:
        """A certificate that does not count was shown: for the audit log, and for whoever reads events."""
        now_us = self.yard.clock.now_us()
        key = f"{certificate} {because}"
        if self.refusals.wait_us(key, now_us):
            return
        self.refusals.take(key, now_us)
        self.note(action, name, certificate, because, address)
        with self.yard.store.write() as c:
            data = {"certificate": certificate, "because": because, "address": address or "--"}
            events.append(c, [Event("machine.refused", name, now_us, None, "yard", data)])


def moment_us(moment: datetime) -> int:
    """A moment of a certificate in microseconds."""
    return (moment - _EPOCH) // timedelta(microseconds=1)

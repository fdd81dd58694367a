"""Machines that joined: known by name, trusted by certificate, and what they told last."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MachineState(StrEnum):
    """Whether a machine's certificates count."""

    JOINED = "joined"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Invitation:
    """Lets one machine join once. `key_sha256` is of the key that used it first; only that one may ask again."""

    id: str
    digest: str
    name: str | None  # None: the machine chooses
    created_us: int
    created_by: str
    expires_us: int
    used_us: int | None = None
    key_sha256: str | None = None
    machine_id: str | None = None
    withdrawn_us: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """One that joined. What it did not tell is None."""

    id: str
    name: str
    state: MachineState
    joined_us: int
    joined_by: str  # who invited it
    revoked_us: int | None = None
    heartbeat_us: int | None = None
    clock_ahead_us: int | None = None  # its clock before the yard's, at the last heartbeat
    version: str | None = None  # of gpuyard on it
    inventory: str | None = None  # JSON
    inventory_us: int | None = None
    late_since_us: int | None = None


@dataclass(frozen=True, slots=True)
class MachineCertificate:
    """One that was issued. Known by the SHA-256 of its DER form; none that is not written down counts."""

    sha256: str
    machine_id: str
    invitation_id: str | None  # of the one that a join got; None for a renewal
    key_sha256: str
    issued_us: int
    until_us: int  # its end, by the wall clock that signed it
    used_us: int | None = None
    superseded_us: int | None = None  # when a newer one was used
    revoked_us: int | None = None

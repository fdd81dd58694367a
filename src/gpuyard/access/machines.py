"""Who of the machines may do what: whether an invitation lets one join, and whether a certificate still counts.

Everything that is not understood is refused; the word that comes back is a stable one.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpuyard.model.machines import Invitation, Machine, MachineCertificate, MachineState

LATE_AFTER_US = 45_000_000  # three heartbeats
HEARTBEAT_EVERY_S = 15
MOST_REQUEST_BYTES = 8192  # of a certificate signing request


def spiffe_id(yard: str, name: str) -> str:
    """What a machine's certificate names it as."""
    return f"spiffe://{yard}/machine/{name}"


def why_not_join(
    invitation: Invitation | None, key_sha256: str, name: str, machine: Machine | None, now_us: int
) -> str | None:
    """Why a first use of an invitation is refused; None where it is not. `machine` is the one that has the name now."""
    if invitation is None:
        return "token_unknown"
    if invitation.withdrawn_us is not None:
        return "token_withdrawn"
    if invitation.key_sha256 is not None and invitation.key_sha256 != key_sha256:
        return "token_used"
    if now_us >= invitation.expires_us:
        return "token_expired"
    if invitation.name is not None and invitation.name != name:
        return "token_other_name"
    if invitation.name is None and machine is not None and machine.id != invitation.machine_id:
        return "name_in_use"
    return None


def why_not_again(
    invitation: Invitation, machine: Machine | None, certificates: Sequence[MachineCertificate]
) -> str | None:
    """Why the key that used an invitation may not ask once more: a lost answer is given again, and nothing else."""
    if machine is None or machine.id != invitation.machine_id or machine.state is not MachineState.JOINED:
        return "token_used"
    mine = [one for one in certificates if one.invitation_id == invitation.id]
    whole = all(one.used_us is None and one.superseded_us is None and one.revoked_us is None for one in mine)
    return None if mine and whole else "token_used"


def why_refused(certificate: MachineCertificate | None, machine: Machine | None, now_us: int) -> str | None:
    """Why a certificate that an authority of ours did sign does not count; None where it does. `now_us` by the wall."""
    if certificate is None or machine is None:
        return "unknown"
    if certificate.revoked_us is not None or machine.state is not MachineState.JOINED:
        return "revoked"
    if certificate.superseded_us is not None:
        return "superseded"
    if now_us >= certificate.until_us:
        return "ended"
    return None


def is_late(heartbeat_us: int | None, listening_since_us: int | None, now_us: int) -> bool | None:
    """Whether a heartbeat is overdue. None where that cannot be told: nobody listens, none ever came, or the yard has
    not listened long enough to have heard one."""
    if heartbeat_us is None or listening_since_us is None:
        return None
    if now_us - heartbeat_us <= LATE_AFTER_US:
        return False
    return True if now_us - listening_since_us > LATE_AFTER_US else None

"""An operator's decisions about machines: who may join, and who is no longer trusted."""

from __future__ import annotations

from dataclasses import replace

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.join_tokens import JoinToken, new_join_token, secret_digest
from gpuyard.model.machines import Invitation, Machine, MachineState
from gpuyard.model.names import new_id
from gpuyard.store import events, machines

MOST_US = 7 * 86_400_000_000  # that an invitation holds for
KEPT_US = 30 * 86_400_000_000  # that one which ended is still listed for


def invite(
    yard: Yard, name: str | None, expires_us: int, ca_sha256: str | None, actor: str
) -> tuple[Invitation, JoinToken]:
    """Lets one machine join once, under this name or one of its choice. The token is nowhere else from then on."""
    now_us = yard.clock.now_us()
    token = new_join_token(ca_sha256)
    made = Invitation(new_id("mi", now_us), secret_digest(token.secret), name, now_us, actor, now_us + expires_us)
    with yard.store.write() as c:
        machines.add_invitation(c, made, now_us - KEPT_US)
        events.append(c, [Event("machine.invited", made.id, now_us, None, actor, {"name": name or "--"})])
    return made, token


def withdraw(yard: Yard, invitation_id: str, actor: str) -> None:
    """An invitation that nobody used is worthless from now on.

    Raises YardError `invitation_not_found`.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        if not machines.withdraw_invitation(c, invitation_id, now_us):
            raise YardError("invitation_not_found", invitation=invitation_id[:80])
        events.append(c, [Event("machine.invitation_withdrawn", invitation_id, now_us, None, actor, {})])


def revoke(yard: Yard, id_or_name: str, actor: str) -> Machine:
    """No certificate of the machine counts from now on, on open connections either. It stays listed; a new invitation
    for its name lets it join anew.

    Raises YardError `machine_not_found`.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        found = _found(machines.find(c, id_or_name), id_or_name)
        if found.state is MachineState.REVOKED:
            return found
        revoked = replace(found, state=MachineState.REVOKED, revoked_us=now_us, late_since_us=None)
        machines.put(c, revoked)
        machines.revoke_certificates(c, found.id, now_us)
        events.append(c, [Event("machine.revoked", found.name, now_us, None, actor, {"machine": found.id})])
    return revoked


def remove(yard: Yard, id_or_name: str, actor: str) -> None:
    """Forgets a machine, whose certificates are none from now on; the name is free.

    Raises YardError `machine_not_found`.
    """
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        found = _found(machines.find(c, id_or_name), id_or_name)
        machines.remove(c, found.id)
        events.append(c, [Event("machine.removed", found.name, now_us, None, actor, {"machine": found.id})])


def _found(machine: Machine | None, wanted: str) -> Machine:
    if machine is None:
        raise YardError("machine_not_found", machine=wanted[:80])
    return machine

"""A machine joins with an invitation, and later renews its certificate with the one that it has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from gpuyard.access.machine_certificates import Issued, key_digest, requested_key
from gpuyard.access.machines import why_not_again, why_not_join
from gpuyard.control.machines.admitting import Admitted
from gpuyard.control.machines.gate import Gate, moment_us
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.join_tokens import secret_digest
from gpuyard.model.machines import Invitation, Machine, MachineCertificate, MachineState
from gpuyard.model.names import check_name, new_id
from gpuyard.store import events, machines

FORGET_US = 7 * 86_400_000_000  # after its end, a certificate is not told from one that never was


@dataclass(frozen=True, slots=True)
class Granted:
    """What a machine gets: its certificate, and the authorities of the port (PEM)."""

    name: str
    certificate: str
    authorities: str
    until: datetime


def join(gate: Gate, secret: str, name: str, request: bytes, address: str | None) -> Granted:
    """Uses an invitation up, for the key of the request. Asked once more with that key, as after a lost answer or
    a crash on either side, it gives a certificate again, until one of them was used.

    Raises YardError `join_refused`, `machine_request_refused`, `invalid_name`.
    """
    check_name(name)
    context = {"gpuyard:Invitation": "--"}
    digest = secret_digest(secret)
    try:
        with gate.yard.store.read() as c:
            invited = machines.invitation(c, digest)
        if invited is None:  # before anything else that a stranger sent is read, and without keeping writers waiting
            raise YardError("join_refused", refusal="token_unknown")
        context["gpuyard:Invitation"] = invited.id
        key = requested_key(request, gate.authorities.yard_id, name)
        with gate.yard.store.write() as c:
            machine = _let_in(gate, c, machines.invitation(c, digest), key_digest(key), name)
            issued = gate.authorities.issue(key, name, gate.wall())
            _write_down(gate, c, machine, issued, invited.id)
            data = {"certificate": issued.sha256, "invitation": invited.id}
            told = Event("machine.joined", name, gate.yard.clock.now_us(), None, machine.joined_by, data)
            events.append(c, [told])
            # Inside of the transaction: what it decided and what it changed are written down together or not at all.
            gate.note("JoinMachine", name, issued.sha256, None, address, context)
    except YardError as error:
        gate.note("JoinMachine", name, None, str(error.params.get("refusal", error.code)), address, context)
        raise
    return _granted(gate, name, issued)


def renew(gate: Gate, who: Admitted, request: bytes, address: str | None) -> Granted:
    """A new certificate for a new key of an admitted machine. The one that it has counts until the new one is used:
    an answer that is lost costs nothing.

    Raises YardError `machine_request_refused`, `machine_refused`.
    """
    name = who.machine.name
    try:
        key = requested_key(request, gate.authorities.yard_id, name)
        if key_digest(key) == who.certificate.key_sha256:
            raise YardError("machine_request_refused", refusal="same_key")
        with gate.yard.store.write() as c:
            who.must_still_count(c)
            issued = gate.authorities.issue(key, name, gate.wall())
            _write_down(gate, c, who.machine, issued, None)
            data = {"certificate": issued.sha256, "before": who.certificate.sha256}
            events.append(c, [Event("machine.renewed", name, gate.yard.clock.now_us(), None, name, data)])
            gate.note("RenewMachine", name, issued.sha256, None, address)
    except YardError as error:
        because = str(error.params.get("refusal", error.code))
        gate.note("RenewMachine", name, who.certificate.sha256, because, address)
        raise
    return _granted(gate, name, issued)


def _let_in(gate: Gate, c: Connection, invitation: Invitation | None, key_sha256: str, name: str) -> Machine:
    """The machine that joins, with the invitation used up. Raises YardError `join_refused`."""
    now_us = gate.yard.clock.now_us()
    known = machines.find(c, name)
    because = why_not_join(invitation, key_sha256, name, known, now_us)
    if because is not None or invitation is None:
        raise YardError("join_refused", refusal=because or "token_unknown")
    if invitation.key_sha256 is not None:
        held = [] if known is None else machines.certificates_of(c, known.id)
        if (because := why_not_again(invitation, known, held)) is not None or known is None:
            raise YardError("join_refused", refusal=because or "token_used")
        return known
    machine = Machine(
        known.id if known is not None else new_id("mc", now_us),
        name,
        MachineState.JOINED,
        now_us,
        invitation.created_by,
    )
    if known is not None:  # invited by its name: whatever had it before is no longer it, nor are that one's cards
        machines.revoke_certificates(c, known.id, now_us)
        gate.heard_us.pop(known.id, None)
        gate.kept_us.pop(known.id, None)
    machines.put(c, machine)
    if not machines.bind_invitation(c, invitation.id, key_sha256, machine.id, now_us):
        raise YardError("join_refused", refusal="token_used")
    return machine


def _write_down(gate: Gate, c: Connection, machine: Machine, issued: Issued, invitation_id: str | None) -> None:
    made = MachineCertificate(
        issued.sha256,
        machine.id,
        invitation_id,
        issued.key_sha256,
        gate.yard.clock.now_us(),
        moment_us(issued.until),
    )
    machines.add_certificate(c, made, gate.wall_us() - FORGET_US)


def _granted(gate: Gate, name: str, issued: Issued) -> Granted:
    return Granted(name, issued.certificate.decode(), gate.authorities.bundle(gate.wall()), issued.until)

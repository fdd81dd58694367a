"""Which machine a certificate proves, asked at every request: what was revoked a moment ago does not count, on an open
connection either."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection

from gpuyard.access.machines import why_refused
from gpuyard.control.machines.gate import Gate
from gpuyard.model.errors import YardError
from gpuyard.model.machines import Machine, MachineCertificate
from gpuyard.store import machines


@dataclass(frozen=True, slots=True)
class Admitted:
    """A machine, and the certificate that it showed."""

    gate: Gate
    machine: Machine
    certificate: MachineCertificate

    def must_still_count(self, c: Connection) -> None:
        """Asks again, inside of the transaction that writes for it. Raises YardError `machine_refused`."""
        certificate, machine = _held(c, self.certificate.sha256)
        because = why_refused(certificate, machine, self.gate.wall_us())
        if because is not None:
            raise YardError("machine_refused", refusal=because)


def admit(gate: Gate, shown: bytes | None, address: str | None) -> Admitted:
    """The machine of a certificate (DER) that the handshake verified. Its first use ends every older one.

    Raises YardError `machine_refused`, `too_many_requests`.
    """
    if not shown:
        raise YardError("machine_refused", refusal="none")
    sha256 = hashlib.sha256(shown).hexdigest()
    with gate.yard.store.read() as c:
        certificate, machine = _held(c, sha256)
    because = why_refused(certificate, machine, gate.wall_us())
    if because is None and certificate is not None and certificate.used_us is None:
        with gate.yard.store.write() as c:
            if not machines.use_certificate(c, certificate, gate.yard.clock.now_us()):
                because = "superseded"
    if because is not None or certificate is None or machine is None:
        because = because or "unknown"
        gate.refused("UseMachinePort", machine.name if machine is not None else "--", sha256, because, address)
        raise YardError("machine_refused", refusal=because)
    now_us = gate.yard.clock.now_us()
    if wait_us := gate.pace.wait_us(machine.id, now_us):
        raise YardError("too_many_requests", of="machine", seconds=-(-wait_us // 1_000_000))
    gate.pace.take(machine.id, now_us)
    return Admitted(gate, machine, certificate)


def _held(c: Connection, sha256: str) -> tuple[MachineCertificate | None, Machine | None]:
    certificate = machines.certificate(c, sha256)
    return certificate, None if certificate is None else machines.find(c, certificate.machine_id)

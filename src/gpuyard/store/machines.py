"""Machines that joined, the invitations that let them, and the certificates that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select

from gpuyard.model.machines import Invitation, Machine, MachineCertificate, MachineState
from gpuyard.store.machine_tables import CERTIFICATES, INVITATIONS, MACHINES


def add_invitation(c: Connection, made: Invitation, forget_before_us: int) -> None:
    """Writes one down, and forgets those that ended before then."""
    c.execute(INVITATIONS.delete().where(INVITATIONS.c.expires_us < forget_before_us))
    c.execute(INVITATIONS.insert().values({name: getattr(made, name) for name in Invitation.__slots__}))


def invitation(c: Connection, digest: str) -> Invitation | None:
    """The one whose secret has this digest."""
    row = c.execute(select(INVITATIONS).where(INVITATIONS.c.digest == digest)).first()
    return None if row is None else Invitation(*row)


def invitations(c: Connection) -> list[Invitation]:
    """Those that are known, the newest first."""
    return [Invitation(*row) for row in c.execute(select(INVITATIONS).order_by(INVITATIONS.c.id.desc()))]


def bind_invitation(c: Connection, invitation_id: str, key_sha256: str, machine_id: str, now_us: int) -> bool:
    """Uses it up, for this key; whether it was not used before. Of two at once, one is told that it was."""
    free = (INVITATIONS.c.id == invitation_id, INVITATIONS.c.key_sha256.is_(None))
    bound = INVITATIONS.update().where(*free).values(key_sha256=key_sha256, machine_id=machine_id, used_us=now_us)
    return c.execute(bound).rowcount == 1


def withdraw_invitation(c: Connection, invitation_id: str, now_us: int) -> bool:
    """Whether there was one that was neither used nor withdrawn."""
    open_ = (
        INVITATIONS.c.id == invitation_id,
        INVITATIONS.c.key_sha256.is_(None),
        INVITATIONS.c.withdrawn_us.is_(None),
    )
    return c.execute(INVITATIONS.update().where(*open_).values(withdrawn_us=now_us)).rowcount == 1


def listing(c: Connection) -> list[Machine]:
    """Every machine, by name."""
    return [_machine(row) for row in c.execute(select(MACHINES).order_by(MACHINES.c.name))]


def find(c: Connection, id_or_name: str) -> Machine | None:
    """One by name or id."""
    query = select(MACHINES).where((MACHINES.c.name == id_or_name) | (MACHINES.c.id == id_or_name))
    row = c.execute(query).first()
    return None if row is None else _machine(row)


def put(c: Connection, machine: Machine) -> None:
    """Adds a machine, or writes down what is new about it."""
    values = {name: getattr(machine, name) for name in Machine.__slots__} | {"state": machine.state.value}
    if not c.execute(MACHINES.update().where(MACHINES.c.id == machine.id).values(values)).rowcount:
        c.execute(MACHINES.insert().values(values))


def tell(c: Connection, machine_id: str, told: Mapping[str, Any]) -> bool:
    """Writes down what a machine told of itself; whether it still counts as joined."""
    mine = (MACHINES.c.id == machine_id, MACHINES.c.state == MachineState.JOINED.value)
    return c.execute(MACHINES.update().where(*mine).values(dict(told))).rowcount == 1


def remove(c: Connection, machine_id: str) -> bool:
    """Forgets a machine and its certificates, none of which counts any more; whether there was one."""
    c.execute(CERTIFICATES.delete().where(CERTIFICATES.c.machine_id == machine_id))
    return c.execute(MACHINES.delete().where(MACHINES.c.id == machine_id)).rowcount == 1


def add_certificate(c: Connection, made: MachineCertificate, forget_before_us: int) -> None:
    """Writes one down, and forgets those of the machine that ended before then."""
    old = (CERTIFICATES.c.machine_id == made.machine_id, CERTIFICATES.c.until_us < forget_before_us)
    c.execute(CERTIFICATES.delete().where(*old))
    c.execute(CERTIFICATES.insert().values({name: getattr(made, name) for name in MachineCertificate.__slots__}))


def certificate(c: Connection, sha256: str) -> MachineCertificate | None:
    """One that was issued."""
    row = c.execute(select(CERTIFICATES).where(CERTIFICATES.c.sha256 == sha256)).first()
    return None if row is None else MachineCertificate(*row)


def certificates_of(c: Connection, machine_id: str) -> list[MachineCertificate]:
    """A machine's, the newest first."""
    query = select(CERTIFICATES).where(CERTIFICATES.c.machine_id == machine_id)
    return [
        MachineCertificate(*row)
        for row in c.execute(query.order_by(CERTIFICATES.c.issued_us.desc(), CERTIFICATES.c.sha256))
    ]


def use_certificate(c: Connection, used: MachineCertificate, now_us: int) -> bool:
    """Its first use, which ends every other one of the machine; whether it still counted."""
    mine = (
        CERTIFICATES.c.sha256 == used.sha256,
        CERTIFICATES.c.superseded_us.is_(None),
        CERTIFICATES.c.revoked_us.is_(None),
    )
    if not c.execute(CERTIFICATES.update().where(*mine).values(used_us=now_us)).rowcount:
        return False
    others = (
        CERTIFICATES.c.machine_id == used.machine_id,
        CERTIFICATES.c.sha256 != used.sha256,
        CERTIFICATES.c.superseded_us.is_(None),
    )
    c.execute(CERTIFICATES.update().where(*others).values(superseded_us=now_us))
    return True


def revoke_certificates(c: Connection, machine_id: str, now_us: int) -> None:
    """Every one that a machine holds or could still save."""
    mine = (CERTIFICATES.c.machine_id == machine_id, CERTIFICATES.c.revoked_us.is_(None))
    c.execute(CERTIFICATES.update().where(*mine).values(revoked_us=now_us))


def _machine(row: Row[Any]) -> Machine:
    return replace(Machine(*row), state=MachineState(row.state))

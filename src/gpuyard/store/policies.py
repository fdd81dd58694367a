"""Policies, what they are attached to, and organisations."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, exc, select

from gpuyard.model.attachments import Attachment
from gpuyard.model.errors import YardError
from gpuyard.store.access_tables import ATTACHMENTS, ORGANISATIONS, POLICIES, PROJECTS


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A policy as it was saved."""

    name: str
    document: str
    updated_us: int


def listing(c: Connection) -> list[PolicyRow]:
    """Every policy by name."""
    return [PolicyRow(row.name, row.document, row.updated_us) for row in c.execute(select(POLICIES).order_by("name"))]


def get(c: Connection, name: str) -> PolicyRow:
    """Raises YardError `policy_not_found`."""
    row = c.execute(select(POLICIES).where(POLICIES.c.name == name)).first()
    if row is None:
        raise YardError("policy_not_found", policy=name[:100])
    return PolicyRow(row.name, row.document, row.updated_us)


def put(c: Connection, name: str, document: str, now_us: int) -> None:
    """Saves a policy, or saves it anew."""
    values = {"document": document, "updated_us": now_us}
    if c.execute(POLICIES.update().where(POLICIES.c.name == name).values(values)).rowcount == 0:
        c.execute(POLICIES.insert().values(name=name, **values))


def delete(c: Connection, name: str) -> None:
    """Raises YardError `policy_not_found`, or `policy_in_use` where it is attached to something."""
    get(c, name)
    used = c.execute(select(ATTACHMENTS).where(ATTACHMENTS.c.policy == name)).first()
    if used is not None:
        raise YardError("policy_in_use", policy=name, subject=f"{used.kind} {used.subject}")
    c.execute(POLICIES.delete().where(POLICIES.c.name == name))


def attachments(c: Connection) -> list[Attachment]:
    """What is attached to what."""
    query = select(ATTACHMENTS).order_by(ATTACHMENTS.c.policy, ATTACHMENTS.c.kind, ATTACHMENTS.c.subject)
    return [Attachment(row.policy, row.kind, row.subject, row.fence) for row in c.execute(query)]


def attach(c: Connection, attachment: Attachment) -> None:
    """Attaches a policy, or attaches it anew as a fence or not."""
    get(c, attachment.policy)
    detach(c, attachment)
    values = {"policy": attachment.policy, "kind": attachment.kind, "subject": attachment.subject}
    c.execute(ATTACHMENTS.insert().values(**values, fence=attachment.fence))


def detach(c: Connection, attachment: Attachment) -> bool:
    """Whether it was attached."""
    found = ATTACHMENTS.delete().where(
        ATTACHMENTS.c.policy == attachment.policy,
        ATTACHMENTS.c.kind == attachment.kind,
        ATTACHMENTS.c.subject == attachment.subject,
    )
    return c.execute(found).rowcount == 1


def add_organisation(c: Connection, organisation_id: str, name: str, now_us: int) -> None:
    """Raises YardError `name_taken`."""
    try:
        c.execute(ORGANISATIONS.insert().values(id=organisation_id, name=name, created_us=now_us))
    except exc.IntegrityError:
        raise YardError("name_taken", name=name) from None


def organisations(c: Connection) -> dict[str, str]:
    """Names by id, oldest first."""
    return {row.id: row.name for row in c.execute(select(ORGANISATIONS).order_by(ORGANISATIONS.c.id))}


def put_project(c: Connection, tenant_id: str, organisation_id: str) -> None:
    """Says which organisation a tenant is a project of."""
    c.execute(PROJECTS.delete().where(PROJECTS.c.tenant_id == tenant_id))
    c.execute(PROJECTS.insert().values(tenant_id=tenant_id, organisation_id=organisation_id))


_PROJECTS = select(PROJECTS)


def projects(c: Connection) -> dict[str, str]:
    """The organisation of each tenant that has one."""
    return {row.tenant_id: row.organisation_id for row in c.execute(_PROJECTS)}

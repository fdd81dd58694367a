"""Which login provider the yard believes, and what its groups may do here, as the operator set them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection

from gpuyard.access.group_roles import GroupRole
from gpuyard.control.sealing import Sealer
from gpuyard.model.tenants import Role
from gpuyard.store import meta

_PROVIDER, _GROUPS = "oidc_provider", "oidc_groups"


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """An OpenID provider. `sealed_secret`: of a client that has one; empty for a public client, which PKCE alone
    protects. `user_claim`: what names a user; it must never be given to another person by the provider."""

    issuer: str
    client_id: str
    sealed_secret: str
    scopes: str
    user_claim: str
    groups_claim: str

    def secret(self, sealer: Sealer) -> str | None:
        """The client's secret, open."""
        if not self.sealed_secret:
            return None
        return sealer.open({"secret": self.sealed_secret.encode()})["secret"]


def read(c: Connection) -> OidcSettings | None:
    """The provider, where one is set."""
    told = meta.get(c, _PROVIDER)
    return OidcSettings(**json.loads(told)) if told else None


def put(c: Connection, settings: OidcSettings | None) -> None:
    """Sets the provider, or none."""
    meta.put(c, _PROVIDER, "" if settings is None else json.dumps(asdict(settings)))


def groups(c: Connection) -> list[GroupRole]:
    """The operator's table."""
    rows = json.loads(meta.get(c, _GROUPS) or "[]")
    return [GroupRole(group, tenant_id, Role(role)) for group, tenant_id, role in rows]


def put_group(c: Connection, group: str, tenant_id: str, role: Role | None) -> None:
    """Sets one row, or takes it out."""
    kept: Sequence[GroupRole] = [row for row in groups(c) if (row.group, row.tenant_id) != (group, tenant_id)]
    rows = [*kept] if role is None else [*kept, GroupRole(group, tenant_id, role)]
    meta.put(c, _GROUPS, json.dumps([[row.group, row.tenant_id, row.role.value] for row in rows]))

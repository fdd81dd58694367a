"""From the groups that a login provider vouches for to a tenant and a role here, by the operator's table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.tenants import Role

_RANK: Final = {Role.VIEWER: 0, Role.MEMBER: 1, Role.OPERATOR: 2}


@dataclass(frozen=True, slots=True)
class GroupRole:
    """Whoever is in `group` may act in a tenant in this role."""

    group: str
    tenant_id: str
    role: Role


def choose(groups: Collection[str], table: Sequence[GroupRole], tenant_id: str | None) -> GroupRole:
    """The row that counts: of the tenant that is asked for, or of the only one that there is, the highest role.

    Raises YardError `no_role_for_groups` where no group has a role there, and `tenant_to_choose` where they have
    some in several tenants.
    """
    rows = [row for row in table if row.group in groups and tenant_id in (None, row.tenant_id)]
    if not rows:
        raise YardError("no_role_for_groups", groups=", ".join(sorted(groups))[:300] or "--")
    tenants = sorted({row.tenant_id for row in rows})
    if len(tenants) > 1:
        raise YardError("tenant_to_choose", tenants=", ".join(tenants))
    return max(rows, key=lambda row: _RANK[row.role])

"""Who may do what: one table, deny by default.

The first rules of a yard; policies grow here. Every decision names the rule that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gpuyard.model.tenants import Identity, Role


class Action(StrEnum):
    """What can be asked of a yard."""

    READ_FLEET = "read the fleet"
    OPERATE_YARD = "operate the yard"
    READ = "read"
    LAUNCH = "launch workloads"
    CONTROL = "control workloads"
    ENTER = "enter workloads"
    COMMIT = "buy commitments"
    MANAGE_TENANTS = "manage tenants"
    MANAGE_TOKENS = "manage tokens"


# Which actions each role may take, and whether only on what its own tenant owns.
_RULES: Final[dict[Role, frozenset[Action]]] = {
    Role.OPERATOR: frozenset(Action),
    Role.MEMBER: frozenset({Action.READ_FLEET, Action.READ, Action.LAUNCH, Action.CONTROL, Action.ENTER}),
    Role.VIEWER: frozenset({Action.READ_FLEET, Action.READ}),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, and the rule that decided."""

    allowed: bool
    rule: str


def decide(identity: Identity, action: Action, tenant_id: str | None) -> Decision:
    """Whether the identity may act on something that `tenant_id` owns (None: on the yard itself)."""
    if action not in _RULES.get(identity.role, frozenset()):
        return Decision(False, "role")
    if identity.role is Role.OPERATOR:
        return Decision(True, "operator")
    if tenant_id is None and action is not Action.READ_FLEET:
        return Decision(False, "operators_only")
    if tenant_id is not None and tenant_id != identity.tenant_id:
        return Decision(False, "other_tenant")
    return Decision(True, "own_tenant")

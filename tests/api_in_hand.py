"""The REST API over a hand-driven yard: clients of an operator and of two tenants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from gpuyard.access.tokens import digest, new_token
from gpuyard.api.app import About, build
from gpuyard.model.tenants import Role, Tenant
from gpuyard.store import tenants
from hand_driven_yard import HandYard

QUARTER = {"kind": "instance", "slices": {"offer": "rtx4090-quarter"}}
JOB = {"kind": "job", "slices": {"offer": "rtx4090-quarter"}, "command": ["sleep", "5"]}


class ApiInHand:
    """`operator`, `alice` and `bob` are clients; `hand` is the yard below them."""

    def __init__(self, root: Path, spec: str = "2xRTX4090,1xH100") -> None:
        self.hand = HandYard(root, spec)
        self.app = build(self.hand.yard, About("http://127.0.0.1:8470", str(root), "sqlite"))
        self.operator = self.client(self.hand.tenant("operators"), Role.OPERATOR)
        self.alice = self.client(self.hand.tenant("alice"), Role.MEMBER)
        self.bob = self.client(self.hand.tenant("bob"), Role.MEMBER)

    def client(self, tenant: Tenant, role: Role) -> TestClient:
        """A client with a token of its own."""
        token = new_token()
        with self.hand.yard.store.write() as c:
            number = len(tenants.tokens(c, None))
            tenants.insert_token(c, f"tk-{number}", tenant.id, f"{tenant.name}-{role}", role, digest(token), 0)
        return self.with_token(token)

    def with_token(self, token: str | None) -> TestClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table: what must not change when something is refused."""
        from gpuyard.store.tables import METADATA

        with self.hand.yard.store.read() as c:
            return {table.name: sorted(map(repr, c.execute(table.select()))) for table in METADATA.sorted_tables}  # type: ignore[misc]

    def close(self) -> None:
        self.hand.yard.store.close()

"""Every call of the API as a value: the synchronous and the asynchronous client send the same ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

from gpuyard.sdk import types

T = TypeVar("T")
Params = dict[str, str | int | list[str]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. `answer` is only a type. `repeatable`: sending it twice is as good as sending it once."""

    method: str
    path: str
    answer: type[T]
    params: Params = field(default_factory=dict[str, str | int | list[str]])
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    repeatable: bool = True
    timeout_s: float | None = None  # where an answer takes longer than others


def _params(**values: object) -> Params:
    shown: Params = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            shown[name.rstrip("_")] = [str(part) for part in value]
        elif isinstance(value, bool):
            shown[name.rstrip("_")] = "true" if value else "false"
        elif value is not None:
            shown[name.rstrip("_")] = value if isinstance(value, int) else str(value)
    return shown


params_of = _params  # for modules of calls beside this one


def _workload(workload: str, rest: str = "") -> str:
    return f"/v1/workloads/{quote(workload, safe='')}{rest}"


def health() -> Call[dict[str, str]]:
    return Call("GET", "/v1/health", dict[str, str])


def whoami() -> Call[types.WhoAmI]:
    return Call("GET", "/v1/whoami", types.WhoAmI)


def yard() -> Call[types.YardInfo]:
    return Call("GET", "/v1/yard", types.YardInfo)


def doctor() -> Call[types.Doctor]:
    return Call("GET", "/v1/doctor", types.Doctor)


def nodes(limit: int = 500, cursor: str | None = None) -> Call[types.Page[types.Node]]:
    return Call("GET", "/v1/nodes", types.Page[types.Node], _params(limit=limit, cursor=cursor))


def cards(limit: int = 500, cursor: str | None = None) -> Call[types.Page[types.Card]]:
    return Call("GET", "/v1/cards", types.Page[types.Card], _params(limit=limit, cursor=cursor))


def offers(limit: int = 500, cursor: str | None = None) -> Call[types.Page[types.Offer]]:
    return Call("GET", "/v1/offers", types.Page[types.Offer], _params(limit=limit, cursor=cursor))


def launch(wish: types.Launch, key: str | None = None) -> Call[types.Workload]:
    """The key is made here where there is none, so that a retry after a lost answer launches nothing twice."""
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    return Call("POST", "/v1/workloads", types.Workload, body={**wish}, headers=headers)


def plan(wish: types.Launch) -> Call[types.Plan]:
    return Call("POST", "/v1/workloads", types.Plan, _params(dry_run=True), body={**wish})


def workloads(
    kind: str | None = None,
    state: Sequence[str] = (),
    tenant: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Call[types.Page[types.Workload]]:
    params = _params(kind=kind, state=list(state) or None, tenant=tenant, limit=limit, cursor=cursor)
    return Call("GET", "/v1/workloads", types.Page[types.Workload], params)


def workload(workload: str, tenant: str | None = None) -> Call[types.Workload]:
    return Call("GET", _workload(workload), types.Workload, _params(tenant=tenant))


def stop(workload: str, tenant: str | None = None) -> Call[types.Workload]:
    return Call("POST", _workload(workload, "/stop"), types.Workload, _params(tenant=tenant))


def start(workload: str, tenant: str | None = None, cpu_only: bool = False) -> Call[types.Workload]:
    params = _params(tenant=tenant, cpu_only=cpu_only or None)
    return Call("POST", _workload(workload, "/start"), types.Workload, params)


def reboot(workload: str, tenant: str | None = None) -> Call[types.Workload]:
    return Call("POST", _workload(workload, "/reboot"), types.Workload, _params(tenant=tenant), repeatable=False)


def remove(workload: str, tenant: str | None = None) -> Call[types.Workload]:
    return Call("DELETE", _workload(workload), types.Workload, _params(tenant=tenant))


def verify(workload: str, replica: int | None = None, tenant: str | None = None) -> Call[types.Verification]:
    params = _params(replica=replica, tenant=tenant)
    return Call("POST", _workload(workload, "/verify"), types.Verification, params, repeatable=False, timeout_s=150.0)


def logs(
    workload: str,
    replica: int | None = None,
    since: str | None = None,
    follow: bool = False,
    tenant: str | None = None,
) -> Call[types.LogLine]:
    """A stream: one JSON object a line."""
    params = _params(replica=replica, since=since, follow=follow, tenant=tenant)
    return Call("GET", _workload(workload, "/logs"), types.LogLine, params)


def files(workload: str, path: str, replica: int = 0, tenant: str | None = None) -> Call[bytes]:
    """A tar stream, either way."""
    return Call("GET", _workload(workload, "/files"), bytes, _params(path=path, replica=replica, tenant=tenant))


def leases(
    state: Sequence[str] = (), tenant: str | None = None, limit: int = 100, cursor: str | None = None
) -> Call[types.Page[types.Lease]]:
    params = _params(state=list(state) or None, tenant=tenant, limit=limit, cursor=cursor)
    return Call("GET", "/v1/leases", types.Page[types.Lease], params)


def intervals(
    tenant: str | None = None, workload: str | None = None, limit: int = 500, cursor: str | None = None
) -> Call[types.Page[types.Interval]]:
    params = _params(tenant=tenant, workload=workload, limit=limit, cursor=cursor)
    return Call("GET", "/v1/intervals", types.Page[types.Interval], params)


def bill(
    tenant: str | None = None,
    workload: str | None = None,
    day: str | None = None,
    from_: str | None = None,
    until: str | None = None,
) -> Call[types.Bill]:
    params = _params(tenant=tenant, workload=workload, day=day, from_=from_, until=until)
    return Call("GET", "/v1/bill", types.Bill, params)


def events(after: int = 0, limit: int = 100) -> Call[types.Page[types.Event]]:
    return Call("GET", "/v1/events", types.Page[types.Event], _params(after=after, limit=limit))


def tenants() -> Call[types.Page[types.Tenant]]:
    return Call("GET", "/v1/tenants", types.Page[types.Tenant])


def tenant(tenant: str) -> Call[types.Tenant]:
    return Call("GET", f"/v1/tenants/{quote(tenant, safe='')}", types.Tenant)


def add_tenant(name: str, credit: str | None = None) -> Call[types.Tenant]:
    body: dict[str, object] = {"name": name, "credit": credit}
    return Call("POST", "/v1/tenants", types.Tenant, body=body, repeatable=False)


def add_credit(tenant: str, amount: str) -> Call[types.Tenant]:
    path = f"/v1/tenants/{quote(tenant, safe='')}/credit"
    return Call("POST", path, types.Tenant, body={"amount": amount}, repeatable=False)


def tokens() -> Call[types.Page[types.Token]]:
    return Call("GET", "/v1/tokens", types.Page[types.Token])


def add_token(user: str, role: str = "member", tenant: str | None = None) -> Call[types.Token]:
    body: dict[str, object] = {"user": user, "role": role, "tenant": tenant}
    return Call("POST", "/v1/tokens", types.Token, body=body, repeatable=False)


def revoke_token(token_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/tokens/{quote(token_id, safe='')}", type(None), repeatable=False)


def access_keys() -> Call[types.Page[types.AccessKey]]:
    return Call("GET", "/v1/access-keys", types.Page[types.AccessKey])


def add_access_key(user: str, role: str = "member", tenant: str | None = None) -> Call[types.AccessKey]:
    body: dict[str, object] = {"user": user, "role": role, "tenant": tenant}
    return Call("POST", "/v1/access-keys", types.AccessKey, body=body, repeatable=False)


def revoke_access_key(key_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/access-keys/{quote(key_id, safe='')}", type(None), repeatable=False)

"""The calls about rate limits, passwords and service accounts."""

from __future__ import annotations

from urllib.parse import quote

from gpuyard.sdk import types
from gpuyard.sdk.access_calls import View
from gpuyard.sdk.calls import Call, params_of


def rate_limits() -> Call[View]:
    return Call("GET", "/v1/rate-limits", View)


def put_rate_limit(action_class: str, per_second: float | None, burst: int) -> Call[View]:
    body: View = {"per_second": per_second, "burst": burst}
    return Call("PUT", f"/v1/rate-limits/{quote(action_class, safe='')}", View, body=body)


def sign_in(tenant: str, user: str, password: str) -> Call[View]:
    body: View = {"tenant": tenant, "user": user, "password": password}
    return Call("POST", "/v1/login", View, body=body, repeatable=False)


def change_password(old: str, new: str) -> Call[None]:
    return Call("PUT", "/v1/password", type(None), body={"old": old, "new": new}, repeatable=False)


def users() -> Call[View]:
    return Call("GET", "/v1/users", View)


def add_user(user: str, role: str, tenant: str | None, kind: str) -> Call[View]:
    body: View = {"user": user, "role": role, "tenant": tenant, "kind": kind}
    return Call("POST", "/v1/users", View, body=body, repeatable=False)


def disable_user(user: str, tenant: str | None) -> Call[None]:
    path = f"/v1/users/{quote(user, safe='')}"
    return Call("DELETE", path, type(None), params=params_of(tenant=tenant), repeatable=False)


def set_password(user: str, tenant: str | None, password: str) -> Call[None]:
    path, body = f"/v1/users/{quote(user, safe='')}/password", {"password": password}
    return Call("PUT", path, type(None), params=params_of(tenant=tenant), body=body)


def rotate_token(user: str, tenant: str | None, keep_s: int) -> Call[View]:
    path, body = f"/v1/users/{quote(user, safe='')}/token", {"keep_s": keep_s}
    return Call("POST", path, View, params=params_of(tenant=tenant), body=body, repeatable=False)


def rotate_access_key(key: str, keep_s: int) -> Call[types.AccessKey]:
    path, body = f"/v1/access-keys/{quote(key, safe='')}/rotate", {"keep_s": keep_s}
    return Call("POST", path, types.AccessKey, body=body, repeatable=False)


def oidc() -> Call[View]:
    return Call("GET", "/v1/oidc", View)


def put_oidc(
    issuer: str, client_id: str, client_secret: str | None, scopes: str, user_claim: str, groups_claim: str
) -> Call[View]:
    body: View = {
        "issuer": issuer,
        "client_id": client_id,
        "client_secret": client_secret,
        "scopes": scopes,
        "user_claim": user_claim,
        "groups_claim": groups_claim,
    }
    return Call("PUT", "/v1/oidc", View, body=body)


def remove_oidc() -> Call[None]:
    return Call("DELETE", "/v1/oidc", type(None))


def put_oidc_group(group: str, tenant: str, role: str | None) -> Call[View]:
    return Call("PUT", "/v1/oidc/groups", View, body={"group": group, "tenant": tenant, "role": role})


def begin_oidc() -> Call[dict[str, str]]:
    return Call("GET", "/v1/login/oidc", dict[str, str])


def finish_oidc(code: str, code_verifier: str, redirect_uri: str, nonce: str, tenant: str | None) -> Call[View]:
    body: View = {
        "code": code,
        "code_verifier": code_verifier,
        "redirect_uri": redirect_uri,
        "nonce": nonce,
        "tenant": tenant,
    }
    return Call("POST", "/v1/login/oidc", View, body=body, repeatable=False)

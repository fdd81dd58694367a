"""Calls about machines, for operators."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from gpuyard.sdk import types
from gpuyard.sdk.calls import Call

View = dict[str, Any]


def invite(name: str | None, expires_s: int) -> Call[View]:
    body: View = {"name": name, "expires_s": expires_s}
    return Call("POST", "/v1/machines/invitations", View, body=body, repeatable=False)


def invitations() -> Call[types.Page[View]]:
    return Call("GET", "/v1/machines/invitations", types.Page[View])


def withdraw(invitation: str) -> Call[None]:
    return Call("DELETE", f"/v1/machines/invitations/{quote(invitation, safe='')}", type(None))


def machines() -> Call[types.Page[View]]:
    return Call("GET", "/v1/machines", types.Page[View])


def machine(name: str) -> Call[View]:
    return Call("GET", f"/v1/machines/{quote(name, safe='')}", View)


def revoke(name: str) -> Call[View]:
    return Call("POST", f"/v1/machines/{quote(name, safe='')}/revoke", View)


def remove(name: str) -> Call[None]:
    return Call("DELETE", f"/v1/machines/{quote(name, safe='')}", type(None))


def join(secret: str, name: str, request: str) -> Call[View]:
    body: View = {"secret": secret, "name": name, "request": request}
    return Call("POST", "/v1/machines/join", View, body=body)  # the same key gets a certificate again

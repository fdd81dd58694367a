"""The calls about volumes and their keys."""

from __future__ import annotations

from urllib.parse import quote

from gpuyard.sdk.access_calls import View
from gpuyard.sdk.calls import Call, params_of


def _path(volume: str, rest: str = "") -> str:
    return f"/v1/volumes/{quote(volume, safe='')}{rest}"


def volumes(tenant: str | None = None) -> Call[View]:
    return Call("GET", "/v1/volumes", View, params=params_of(tenant=tenant))


def create_volume(name: str, key: str, tenant: str | None = None) -> Call[View]:
    body: View = {"name": name, "key": key, **({} if tenant is None else {"tenant": tenant})}
    return Call("POST", "/v1/volumes", View, body=body, repeatable=False)


def unlock_volume(volume: str, key: str, tenant: str | None = None) -> Call[View]:
    return Call("POST", _path(volume, "/unlock"), View, params=params_of(tenant=tenant), body={"key": key})


def lock_volume(volume: str, tenant: str | None = None) -> Call[View]:
    return Call("POST", _path(volume, "/lock"), View, params=params_of(tenant=tenant))


def change_volume_key(volume: str, old: str, new: str, tenant: str | None = None) -> Call[View]:
    body: View = {"old": old, "new": new}
    return Call("PUT", _path(volume, "/key"), View, params=params_of(tenant=tenant), body=body, repeatable=False)


def remove_volume(volume: str, tenant: str | None = None) -> Call[None]:
    return Call("DELETE", _path(volume), type(None), params=params_of(tenant=tenant), repeatable=False)

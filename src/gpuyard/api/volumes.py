"""Volumes over HTTP: those that there are, and the keys of encrypted ones. A key is taken and never given."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import answer, page
from gpuyard.control import volumes
from gpuyard.engines.volumes.protocol import VolumeId
from gpuyard.model.errors import YardError

router = APIRouter(tags=["volumes"])

MIN_CHARACTERS = 20
MAX_CHARACTERS = 1000

Key = Annotated[SecretStr, Field(description="one line of 20 to 1000 characters; the yard keeps it in memory alone")]
VolumeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewVolumeRequest(_Strict):
    name: schemas.Name
    key: Key
    tenant: schemas.Short | None = Field(None, description="operators only: for this tenant")


class KeyRequest(_Strict):
    key: Key


class KeyChangeRequest(_Strict):
    old: Key
    new: Key


class VolumeView(BaseModel):
    name: str
    tenant_id: str
    encrypted: bool
    state: Literal["plain", "open", "closed", "locked"] = Field(
        description="of an encrypted one: open while units use it; closed, its key held for the next one; locked: the "
        "yard lacks its key"
    )
    used_by: list[str] = Field(description="workloads that mount it and are not removed")


@router.get("/volumes", responses={200: {"model": schemas.Page[VolumeView]}})
async def list_volumes(caller: Caller, tenant: str | None = None) -> Response:
    """The tenant's volumes."""

    def work() -> Response:
        owner = caller.tenant(tenant)
        caller.must(Action.READ, owner.id, verb="ec2:DescribeVolumes")
        return page([_view(one) for one in volumes.listing(caller.yard, owner.id)], None)

    return await caller.read(work)


@router.post("/volumes", status_code=201, responses={201: {"model": VolumeView}})
async def create_volume(caller: Caller, body: NewVolumeRequest) -> Response:
    """An empty volume, encrypted with the given key. Whoever loses the key has lost what the volume holds."""

    def work() -> Response:
        volume = _may(caller, body.name, body.tenant, "ec2:CreateVolume")
        made = volumes.create(caller.yard, volume, _line(body.key), caller.identity.user)
        return answer(_view(made), 201)

    return await caller.write(work)


@router.post("/volumes/{volume}/unlock", responses={200: {"model": VolumeView}})
async def unlock_volume(caller: Caller, volume: VolumeName, body: KeyRequest, tenant: str | None = None) -> Response:
    """Gives the key of an encrypted volume, which is held for as long as a workload that is to run needs it."""

    def work() -> Response:
        found = _may(caller, volume, tenant, "gpuyard:UnlockVolume")
        return answer(_view(volumes.unlock(caller.yard, found, _line(body.key), caller.identity.user)))

    return await caller.write(work)


@router.post("/volumes/{volume}/lock", responses={200: {"model": VolumeView}})
async def lock_volume(caller: Caller, volume: VolumeName, tenant: str | None = None) -> Response:
    """Has the yard forget the key now; refused while a workload that runs mounts the volume."""

    def work() -> Response:
        found = _may(caller, volume, tenant, "gpuyard:LockVolume")
        return answer(_view(volumes.lock(caller.yard, found, caller.identity.user)))

    return await caller.write(work)


@router.put("/volumes/{volume}/key", responses={200: {"model": VolumeView}})
async def change_volume_key(
    caller: Caller, volume: VolumeName, body: KeyChangeRequest, tenant: str | None = None
) -> Response:
    """Puts another key in the place of the old one, which opens the volume no more. What it holds is not encrypted
    anew: whoever had the old key and a copy of the volume can still read that copy."""

    def work() -> Response:
        found = _may(caller, volume, tenant, "gpuyard:ChangeVolumeKey")
        old, new = _line(body.old), _line(body.new)
        return answer(_view(volumes.change_key(caller.yard, found, old, new, caller.identity.user)))

    return await caller.write(work)


@router.delete("/volumes/{volume}", status_code=204)
async def remove_volume(caller: Caller, volume: VolumeName, tenant: str | None = None) -> Response:
    """Deletes a volume with what it holds; refused while a workload that is not removed mounts it."""

    def work() -> Response:
        found = _may(caller, volume, tenant, "ec2:DeleteVolume")
        volumes.remove(caller.yard, found, caller.identity.user)
        return Response(status_code=204)

    return await caller.write(work)


def _may(caller: Asking, name: str, tenant: str | None, verb: str) -> VolumeId:
    owner = caller.tenant(tenant)
    caller.must(Action.CONTROL, owner.id, verb=verb, about=f"volume/{name}")
    return VolumeId(owner.id, name)


def _line(key: SecretStr) -> str:
    """The key, whose characters are shown to nobody. Raises YardError `invalid_request`."""
    line = key.get_secret_value()
    if not MIN_CHARACTERS <= len(line) <= MAX_CHARACTERS or not line.isprintable():
        raise YardError("invalid_request", reason="volume_key_shape", least=MIN_CHARACTERS, most=MAX_CHARACTERS)
    return line


def _view(told: volumes.Told) -> views.View:
    return {
        "name": told.id.name,
        "tenant_id": told.id.tenant_id,
        "encrypted": told.state != "plain",
        "state": told.state,
        "used_by": list(told.used_by),
    }

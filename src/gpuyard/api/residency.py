"""Where data may lie, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from gpuyard.access.residency import ResidencyClass, overlap
from gpuyard.access.rules import Action
from gpuyard.api.access import may_manage
from gpuyard.api.access_schemas import Key
from gpuyard.api.asking import Caller
from gpuyard.api.limits import ClassName
from gpuyard.api.rendering import answer
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.times import to_text
from gpuyard.store import events, residency

router = APIRouter(tags=["access"])


class ResidencyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    regions: Annotated[list[Key], Field(max_length=100, description="as nodes name them; none takes the class away")]


class HomeView(BaseModel):
    tenant_id: str
    data: str = Field(description="volume/NAME or disk/NAME")
    residency_class: str
    region: str
    since: str


class ResidencyView(BaseModel):
    classes: dict[str, list[str]]
    data: list[HomeView]


@router.get("/residency", responses={200: {"model": ResidencyView}})
async def show_residency(caller: Caller, tenant: str | None = None) -> Response:
    """The classes of regions, and which class each volume and disk belongs to."""

    def work() -> Response:
        scope = caller.scope(tenant)
        caller.must(Action.READ, scope)
        with caller.yard.store.read() as c:
            classes, homes = residency.classes(c), residency.listing(c, scope)
        data = [
            {
                **{name: one[name] for name in HomeView.model_fields if name != "since"},
                "since": to_text(int(str(one["since_us"]))),
            }
            for one in homes
        ]
        return answer({"classes": classes, "data": data})

    return await caller.read(work)


@router.put("/residency/classes/{name}", status_code=204)
async def put_class(caller: Caller, name: ClassName, body: ResidencyRequest) -> Response:
    """Says among which regions data may go. What lies in them already, or in none, is looked at when it is mounted."""
    may_manage(caller)

    def work() -> Response:
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            known = [ResidencyClass(one, frozenset(where)) for one, where in residency.classes(c).items()]
            if (twice := overlap(known, name, body.regions)) is not None:
                raise YardError("invalid_request", reason="region_twice", region=twice)
            residency.put_class(c, name, body.regions)
            data = {"regions": list(body.regions)}
            events.append(c, [Event("residency_class.set", name, now_us, None, caller.identity.user, data)])
        caller.yard.authority.forget()
        return Response(status_code=204)

    return await caller.write(work)

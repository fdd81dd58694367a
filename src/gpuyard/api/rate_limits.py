"""Rate limits over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from gpuyard.access.rate_limits import ActionClass, Rate
from gpuyard.api import schemas, views
from gpuyard.api.access import may_manage
from gpuyard.api.asking import Caller
from gpuyard.api.rendering import answer, page
from gpuyard.control.rate_limits import put
from gpuyard.model.events import Event
from gpuyard.store import events

router = APIRouter(tags=["access"])


class RateRequest(BaseModel):
    """A rate; one without `per_second` takes the limit away."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    per_second: Annotated[float | None, Field(ge=0.01, le=1_000_000, allow_inf_nan=False)] = None
    burst: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 100


class RateView(BaseModel):
    action_class: ActionClass
    per_second: float | None = Field(description="null: no limit")
    burst: int | None = Field(description="how many at once, after a quiet time")


@router.get("/rate-limits", responses={200: {"model": schemas.Page[RateView]}})
async def list_rate_limits(caller: Caller) -> Response:
    """How often one token may ask, by class of actions."""
    may_manage(caller)
    return page([_view(of, rate) for of, rate in caller.yard.rates.rates.items()], None)


@router.put("/rate-limits/{action_class}", responses={200: {"model": RateView}})
async def put_rate_limit(caller: Caller, action_class: ActionClass, body: RateRequest) -> Response:
    """Sets how often each token may ask for actions of a class, from now on: every bucket is full again."""
    may_manage(caller)
    rate = None if body.per_second is None else Rate(body.per_second, body.burst)

    def work() -> Response:
        now_us = caller.yard.clock.now_us()
        with caller.yard.store.write() as c:
            made = put(c, action_class, rate)
            data = {"per_second": "--" if rate is None else f"{rate.per_second:g}", "burst": str(body.burst)}
            events.append(c, [Event("rate_limit.set", action_class.value, now_us, None, caller.identity.user, data)])
        caller.yard.rates = made
        return answer(_view(action_class, rate))

    return await caller.write(work)


def _view(of: ActionClass, rate: Rate | None) -> views.View:
    return {
        "action_class": of.value,
        "per_second": None if rate is None else rate.per_second,
        "burst": None if rate is None else rate.burst,
    }

"""Whether a workload's slices hold, tried from inside of it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from gpuyard.access.rules import Action
from gpuyard.api import schemas
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.inside import newest_leases
from gpuyard.api.rendering import answer
from gpuyard.engines.runtime import Runtime, Session
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease
from gpuyard.model.slices import Guarantee, Slice
from gpuyard.model.workloads import Workload
from gpuyard.slicing.ladder import enforced
from gpuyard.slicing.verify import TRY_MILLISECONDS, Check, judge, judge_past, past_library
from gpuyard.slicing.verify_mig import judge_instance

router = APIRouter(tags=["inside"])
_TIMEOUT_S: Final = 120.0


@router.post("/workloads/{workload}/verify", responses={200: {"model": schemas.VerifyView}})
async def verify(
    caller: Caller, workload: str, replica: Annotated[int | None, Query(ge=0, le=999)] = None, tenant: str | None = None
) -> Response:
    """Runs a program in a running replica that tries to get more memory and compute than its slices are, and tells
    what held. For some seconds it takes what the slices have left: what else runs there may find no memory."""
    found, lease = await caller.read(lambda: _enforced(caller, workload, replica, tenant))
    program = caller.yard.engine.probes.get(found.runtime)
    if program is None:
        raise YardError("nothing_to_verify", workload=found.name, guarantee=lease.slices[0].guarantee.value)
    runtime = caller.yard.engine.get(found.runtime)
    printed = await _printed(runtime, lease.unit_name, (program, str(TRY_MILLISECONDS)))
    checks = _judge(caller, lease, printed)
    engine = caller.yard.engine
    driver = engine.drivers.get(found.runtime)
    held_by_driver = any(cut.guarantee is Guarantee.KERNEL and cut.mig is None for cut in lease.slices)
    if driver is not None and held_by_driver:
        engine.trying.add(lease.unit_name)
        try:
            past = await _printed(runtime, lease.unit_name, past_library(program, driver))
        finally:
            engine.trying.discard(lease.unit_name)
        checks += judge_past(lease.slices, past)
    return answer(
        {
            "workload": found.name,
            "replica": lease.replica,
            "guarantee": lease.slices[0].guarantee.value,
            "held": all(check.held is not False for check in checks),
            "checks": [
                {
                    "name": check.name,
                    "way": check.way,
                    "card": check.card,
                    "limit": check.limit,
                    "got": check.got,
                    "held": check.held,
                }
                for check in checks
            ],
        }
    )


async def _printed(runtime: Runtime, unit: str, command: tuple[str, ...]) -> bytes:
    """What a program inside of the unit prints. Raises YardError `verify_failed` where it takes too long."""
    session = await runtime.execute(unit, command, False)
    try:
        return await asyncio.wait_for(_all(session), _TIMEOUT_S)
    except TimeoutError:
        raise YardError("verify_failed", reason=f"{_TIMEOUT_S:g} s") from None
    finally:
        await session.close()


def _judge(caller: Asking, lease: Lease, printed: bytes) -> tuple[Check, ...]:
    cut, engine = lease.slices[0], caller.yard.engine
    if cut.mig is None:
        return judge(lease.slices, printed, engine.multiprocessors, engine.given(lease.unit_name))
    card = caller.yard.roster.card(cut.card_uuid)
    profile = None if card is None or card.mig is None else card.mig.profile(cut.mig.place.profile_id)
    return judge_instance(cut, profile, printed)


async def _all(session: Session) -> bytes:
    printed = b""
    while piece := await session.read():
        printed = (printed + piece)[-65536:]
    return printed


def _in_an_instance(cut: Slice) -> bool:
    return cut.mig is not None and cut.guarantee is not Guarantee.NONE


def _enforced(caller: Asking, workload: str, replica: int | None, tenant: str | None) -> tuple[Workload, Lease]:
    """A running replica whose slices a library inside of it enforces.

    Raises YardError `not_running` or `nothing_to_verify`.
    """
    found = caller.workload(Action.ENTER, workload, tenant)
    held = newest_leases(caller, found)
    if replica is not None and replica not in {lease.replica for lease in held}:
        raise YardError("invalid_request", reason="no_replica", replica=replica)
    for lease in held:
        if replica in (None, lease.replica) and lease.state == "active":
            levels = {cut.guarantee for cut in lease.slices}
            held = all(enforced(cut.guarantee) or _in_an_instance(cut) for cut in lease.slices)
            if not levels or not held:
                told = ", ".join(sorted(level.value for level in levels)) or "--"
                raise YardError("nothing_to_verify", workload=found.name, guarantee=told)
            return found, lease
    raise YardError("not_running", workload=found.name, state=found.state.value)

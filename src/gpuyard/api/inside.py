"""Into a workload over HTTP: its logs and its files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gpuyard.access.rules import Action
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import json_bytes
from gpuyard.engines.runtime import Runtime
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease
from gpuyard.model.times import from_text, to_text
from gpuyard.model.units import parse_duration
from gpuyard.model.workloads import Workload
from gpuyard.store import leases

router = APIRouter(tags=["inside"])

Replica = Annotated[int | None, Query(ge=0, le=999)]
SPOOL_BYTES = 8 << 20
_DURATION = re.compile(r"[0-9]+(ms|s|m|h|d)?")


def newest_leases(caller: Asking, workload: Workload) -> list[Lease]:
    """The newest lease of each replica."""
    with caller.yard.store.read() as c:
        held = leases.of_workloads(c, [workload.id])
    newest = {lease.replica: lease for lease in sorted(held, key=lambda lease: lease.id)}
    return [newest[replica] for replica in sorted(newest)]


def last_unit(caller: Asking, lease: Lease) -> str | None:
    """The newest unit of a lease that the engine still knows: the present one, or the last that left logs."""
    for attempt in range(lease.attempt, 0, -1):
        name = f"{lease.id}-{attempt}"
        if name in caller.yard.seen:
            return name
        if lease.attempt - attempt > 20:
            break
    return None


@router.get(
    "/workloads/{workload}/logs",
    response_class=StreamingResponse,
    responses={200: {"description": "lines of JSON", "content": {"application/x-ndjson": {"schema": {}}}}},
)
async def logs(
    caller: Caller,
    workload: str,
    replica: Replica = None,
    since: str | None = None,
    follow: bool = False,
    tenant: str | None = None,
) -> Response:
    """Output lines as NDJSON, replica by replica; `follow` (one replica, the first unless named) until it ends."""
    found = await caller.read(lambda: caller.workload(Action.ENTER, workload, tenant))
    since_us = None
    if since is not None:
        since_us = (
            caller.yard.clock.now_us() - parse_duration(since) if _DURATION.fullmatch(since) else from_text(since)
        )
    held = [lease for lease in newest_leases(caller, found) if replica in (None, lease.replica)]
    if replica is not None and not held:
        raise YardError("invalid_request", reason="no_replica", replica=replica)
    runtime = caller.yard.engine.get(found.runtime)
    lines = _lines(caller, runtime, held[:1] if follow else held, since_us, follow)
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def _lines(
    caller: Asking, runtime: Runtime, held: list[Lease], since_us: int | None, follow: bool
) -> AsyncIterator[bytes]:
    for lease in held:
        name = last_unit(caller, lease)
        if name is None:
            continue
        async for line in runtime.logs(name, since_us, follow):
            value = {"at": to_text(line.at_us), "stream": line.stream, "text": line.text, "replica": lease.replica}
            yield json_bytes(value) + b"\n"


@router.get(
    "/workloads/{workload}/files",
    response_class=StreamingResponse,
    responses={200: {"description": "a tar archive", "content": {"application/x-tar": {"schema": {}}}}},
)
async def read_files(
    caller: Caller, workload: str, path: str, replica: Replica = None, tenant: str | None = None
) -> Response:
    """A file or folder of the workload's disk as a tar stream."""
    runtime, lease, name = await caller.read(lambda: _disk(caller, workload, replica, tenant))

    def first() -> tuple[bytes, Iterator[bytes]]:
        chunks = iter(runtime.read_files(lease.disk_name, name, path))
        return next(chunks, b""), chunks

    head, rest = await caller.write(first)

    async def body() -> AsyncIterator[bytes]:
        yield head
        async for chunk in iterate_in_threadpool(rest):
            yield chunk

    return StreamingResponse(body(), media_type="application/x-tar")


@router.put("/workloads/{workload}/files", status_code=204)
async def write_files(
    request: Request, caller: Caller, workload: str, path: str, replica: Replica = None, tenant: str | None = None
) -> Response:
    """Unpacks a tar stream into a folder of the workload's disk."""
    runtime, lease, name = await caller.read(lambda: _disk(caller, workload, replica, tenant))
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
        async for chunk in request.stream():
            spool.write(chunk)
        spool.seek(0)
        await caller.write(lambda: runtime.write_files(lease.disk_name, name, path, spool))  # type: ignore[arg-type]
    return Response(status_code=204)


def _disk(caller: Asking, workload: str, replica: int | None, tenant: str | None) -> tuple[Runtime, Lease, str | None]:
    found = caller.workload(Action.ENTER, workload, tenant)
    for lease in newest_leases(caller, found):
        if lease.replica == (replica or 0):
            return caller.yard.engine.get(found.runtime), lease, last_unit(caller, lease)
    raise YardError("invalid_request", reason="no_replica", replica=replica or 0)

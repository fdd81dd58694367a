"""The event table over HTTP: as pages, or live as server-sent events that resume by id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.asking import Asking, Caller, known
from gpuyard.api.rendering import json_bytes, page
from gpuyard.api.workloads import Limit
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.store import events

router = APIRouter(tags=["events"])

POLL_SECONDS = 0.25
KEEP_ALIVE_SECONDS = 15.0
BATCH = 200
MAX_SEQUENCE = 10**18  # what the stores take


@router.get(
    "/events", responses={200: {"model": schemas.Page[schemas.EventView], "content": {"text/event-stream": {}}}}
)
async def show_events(
    request: Request,
    caller: Caller,
    after: Annotated[int, Query(ge=0, le=MAX_SEQUENCE)] = 0,
    limit: Limit = 100,
    accept: Annotated[str, Header()] = "application/json",
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Events after a sequence number: a page of JSON, or a stream where `Accept` is text/event-stream."""
    scope = caller.scope(None)
    caller.must(Action.READ, scope)
    if "text/event-stream" in accept:
        if last_event_id is not None:
            if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 19):
                raise YardError("invalid_cursor", value=last_event_id[:80])
            after = int(last_event_id)
        stream = _stream(request, caller, scope, after)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    found = await caller.read(lambda: _after(caller, after, scope, limit))
    return page([views.event_view(event) for event in found], str(found[-1].sequence) if found else None)


def _after(caller: Asking, after: int, scope: str | None, limit: int) -> list[Event]:
    with caller.yard.store.read() as c:
        return list(events.after(c, after, scope, limit))


async def _still_known(request: Request) -> bool:
    """Whether the caller's token has not been revoked meanwhile."""
    try:
        await known(request)
    except YardError:
        return False
    return True


async def _stream(request: Request, caller: Asking, scope: str | None, after: int) -> AsyncIterator[bytes]:
    """Polls the table, which is the one source of truth: what one server wrote, another streams."""
    quiet = 0.0
    yield b": gpuyard\n\n"
    while not request.app.state.stopping.is_set():
        if not await _still_known(request):
            return
        found = await caller.read(partial(_after, caller, after, scope, BATCH))
        for event in found:
            after = event.sequence
            body = json_bytes(views.event_view(event)).decode()
            yield f"id: {event.sequence}\nevent: {event.kind}\ndata: {body}\n\n".encode()
        if found:
            quiet = 0.0
            continue
        if await request.is_disconnected():
            return
        await asyncio.sleep(POLL_SECONDS)
        quiet += POLL_SECONDS
        if quiet >= KEEP_ALIVE_SECONDS:
            quiet = 0.0
            yield b": still here\n\n"

"""The application behind the port for machines. A machine is known by the certificate of its connection and by nothing
that it says: no call names one, so that none can be about another. Tokens and sessions of the API mean nothing here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpuyard.access.machines import HEARTBEAT_EVERY_S
from gpuyard.api import problems
from gpuyard.api.asking import too_many
from gpuyard.api.guard import Guard
from gpuyard.api.machine_schemas import Heartbeat, Inventory, RenewalRequest
from gpuyard.api.machines import granted_view
from gpuyard.api.rendering import answer
from gpuyard.control.machines import joining, reporting
from gpuyard.control.machines.admitting import Admitted, admit
from gpuyard.control.machines.gate import Gate
from gpuyard.model.times import from_text, to_text

T = TypeVar("T")
EXTENSION = "gpuyard.certificate"  # of the scope: what the handshake verified (DER)
router = APIRouter(prefix="/v1/machine")


class CertificateProtocol(H11Protocol):
    """Tells the application which certificate the handshake verified; nothing that is sent can."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        shown = None if connection is None else connection.getpeercert(binary_form=True)
        plain = self.app

        async def with_certificate(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[EXTENSION] = shown
            await plain(scope, receive, send)

        self.app = with_certificate


async def _admitted(request: Request) -> Admitted:
    """Raises YardError `machine_refused`, `too_many_requests`."""
    gate: Gate = request.app.state.gate
    shown = request.scope.get("extensions", {}).get(EXTENSION)
    return await _carried(gate, lambda: admit(gate, shown, _address(request)))


Who = Annotated[Admitted, Depends(_admitted)]


@router.get("")
async def show(who: Who) -> Response:
    """The machine, as the yard knows it by its certificate."""
    return answer({"name": who.machine.name, "id": who.machine.id, "now": to_text(who.gate.wall_us())})


@router.post("/heartbeat")
async def heartbeat(who: Who, body: Heartbeat) -> Response:
    """The machine is there."""
    gate = who.gate
    ahead_us = from_text(body.at) - gate.wall_us()
    await _carried(gate, lambda: reporting.heartbeat(who, ahead_us, body.version))
    knows = who.machine.inventory is not None
    return answer({"now": to_text(gate.wall_us()), "every_s": HEARTBEAT_EVERY_S, "knows_cards": knows})


@router.post("/inventory")
async def inventory(who: Who, body: Inventory) -> Response:
    """Which cards it has, what each can guarantee, and what its doctor finds."""
    changed = await _carried(who.gate, lambda: reporting.report(who, body.model_dump()))
    return answer({"changed": changed})


@router.post("/renew")
async def renew(request: Request, who: Who, body: RenewalRequest) -> Response:
    """A new certificate, for a new key."""
    gate = who.gate
    now_us = gate.yard.clock.now_us()
    if wait_us := gate.renewals.wait_us(who.machine.id, now_us):
        raise too_many("machine", wait_us)
    gate.renewals.take(who.machine.id, now_us)
    address = _address(request)
    granted = await _carried(gate, lambda: joining.renew(gate, who, body.request.encode(), address))
    return answer(granted_view(gate, granted))


def build_door(gate: Gate) -> FastAPI:
    """The application over one gate."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.gate = gate
    problems.install(app)
    app.include_router(router)
    app.add_middleware(Guard)
    return app


async def _carried(gate: Gate, work: Callable[[], T]) -> T:
    """In a thread, as it may wait for the disk; decisions commit with what they decide."""

    def carrying() -> T:
        with gate.yard.authority.auditor.carried():
            return work()

    return await asyncio.to_thread(carrying)


def _address(request: Request) -> str | None:
    return None if request.client is None else request.client.host

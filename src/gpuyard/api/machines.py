"""Machines over HTTP, for operators; and the one call of a machine that has no certificate yet."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from gpuyard.access.machines import spiffe_id
from gpuyard.access.rates import Buckets
from gpuyard.access.rules import Action
from gpuyard.api import schemas, views
from gpuyard.api.asking import Asking, Caller, origin_of, too_many
from gpuyard.api.machine_schemas import (
    GrantedView,
    InvitationRequest,
    InvitationView,
    JoinRequest,
    MachineDetailView,
    MachineView,
    NewInvitationView,
)
from gpuyard.api.rendering import answer, page
from gpuyard.control.machines import inviting
from gpuyard.control.machines.reporting import last_heard_us, lateness
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.machines import Invitation, Machine, MachineCertificate
from gpuyard.model.times import to_text
from gpuyard.store import machines

if TYPE_CHECKING:
    from gpuyard.control.machines.gate import Gate
    from gpuyard.control.machines.joining import Granted

router = APIRouter(tags=["machines"])


def by_address() -> Buckets:
    """Attempts to join: a rack that is set up at once gets in, somebody who guesses does not get far."""
    return Buckets(per_second=0.5, burst=40)


@router.post("/machines/invitations", status_code=201, responses={201: {"model": NewInvitationView}})
async def invite(request: Request, caller: Caller, body: InvitationRequest) -> Response:
    """Lets one machine join, once. The token is shown this once."""

    def work() -> Response:
        _must(caller, "InviteMachine")
        gate = _listening(request)
        expires_us = body.expires_s * 1_000_000
        made, token = inviting.invite(caller.yard, body.name, expires_us, gate.ca_sha256, caller.identity.user)
        view = _invitation_view(made, caller.yard.clock.now_us())
        return answer({**view, "token": token.text(), "url": request.app.state.about.address}, 201)

    return await caller.write(work)


@router.get("/machines/invitations", responses={200: {"model": schemas.Page[InvitationView]}})
async def list_invitations(caller: Caller) -> Response:
    """Invitations of the last month, the newest first; their tokens are nowhere."""
    _must(caller, "ListMachines")

    def work() -> Response:
        with caller.yard.store.read() as c:
            found = machines.invitations(c)
        return page([_invitation_view(one, caller.yard.clock.now_us()) for one in found], None)

    return await caller.read(work)


@router.delete("/machines/invitations/{invitation}", status_code=204)
async def withdraw(caller: Caller, invitation: str) -> Response:
    """Makes an invitation worthless that nobody used."""

    def work() -> Response:
        _must(caller, "WithdrawInvitation")
        inviting.withdraw(caller.yard, invitation, caller.identity.user)
        return Response(status_code=204)

    return await caller.write(work)


@router.post("/machines/join", responses={200: {"model": GrantedView}})
async def join(request: Request, body: JoinRequest) -> Response:
    """A certificate for a machine, for the secret of a join token. Needs no token of the API."""
    gate = _listening(request)
    address = origin_of(gate.yard, request).address
    attempts: Buckets = request.app.state.joins
    now_us = time.monotonic_ns() // 1000
    if wait_us := attempts.wait_us(str(address), now_us):
        raise too_many("join", wait_us)
    attempts.take(str(address), now_us)

    def work() -> Response:
        from gpuyard.control.machines import joining

        with gate.yard.authority.auditor.carried():
            granted = joining.join(gate, body.secret, body.name, body.request.encode(), address)
        return answer(granted_view(gate, granted))

    return await asyncio.to_thread(work)


@router.get("/machines", responses={200: {"model": schemas.Page[MachineView]}})
async def list_machines(request: Request, caller: Caller) -> Response:
    """Every machine that joined, by name."""
    _must(caller, "ListMachines")
    gate: Gate | None = request.app.state.machines

    def work() -> Response:
        with caller.yard.store.read() as c:
            found = [(one, machines.certificates_of(c, one.id)) for one in machines.listing(c)]
        return page([_view(caller.yard, gate, one, held) for one, held in found], None)

    return await caller.read(work)


@router.get("/machines/{machine}", responses={200: {"model": MachineDetailView}})
async def show_machine(request: Request, caller: Caller, machine: str) -> Response:
    """A machine with the cards that it told of, and what its doctor finds."""
    _must(caller, "ListMachines")
    return await caller.read(lambda: answer(_detail(request, caller, machine)))


@router.post("/machines/{machine}/revoke", responses={200: {"model": MachineDetailView}})
async def revoke(request: Request, caller: Caller, machine: str) -> Response:
    """No certificate of the machine counts from now on, on open connections either."""

    def work() -> Response:
        _must(caller, "RevokeMachine")
        inviting.revoke(caller.yard, machine, caller.identity.user)
        return answer(_detail(request, caller, machine))

    return await caller.write(work)


@router.delete("/machines/{machine}", status_code=204)
async def remove(caller: Caller, machine: str) -> Response:
    """Forgets a machine; its certificates count no more, and its name is free."""

    def work() -> Response:
        _must(caller, "RemoveMachine")
        inviting.remove(caller.yard, machine, caller.identity.user)
        return Response(status_code=204)

    return await caller.write(work)


def granted_view(gate: Gate, granted: Granted) -> views.View:
    """What a machine gets, with where to go and what time it is there."""
    return {
        "name": granted.name,
        "id": spiffe_id(gate.yard.id, granted.name),
        "certificate": granted.certificate,
        "authorities": granted.authorities,
        "until": granted.until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "address": gate.address,
        "now": to_text(gate.wall_us()),
    }


def _must(caller: Asking, verb: str) -> None:
    caller.must(Action.OPERATE_YARD, None, verb=f"gpuyard:{verb}")


def _listening(request: Request) -> Gate:
    """Raises YardError `machines_off`."""
    gate: Gate | None = request.app.state.machines
    if gate is None:
        raise YardError("machines_off")
    return gate


def _detail(request: Request, caller: Asking, wanted: str) -> views.View:
    with caller.yard.store.read() as c:
        found = machines.find(c, wanted)
        held = [] if found is None else machines.certificates_of(c, found.id)
    if found is None:
        raise YardError("machine_not_found", machine=wanted[:80])
    told = None if found.inventory is None else json.loads(found.inventory)
    return {**_view(caller.yard, request.app.state.machines, found, held), "inventory": told}


def _view(yard: Yard, gate: Gate | None, machine: Machine, held: list[MachineCertificate]) -> views.View:
    good = [one.until_us for one in held if one.revoked_us is None and one.superseded_us is None]
    ahead_us = machine.clock_ahead_us
    return {
        "id": machine.id,
        "name": machine.name,
        "spiffe_id": spiffe_id(yard.id, machine.name),
        "state": machine.state.value,
        "joined_at": to_text(machine.joined_us),
        "invited_by": machine.joined_by,
        "revoked_at": _moment(machine.revoked_us),
        "certificate_until": _moment(max(good, default=None)),
        "last_heartbeat_at": _moment(last_heard_us(gate, machine)),
        "late": lateness(yard, gate, machine),
        "clock_ahead_s": None if ahead_us is None else ahead_us / 1_000_000,
        "version": machine.version,
        "reported_at": _moment(machine.inventory_us),
        "cards": None if machine.inventory is None else len(json.loads(machine.inventory)["cards"]),
    }


def _moment(at_us: int | None) -> str | None:
    return None if at_us is None else to_text(at_us)


def _invitation_view(made: Invitation, now_us: int) -> views.View:
    state = "expired" if now_us >= made.expires_us else "open"
    if made.withdrawn_us is not None:
        state = "withdrawn"
    elif made.key_sha256 is not None:
        state = "used"
    return {
        "id": made.id,
        "name": made.name,
        "created_at": to_text(made.created_us),
        "created_by": made.created_by,
        "expires_at": to_text(made.expires_us),
        "state": state,
        "machine_id": made.machine_id,
    }

"""Signing in over HTTP. Passwords are compared in a room of their own, and only so many attempts get there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.responses import Response

from gpuyard.access import passwords
from gpuyard.access.rates import Buckets
from gpuyard.api import schemas, views
from gpuyard.api.asking import Caller, origin_of, too_many
from gpuyard.api.rendering import answer
from gpuyard.control import signing_in
from gpuyard.control.yard import Yard
from gpuyard.model.tenants import Identity
from gpuyard.model.times import to_text

router = APIRouter(tags=["users"])
T = TypeVar("T")

AT_ONCE = 2  # each takes a core and 64 MiB
WAITING = 16
Password = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class LoginRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    tenant: schemas.Short
    user: schemas.UserName
    password: Password


class SessionView(BaseModel):
    token: str
    token_id: str
    expires_at: str
    user: str
    role: str
    tenant_id: str


class PasswordChange(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    old: Password
    new: Password


class Logins:
    """Who may try a password now: so many from an address, and for a name, and never more at once than there is room
    for. Names that are no user's count too, so that waiting tells nothing."""

    def __init__(self, addresses: Buckets, names: Buckets, prepare: Callable[[], None] = lambda: None) -> None:
        self.addresses, self.names = addresses, names
        self._room = ThreadPoolExecutor(AT_ONCE, "logins", initializer=prepare)
        self._inside = 0

    async def attempt(self, address: str | None, name: str, work: Callable[[], T]) -> T:
        """Raises YardError `too_many_requests`, and what `work` raises."""
        now_us = time.monotonic_ns() // 1000
        wait_us = max(self.addresses.wait_us(str(address), now_us), self.names.wait_us(name, now_us))
        if not wait_us and self._inside >= WAITING:
            wait_us = 1_000_000
        if wait_us:
            raise too_many("login", wait_us)
        self.addresses.take(str(address), now_us)
        self.names.take(name, now_us)
        return await self.hash(work)

    async def hash(self, work: Callable[[], T]) -> T:
        """Runs what makes or compares a password, beside nothing else that needs a thread."""
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._room, work)
        finally:
            self._inside -= 1


def by_password() -> Logins:
    """For passwords: few attempts, as each may be a guess."""
    return Logins(Buckets(per_second=0.5, burst=20), Buckets(per_second=0.1, burst=10), passwords.warm_up)


def by_provider() -> Logins:
    """For a login provider, which does its own counting: an office that shares an address must get in."""
    return Logins(Buckets(per_second=2, burst=60), Buckets(per_second=2, burst=60))


@router.post("/login", responses={200: {"model": SessionView}})
async def sign_in(request: Request, body: LoginRequest) -> Response:
    """A token for twelve hours, by password. Needs no token."""
    yard: Yard = request.app.state.yard
    logins: Logins = request.app.state.logins
    address = origin_of(yard, request).address

    def work() -> tuple[Identity, str]:
        return signing_in.sign_in(yard, body.tenant, body.user, body.password, address)

    return answer(session_view(*await logins.attempt(address, f"{body.tenant}/{body.user}", work)))


@router.put("/password", status_code=204)
async def change_password(request: Request, caller: Caller, body: PasswordChange) -> Response:
    """Changes one's own password, by the old one. Every session of the user ends."""
    logins: Logins = request.app.state.logins
    who = caller.identity

    def work() -> None:
        signing_in.change_password(caller.yard, who, body.old, body.new, caller.origin.address)

    await logins.attempt(caller.origin.address, f"{who.tenant_id}/{who.user}", work)
    return Response(status_code=204)


def session_view(who: Identity, token: str) -> views.View:
    """A session as its owner sees it, once."""
    return {
        "token": token,
        "token_id": who.token_id,
        "expires_at": None if who.expires_us is None else to_text(who.expires_us),
        "user": who.user,
        "role": who.role.value,
        "tenant_id": who.tenant_id,
    }

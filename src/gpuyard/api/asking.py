"""Who is asking, in which language, and what they may do: the start of every handler."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.responses import Response

from gpuyard.access.authority import Judgement
from gpuyard.access.geography import caller_address, told_secure
from gpuyard.access.policies.patterns import Values
from gpuyard.access.questions import VERBS, Origin, ask
from gpuyard.access.rate_limits import classify
from gpuyard.access.rates import Buckets
from gpuyard.access.rules import Action
from gpuyard.access.tokens import digest, from_header
from gpuyard.api.remembering import Answers
from gpuyard.control.geography import why_not
from gpuyard.control.residency import error_of, why_misplaced
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.tenants import Identity, Role, Tenant
from gpuyard.model.workloads import Workload, WorkloadSpec
from gpuyard.store import tenants, workloads
from gpuyard.texts import language_of_header

T = TypeVar("T")

MAX_LIMIT = 500
AT_HAND = 10_000  # tokens that are known without asking the store
START = "ec2:StartInstances"
BY_POLICY = frozenset({"explicit_deny", "boundary"})


@dataclass(frozen=True, slots=True)
class Asking:
    """One request's yard, caller and language."""

    yard: Yard
    identity: Identity
    language: str
    answers: Answers
    origin: Origin

    def must(
        self,
        action: Action,
        tenant_id: str | None,
        *,
        verb: str | None = None,
        about: str = "*",
        facts: Mapping[str, Values] | None = None,
    ) -> None:
        """Raises YardError `forbidden` unless the caller's role allows it, naming the rule that decided, and
        `denied_by_policy` where a policy does not, naming the statement. `verb` and `facts` are in policies' words."""
        now_us = self.yard.clock.now_us()
        question = ask(self.identity, action, tenant_id, self.origin, now_us, verb=verb, about=about, facts=facts)
        judged = self.yard.authority.decide(question, now_us)
        if judged.allowed:
            return
        if judged.because in BY_POLICY:
            raise YardError(
                "denied_by_policy",
                user=self.identity.user,
                action=question.verb,
                resource=question.resource,
                because=judged.because,
                statement=", ".join(judged.statements),
            )
        raise YardError(
            "forbidden",
            user=self.identity.user,
            role=self.identity.role.value,
            action=action.value,
            rule=judged.because,
        )

    def must_be_inside(self, action: Action, tenant_id: str, spec: WorkloadSpec, verb: str, about: str = "*") -> None:
        """Raises YardError `outside_geography` where what it runs on may not be used from where the caller is, or by
        the tenant whose it is, and `outside_residency` where it could come to run where its data may not lie."""
        yard = self.yard
        atlas = yard.authority.atlas()
        refused = why_not(yard, atlas, tenant_id, spec, self.origin.address)
        if refused is None:
            if action is not Action.ENTER:
                self._must_reside(action, tenant_id, spec, verb, about)
            return
        now_us = yard.clock.now_us()
        question = ask(
            self.identity, action, tenant_id, self.origin, now_us, verb=verb, about=about, facts=facts_of(spec)
        )
        judged = Judgement(False, refused.why, (f"export-class/{refused.export_class}",))
        yard.authority.note(question, judged, now_us)
        raise YardError(
            "outside_geography",
            offer=spec.slices.offer or "custom",
            why=refused.why,
            export_class=refused.export_class,
        )

    def _must_reside(self, action: Action, tenant_id: str, spec: WorkloadSpec, verb: str, about: str) -> None:
        yard, now_us = self.yard, self.yard.clock.now_us()
        known = None if about == "*" else about
        refused = why_misplaced(yard, yard.authority.atlas(), tenant_id, spec, known)
        if refused is None:
            return
        question = ask(
            self.identity, action, tenant_id, self.origin, now_us, verb=verb, about=about, facts=facts_of(spec)
        )
        judged = Judgement(False, refused.why, (f"residency-class/{refused.residency_class}",))
        yard.authority.note(question, judged, now_us)
        raise error_of(refused)

    async def read(self, work: Callable[[], T]) -> T:
        """Runs a query: at once on SQLite, where it takes microseconds; in a thread where a network is between."""
        if self.yard.store.dialect == "sqlite":
            return work()
        return await asyncio.to_thread(work)

    async def remembered(self, question: Hashable, work: Callable[[], bytes]) -> Response:
        """`read` of a JSON body that depends only on the store and on what the engine shows."""
        question = (self.identity, self.language, question)
        state = (self.yard.store.generation, self.yard.seen_version)
        body = self.answers.get(state, question)
        if body is None:
            body = await self.read(work)
            self.answers.put(state, question, body)
        return Response(body, media_type="application/json")

    async def write(self, work: Callable[[], T]) -> T:
        """Runs a change in a thread: it waits for the disk."""
        return await asyncio.to_thread(self._carrying, work)

    def _carrying(self, work: Callable[[], T]) -> T:
        with self.yard.authority.auditor.carried():
            return work()

    def scope(self, tenant: str | None) -> str | None:
        """The tenant id that a list is limited to: an operator's choice or none, a member's own always."""
        if self.identity.role is not Role.OPERATOR:
            if tenant is not None and self.tenant(tenant).id != self.identity.tenant_id:
                self.must(Action.READ, self.tenant(tenant).id)
            return self.identity.tenant_id
        return None if tenant is None else self.tenant(tenant).id

    def tenant(self, id_or_name: str | None) -> Tenant:
        """A tenant by id or name, or the caller's own.

        Raises YardError `tenant_not_found`.
        """
        with self.yard.store.read() as c:
            found = tenants.find(c, id_or_name or self.identity.tenant_id)
        if found is None or (self.identity.role is not Role.OPERATOR and found.id != self.identity.tenant_id):
            raise YardError("tenant_not_found", tenant=id_or_name or self.identity.tenant_id)
        return found

    def workload(self, action: Action, id_or_name: str, tenant: str | None = None, verb: str | None = None) -> Workload:
        """A workload the caller may act on. One of another tenant is as good as none.

        Raises YardError `workload_not_found` or `forbidden`.
        """
        scope = self.scope(tenant)
        with self.yard.store.read() as c:
            found = workloads.find(c, scope, id_or_name)
        if found is None:
            raise YardError("workload_not_found", workload=id_or_name[:100])
        self.must(action, found.tenant_id, verb=verb, about=found.id, facts=facts_of(found.spec))
        if action is Action.ENTER or verb == START:
            self.must_be_inside(action, found.tenant_id, found.spec, verb or VERBS[action], found.id)
        return found


def identify(connection: HTTPConnection) -> Asking:
    """The caller that the bearer token proves.

    Raises YardError `unauthenticated`, and `too_many_requests` before a further token is looked at where too many from
    the same address were none.
    """
    yard: Yard = connection.app.state.yard
    token = from_header(connection.headers.get("authorization"))
    origin = origin_of(yard, connection)
    strangers: Buckets = connection.app.state.strangers
    if token is None:
        raise YardError("unauthenticated")
    hashed = digest(token)
    identity = yard.identities.get(hashed)
    if identity is None:
        now_us = time.monotonic_ns() // 1000
        if wait_us := strangers.wait_us(str(origin.address), now_us):
            raise too_many("unknown_token", wait_us)
        generation = yard.store.generation
        with yard.store.read() as c:
            identity = tenants.identity(c, hashed)
        if identity is None:
            strangers.take(str(origin.address), now_us)
            raise YardError("unauthenticated")
        if len(yard.identities) >= AT_HAND:
            yard.identities.clear()  # sessions come and go for ever
        if yard.store.generation == generation:  # a revocation meanwhile must not be forgotten
            yard.identities[hashed] = identity  # known tokens only: a guesser cannot fill this
    now_us = yard.clock.now_us()
    if identity.expires_us is not None and now_us >= identity.expires_us:
        yard.identities.pop(hashed, None)
        raise YardError("unauthenticated")
    yard.token_uses.note(identity.token_id, now_us)
    language = language_of_header(connection.headers.get("accept-language"))
    return Asking(yard, identity, language, connection.app.state.answers, origin)


def too_many(of: str, wait_us: int) -> YardError:
    """A refusal that says when to come back, in whole seconds."""
    return YardError("too_many_requests", of=of, seconds=-(-wait_us // 1_000_000))


def origin_of(yard: Yard, connection: HTTPConnection) -> Origin:
    """Where the connection comes from. What a header says of that is believed of trusted proxies alone."""
    client = connection.client
    peer = None if client is None else client.host
    forwarded = connection.headers.getlist("x-forwarded-for")
    proto = connection.headers.get("x-forwarded-proto")
    proxies = yard.authority.atlas().proxies if forwarded or proto else ()
    return Origin(
        address=caller_address(peer, forwarded, proxies),
        user_agent=connection.headers.get("user-agent"),
        secure=connection.scope["scheme"] in ("https", "wss") or told_secure(peer, proto, proxies),
    )


def facts_of(spec: WorkloadSpec) -> dict[str, Values]:
    """What policies may ask about a workload."""
    return {
        "ec2:InstanceType": spec.slices.offer or "custom",
        "ec2:InstanceMarketType": spec.option.value.replace("_", "-"),
        "gpuyard:CardModel": spec.slices.card_model or "any",
        "gpuyard:SliceCount": str(spec.slices.count),
        **{f"aws:ResourceTag/{name}": value for name, value in spec.labels.items()},
    }


async def known(connection: HTTPConnection) -> Asking:
    """`identify`; in a thread only where the store is across a network."""
    yard: Yard = connection.app.state.yard
    if yard.store.dialect == "sqlite":
        return identify(connection)
    return await asyncio.to_thread(identify, connection)


async def asking(connection: HTTPConnection) -> Asking:
    """Who asks, as a dependency, and counted as one request of theirs.

    Raises YardError `unauthenticated`, `too_many_requests`.
    """
    caller = await known(connection)
    of = classify(connection.scope.get("method"), connection.scope["path"])
    if wait_us := caller.yard.rates.admit(caller.identity.token_id, of, time.monotonic_ns() // 1000):
        raise too_many(of, wait_us)
    return caller


Caller = Annotated[Asking, Depends(asking)]


def encode_cursor(of: str, *parts: object) -> str:
    """An opaque cursor of one list."""
    return base64.urlsafe_b64encode("\n".join(map(str, (of, *parts))).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, of: str, parts: int) -> list[str] | None:
    """What `encode_cursor` was given for this list.

    Raises YardError `invalid_cursor`.
    """
    if cursor is None:
        return None
    try:
        found = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode().split("\n")
    except (ValueError, UnicodeDecodeError):
        found = []
    if len(found) != parts + 1 or found[0] != of or not all(part.isprintable() and part for part in found):
        raise YardError("invalid_cursor", value=cursor[:80])
    return found[1:]

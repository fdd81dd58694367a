"""The audit log over HTTP: its checkpoint, its entries, and proofs about both."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from gpuyard.access.audit.tree import consistency, inclusion, leaf_hash
from gpuyard.access.rules import Action
from gpuyard.api import access_schemas as shapes
from gpuyard.api.asking import Asking, Caller
from gpuyard.api.rendering import answer, json_bytes
from gpuyard.model.errors import YardError
from gpuyard.store import audit

router = APIRouter(tags=["audit"])

READ = "gpuyard:ReadAudit"
MAX_SEQUENCE = 10**18
EXPORT = 1  # the version of the file that an export is
_CHUNK = 1000


def _checkpoint(caller: Asking) -> audit.Checkpoint:
    yard = caller.yard
    yard.authority.auditor.settle(yard.clock.now_us())
    signed = yard.authority.auditor.sign_checkpoint(yard.clock.now_us())
    if signed is None:
        raise YardError("not_found", path="/v1/audit")
    return signed


@router.get("/audit/checkpoint")
async def checkpoint(caller: Caller) -> Response:
    """A signed checkpoint over everything that is written, and the key that signs: both may be kept by anyone."""
    caller.must(Action.READ_FLEET, None, verb=READ)

    def work() -> Response:
        signed = _checkpoint(caller)
        return answer({"size": signed.size, "note": signed.note, "key": caller.yard.authority.auditor.verifier_key()})

    return await caller.write(work)


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={200: {"description": "lines of JSON", "content": {"application/x-ndjson": {"schema": {}}}}},
)
async def export(caller: Caller) -> Response:
    """The whole log: a line with the checkpoint, then an entry a line, as it was hashed."""
    caller.must(Action.OPERATE_YARD, None, verb=READ)
    signed = await caller.write(lambda: _checkpoint(caller))
    key = caller.yard.authority.auditor.verifier_key()

    def lines() -> Iterator[bytes]:
        yield json_bytes({"gpuyard_audit": EXPORT, "key": key, "note": signed.note}) + b"\n"
        for first in range(0, signed.size, _CHUNK):
            with caller.yard.store.read() as c:
                found = list(audit.leaves(c, first, min(first + _CHUNK, signed.size)))
            yield "".join(line + "\n" for line in found).encode()

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/audit/entries/{sequence}/proof")
async def entry_proof(caller: Caller, sequence: int) -> Response:
    """One entry and the proof that it is in the log; a tenant's own for whoever may read the tenant."""

    def work() -> Response:
        signed = _checkpoint(caller)
        if not 0 <= sequence < signed.size:
            raise YardError("not_found", path=f"/v1/audit/entries/{sequence}")
        with caller.yard.store.read() as c:
            leaves = list(audit.leaves(c, 0, signed.size))
            owner = audit.tenant_of(c, sequence)
        if caller.scope(None) not in (None, owner):
            raise YardError("not_found", path=f"/v1/audit/entries/{sequence}")
        caller.must(Action.READ, owner, verb=READ)
        path = inclusion([leaf_hash(leaf.encode()) for leaf in leaves], sequence)
        return answer(
            {
                "index": sequence,
                "leaf": leaves[sequence],
                "path": [base64.b64encode(each).decode() for each in path],
                "note": signed.note,
                "key": caller.yard.authority.auditor.verifier_key(),
            }
        )

    return await caller.write(work)


@router.get("/audit/consistency")
async def consistency_proof(caller: Caller, of: Annotated[int, Query(ge=1, le=MAX_SEQUENCE)]) -> Response:
    """The proof that the log goes on from its first `of` entries, for whoever kept that checkpoint."""
    caller.must(Action.READ_FLEET, None, verb=READ)

    def work() -> Response:
        signed = _checkpoint(caller)
        if of > signed.size:
            raise YardError("not_found", path="/v1/audit/consistency")
        with caller.yard.store.read() as c:
            hashes = [leaf_hash(leaf.encode()) for leaf in audit.leaves(c, 0, signed.size)]
        path = consistency(hashes, of)
        shown = [base64.b64encode(each).decode() for each in path]
        return answer({"of": of, "path": shown, "note": signed.note})

    return await caller.write(work)


@router.post("/audit/shred", status_code=200)
async def shred(caller: Caller, body: shapes.ShredRequest) -> Response:
    """Makes unreadable for ever what the log holds of a person. The log and its proofs go on holding."""
    caller.must(Action.OPERATE_YARD, None, verb="gpuyard:ManageAccess")

    def work() -> Response:
        tenant = caller.tenant(body.tenant)
        return answer({"subject": caller.yard.authority.auditor.shred(tenant.id, body.user)})

    return await caller.write(work)

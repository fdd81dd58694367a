"""The authority that signed this server's certificate, for clients to pin."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gpuyard.api.rendering import answer
from gpuyard.model.errors import YardError

router = APIRouter(tags=["yard"])


@router.get("/ca")
async def show_authority(request: Request) -> Response:
    """The certificate of the yard's own authority (PEM), and its SHA-256. Needs no token: it is public. Take it for
    true only where the SHA-256 is the one that the yard's operator told."""
    about = request.app.state.about
    if about.authority is None:
        raise YardError("not_found", path=request.scope["path"])
    from gpuyard.access.certificates import fingerprint

    return answer({"certificate": about.authority, "sha256": fingerprint(about.authority.encode())})

"""Learning which authority a yard's certificates are of, from a fingerprint that came another way."""

from __future__ import annotations

import hashlib
import hmac
import ssl

import httpx

from gpuyard.model.errors import YardError
from gpuyard.sdk.transport import TIMEOUT_SECONDS, Target


def fetch_authority(url: str, sha256: str) -> str:
    """The certificate (PEM) of the yard's own authority, where it is the one with this SHA-256 (hex, colons allowed).

    Asked for over a connection that proves nothing, and so without a token; whoever sits between can only keep it away.
    Raises YardError `yard_not_trusted`, `unreachable`.
    """
    target = Target(url.rstrip("/"))
    unproven = ssl.create_default_context()
    unproven.check_hostname = False
    unproven.verify_mode = ssl.CERT_NONE
    try:
        answer = httpx.get(f"{target.url}/v1/ca", verify=unproven, timeout=TIMEOUT_SECONDS)
        pem = str(answer.raise_for_status().json()["certificate"])
        shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except httpx.HTTPStatusError as error:
        raise YardError("yard_not_trusted", url=target.url, reason="it has no authority of its own") from error
    except httpx.HTTPError as error:
        raise target.unreachable(error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise YardError("unreachable", url=target.url, reason="what answers there is not a yard") from error
    if not hmac.compare_digest(shown, sha256.replace(":", "").strip().lower()):
        raise YardError("yard_not_trusted", url=target.url, reason=f"its authority's SHA-256 is {shown}")
    return pem

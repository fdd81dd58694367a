"""A person's browser signs in at a provider and comes back to this terminal: RFC 8252, with PKCE (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from gpuyard.model.errors import YardError

WAIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Granted:
    """What the yard needs to finish the login."""

    code: str
    code_verifier: str
    redirect_uri: str


def authorize(begun: Mapping[str, str], show: Callable[[str], None], page: str, wait_s: float = WAIT_S) -> Granted:
    """Sends the browser to the provider (`show` is given the URL) and waits for it to come back; `page` is what the
    person reads then. `begun`: the yard's answer.

    Raises YardError `oidc_failed` for what the provider refuses and for an answer that is not to this question, and
    `timed_out`.
    """
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    came: list[dict[str, list[str]]] = []

    class Callback(BaseHTTPRequestHandler):
        timeout = 5  # for one that connects and says nothing

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            if split.path == "/callback":
                came.append(parse_qs(split.query))
            self.send_response(200 if split.path == "/callback" else 404)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Says nothing: the path holds the code."""

    with HTTPServer(("127.0.0.1", 0), Callback) as server:
        server.timeout = 1.0
        redirect = f"http://127.0.0.1:{server.server_port}/callback"
        asked = {
            "response_type": "code",
            "client_id": begun["client_id"],
            "redirect_uri": redirect,
            "scope": begun["scope"],
            "state": state,
            "nonce": begun["nonce"],
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = begun["authorization_endpoint"]
        show(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}")
        deadline = time.monotonic() + wait_s
        while not came:
            if time.monotonic() > deadline:
                raise YardError("timed_out", what="gpuyard login", seconds=f"{wait_s:g}", state="waiting")
            server.handle_request()
    answer = {name: values[0] for name, values in came[0].items()}
    if (
        not hmac.compare_digest(answer.get("state", "").encode(), state.encode())
        or answer.get("iss", begun["issuer"]) != begun["issuer"]
    ):
        raise YardError("oidc_failed", reason="the browser came back from another login")
    if "code" not in answer:
        raise YardError("oidc_failed", reason=answer.get("error", "it gave no code")[:100])
    return Granted(answer["code"], verifier, redirect)

"""A small OpenID provider over TLS: it signs whoever comes in, and lies where a test asks it to.

`python oidc_provider.py FOLDER` runs one as a process of its own: it writes `ca.pem` and `issuer` there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from gpuyard.access import certificates

CLIENT_ID, CLIENT_SECRET = "gpuyard-cli", "client secret"


class OidcProvider:
    """`person` is who signs in next: claims. `lies` change what it says: see `_id_token` and `_reply`."""

    def __init__(self, folder: Path) -> None:
        self.person: dict[str, Any] = {"sub": "u-1", "groups": ["engineers"]}
        self.lies: dict[str, Any] = {}
        self.now = time.time
        self.secret: str | None = None
        self.keys = [RSAKey.generate_key(2048, {"kid": "first"})]
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        now = datetime.now(UTC)
        authority = certificates.new_authority("a provider", now)
        held = certificates.issue(authority, ("127.0.0.1",), now)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(authority.certificate)
        (folder / "held.pem").write_bytes(held.certificate + held.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "held.pem")
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._reply(self, {})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                provider._reply(self, {name: values[0] for name, values in form.items()})

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.issuer = f"https://127.0.0.1:{self.server.server_port}"

    def _reply(self, to: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        split = urlsplit(to.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        self.asked.append(split.path)
        if split.path == "/authorize":
            to.send_response(302)
            to.send_header("Location", self._authorized(query))
            to.end_headers()
            return
        answers = {
            "/.well-known/openid-configuration": self._metadata,
            "/jwks": lambda: KeySet(self.keys).as_dict(private=False),
            "/token": lambda: self._token(form),
        }
        body = answers[split.path]()
        to.send_response(400 if "error" in body else 200)
        to.send_header("Content-Type", "application/json")
        to.end_headers()
        to.wfile.write(json.dumps(body).encode())

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.lies.get("metadata_issuer", self.issuer),
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": self.lies.get("token_endpoint", f"{self.issuer}/token"),
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _authorized(self, query: dict[str, str]) -> str:
        if self.lies.get("refuses"):
            return f"{query['redirect_uri']}?{urlencode({'error': 'access_denied', 'state': query['state']})}"
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        state = self.lies.get("state", query["state"])
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': state, 'iss': self.issuer})}"

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        asked = self._codes.pop(form.get("code", ""), None)  # once
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or form["client_id"] != CLIENT_ID
            or form["redirect_uri"] != asked["redirect_uri"]
            or base64.urlsafe_b64encode(verifier).decode().rstrip("=") != asked["code_challenge"]
        ):
            return {"error": "invalid_grant"}
        if form.get("client_secret") != self.secret:
            return {"error": "invalid_client"}
        return {"access_token": "a", "token_type": "Bearer", "id_token": self._id_token(asked["nonce"])}

    def _id_token(self, nonce: str) -> str:
        now = int(self.now())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            **self.person,
            **self.lies.get("claims", {}),
        }
        if "header" in self.lies:  # an algorithm that needs no key, or the public key as a secret
            head = base64.urlsafe_b64encode(json.dumps(self.lies["header"]).encode()).decode().rstrip("=")
            body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
            if self.lies["header"]["alg"] == "none":
                return f"{head}.{body}."
            seal = hmac.digest(self.keys[0].as_pem(private=False), f"{head}.{body}".encode(), "sha256")
            return f"{head}.{body}.{base64.urlsafe_b64encode(seal).decode().rstrip('=')}"
        key = self.lies.get("key", self.keys[-1])
        alg = "ES256" if isinstance(key, ECKey) else "RS256"
        return jwt.encode({"alg": alg, "kid": key.kid}, claims, key)


@contextmanager
def serving(folder: Path) -> Iterator[OidcProvider]:
    """A provider in a thread of this process."""
    provider = OidcProvider(folder)
    threading.Thread(target=provider.server.serve_forever, daemon=True).start()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


if __name__ == "__main__":
    running = OidcProvider(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "issuer").write_text(running.issuer)
    running.server.serve_forever()

"""Login by an OpenID provider: the authorization code flow with PKCE. The terminal carries the code; the yard asks the
provider itself for the ID token: it believes only what it fetched over TLS and what the provider's keys signed."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuyard.access.group_roles import choose
from gpuyard.control import oidc_settings, signing_in
from gpuyard.control.oidc_settings import OidcSettings
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.tenants import Identity, Role
from gpuyard.store import events, users

if TYPE_CHECKING:
    from joserfc.jwk import KeySet
    from joserfc.jwt import Token

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
NONCE_US = 600_000_000  # for which a login may take
KEPT_S = 600.0  # for which what a provider says of itself is believed without asking again
ANEW_S = 30.0  # its keys are asked for again at most so often, however many tokens name unknown ones
LEEWAY_S = 60
PREFIX = "oidc:"  # of users' names: a provider cannot vouch for a user of the yard's own


@dataclass(slots=True)
class Provider:
    """What the provider says of itself, kept for a while."""

    yard: Yard
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _of: str = ""
    _read_s: float = 0.0
    _metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    _keys: KeySet | None = None
    _used: dict[str, int] = field(default_factory=dict[str, int])

    def settings(self) -> OidcSettings:
        """Raises YardError `oidc_off`."""
        with self.yard.store.read() as c:
            found = oidc_settings.read(c)
        if found is None:
            raise YardError("oidc_off")
        return found

    def begin(self) -> dict[str, str]:
        """What a terminal needs to send a person to the provider.

        Raises YardError `oidc_off`, `oidc_failed`, `fetch_refused`, `fetch_failed`, `extra_missing`.
        """
        settings = self.settings()
        told = self._told(settings)
        return {
            "issuer": settings.issuer,
            "authorization_endpoint": str(told["authorization_endpoint"]),
            "client_id": settings.client_id,
            "scope": settings.scopes,
            "nonce": self._new_nonce(),
        }

    def finish(
        self, code: str, verifier: str, redirect_uri: str, nonce: str, tenant: str | None, address: str | None
    ) -> tuple[Identity, str]:
        """A session of whom the provider vouches for: who, and the token. `tenant`: an id.

        Raises YardError as `begin` does, `no_role_for_groups`, `tenant_to_choose`, `login_refused`.
        """
        settings = self.settings()
        try:
            self._use_nonce(nonce)
            claims = self._claims(settings, self._exchange(settings, code, verifier, redirect_uri), nonce)
            name = PREFIX + _user(claims, settings.user_claim)
        except YardError:
            signing_in.note_login(self.yard, None, None, address, "oidc_failed")
            raise
        with self.yard.store.read() as c:
            table = oidc_settings.groups(c)
        try:
            row = choose(_groups(claims, settings.groups_claim), table, tenant)
        except YardError:
            signing_in.note_login(self.yard, None, None, address, "no_role_for_groups")
            raise
        user = self._known(row.tenant_id, name, row.role)
        return signing_in.open_session(self.yard, user, address, "oidc")

    def _known(self, tenant_id: str, name: str, role: Role) -> users.User:
        """The user of that name, made where this is the first time, and in the role that the groups give now."""
        now_us = self.yard.clock.now_us()
        with self.yard.store.write() as c:
            user = users.find(c, tenant_id, name)
            if user is None:
                user = users.User(tenant_id, name, role, "oidc", now_us)
                try:
                    users.insert(c, user)
                except YardError as error:  # disabled
                    raise YardError("login_refused") from error
                data = {"role": role.value, "kind": "oidc"}
                events.append(c, [Event("user.added", name, now_us, tenant_id, name, data)])
            elif user.kind != "oidc":
                raise YardError("login_refused")
            elif user.role is not role:
                users.set_role(c, tenant_id, name, role)
                users.end_sessions(c, tenant_id, name, now_us)
                data = {"role": role.value}
                events.append(c, [Event("user.role_changed", name, now_us, tenant_id, name, data)])
                self.yard.identities.clear()
        return users.User(tenant_id, name, role, "oidc", user.created_us)

    def _told(self, settings: OidcSettings) -> Mapping[str, Any]:
        """The provider's metadata, at most ten minutes old."""
        with self._lock:
            if self._of == settings.issuer and time.monotonic() - self._read_s < KEPT_S:
                return self._metadata
            try:
                from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
            except ImportError:
                raise YardError("extra_missing", extra="oidc", command='pip install "gpuyard[oidc]"') from None

            told = self._json(get_well_known_url(settings.issuer, external=True))
            metadata = OpenIDProviderMetadata(told)
            try:
                metadata.validate()
            except ValueError as error:
                raise YardError("oidc_failed", reason=str(error)) from error
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not str(told.get(name)).startswith("https://"):
                    raise YardError("oidc_failed", reason=f"its {name} is not an https URL")
            if told["issuer"] != settings.issuer:
                raise YardError("oidc_failed", reason=f"it calls itself {str(told['issuer'])[:200]}")
            self._of, self._read_s, self._metadata, self._keys = settings.issuer, time.monotonic(), told, None
            return told

    def _exchange(self, settings: OidcSettings, code: str, verifier: str, redirect_uri: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
            "client_id": settings.client_id,
        }
        secret = settings.secret(self.yard.sealer)
        if secret is not None:
            form["client_secret"] = secret
        answer = self._json(str(self._told(settings)["token_endpoint"]), form)
        if not isinstance(answer.get("id_token"), str):
            raise YardError("oidc_failed", reason="it gave no ID token")
        return answer["id_token"]

    def _claims(self, settings: OidcSettings, id_token: str, nonce: str) -> Mapping[str, Any]:
        """What the provider signed, for this client and this login."""
        from authlib.oidc.core import CodeIDToken
        from joserfc.errors import JoseError

        token = self._verified(settings, id_token)
        checks: dict[str, Any] = {
            "iss": {"essential": True, "value": settings.issuer},
            "aud": {"essential": True, "value": settings.client_id},
        }
        claims = CodeIDToken(token.claims, token.header, checks, {"nonce": nonce, "client_id": settings.client_id})
        try:
            claims.validate(now=self.yard.clock.now_us() // 1_000_000, leeway=LEEWAY_S)
        except (JoseError, ValueError) as error:
            raise YardError("oidc_failed", reason=f"its ID token is not for this login: {error}") from error
        return claims

    def _verified(self, settings: OidcSettings, id_token: str) -> Token:
        """What one of the provider's keys signed; it may be a key that is newer than what is kept here."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            return jwt.decode(id_token, self._key_set(settings, anew=False), algorithms=list(ALGORITHMS))
        except (JoseError, ValueError):
            keys = self._key_set(settings, anew=True)
        try:
            return jwt.decode(id_token, keys, algorithms=list(ALGORITHMS))
        except (JoseError, ValueError) as error:
            raise YardError("oidc_failed", reason=f"its ID token is not signed by its keys: {error}") from error

    def _key_set(self, settings: OidcSettings, *, anew: bool) -> KeySet:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        told = self._told(settings)
        with self._lock:
            if self._keys is None or (anew and time.monotonic() - self._read_s >= ANEW_S):
                try:
                    self._keys = KeySet.import_key_set(self._json(str(told["jwks_uri"])))  # pyright: ignore[reportArgumentType]
                except (JoseError, ValueError, KeyError, TypeError) as error:
                    raise YardError("oidc_failed", reason=f"its keys cannot be read: {error}") from error
                self._read_s = time.monotonic()
            return self._keys

    def _json(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = self.yard.outgoing.fetch(url, form=form, headers={"Accept": "application/json"})
        try:
            told = json.loads(answer.body)
        except ValueError:
            told = None
        if answer.status != 200 or not isinstance(told, dict):
            said = f": {str(told.get('error'))[:100]}" if isinstance(told, dict) else ""
            raise YardError("oidc_failed", reason=f"it answers {answer.status}{said}")
        return told

    def _new_nonce(self) -> str:
        made = f"{self.yard.clock.now_us()}.{secrets.token_urlsafe(16)}"
        return f"{made}.{self._seal(made)}"

    def _use_nonce(self, nonce: str) -> None:
        """Takes a nonce that this yard made lately, once: a code or token of another login is worth nothing here."""
        made, _, seal = nonce.rpartition(".")
        now_us = self.yard.clock.now_us()
        begun = made.partition(".")[0]
        if not hmac.compare_digest(seal.encode(), self._seal(made).encode()) or now_us - int(begun) > NONCE_US:
            raise YardError("oidc_failed", reason="the login was not begun here, or it took too long")
        with self._lock:
            self._used = {known: at for known, at in self._used.items() if now_us - at <= NONCE_US}
            if nonce in self._used:
                raise YardError("oidc_failed", reason="this login has been finished already")
            self._used[nonce] = now_us

    def _seal(self, text: str) -> str:
        key = self.yard.sealer.file_of("login.key", lambda: secrets.token_bytes(32))
        return base64.urlsafe_b64encode(hmac.digest(key, text.encode(), "sha256")).decode().rstrip("=")


def _user(claims: Mapping[str, Any], claim: str) -> str:
    """What names the user.

    Raises YardError `oidc_failed`; an e-mail address that the provider has not verified anybody may have typed in.
    """
    name = claims.get(claim)
    if not isinstance(name, str) or not 0 < len(name) <= 190 or not name.isprintable():
        raise YardError("oidc_failed", reason=f"its ID token has no usable {claim}")
    if claim == "email" and claims.get("email_verified") is not True:
        raise YardError("oidc_failed", reason="the e-mail address is not verified")
    return name


def _groups(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    found = claims.get(claim)
    if isinstance(found, str):
        return frozenset({found})
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()

"""Login by an OpenID provider: a real one over TLS, and every lie that it may tell."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey

import gpuyard.control.oidc as under_test
from api_in_hand import ApiInHand
from gpuyard.cli.loopback import Granted, authorize
from gpuyard.control.outgoing import Outgoing
from gpuyard.model.errors import YardError
from gpuyard.store import audit
from oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, serving


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OidcProvider]:
    folder = tmp_path / "provider"
    folder.mkdir()
    with serving(folder) as provider:
        monkeypatch.setenv("SSL_CERT_FILE", str(provider.ca))
        yield provider


@pytest.fixture
def api(tmp_path: Path, provider: OidcProvider) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    api.hand.yard.outgoing = Outgoing.allowing(["127.0.0.0/8"])
    provider.now = lambda: api.hand.clock.now_us() / 1e6
    configure(api, provider)
    for group, tenant, role in (("engineers", "alice", "member"), ("admins", "operators", "operator")):
        done = api.operator.put("/v1/oidc/groups", json={"group": group, "tenant": tenant, "role": role})
        assert done.status_code == 200, done.text
    yield api
    api.close()


def configure(api: ApiInHand, provider: OidcProvider, **more: Any) -> None:
    done = api.operator.put("/v1/oidc", json={"issuer": provider.issuer, "client_id": CLIENT_ID, **more})
    assert done.status_code == 200, done.text
    assert CLIENT_SECRET not in done.text


def browse(provider: OidcProvider, page: str) -> None:
    """A browser that goes where it is sent."""
    with httpx.Client(verify=ssl.create_default_context(cafile=provider.ca), follow_redirects=True) as browser:
        browser.get(page)


def go(provider: OidcProvider, begun: dict[str, str]) -> Granted:
    """The terminal's part, with a browser beside it."""
    browsers: list[threading.Thread] = []

    def show(page: str) -> None:
        browsers.append(threading.Thread(target=browse, args=(provider, page)))
        browsers[0].start()

    try:
        return authorize(begun, show, "done", wait_s=20)
    finally:
        browsers[0].join(20)


def sign_in(api: ApiInHand, provider: OidcProvider, tenant: str | None = None, **changes: str) -> httpx.Response:
    begun = api.with_token(None).get("/v1/login/oidc")
    if begun.status_code != 200:
        return begun  # type: ignore[return-value]
    granted = go(provider, begun.json())
    told = {
        "code": granted.code,
        "code_verifier": granted.code_verifier,
        "redirect_uri": granted.redirect_uri,
        "nonce": begun.json()["nonce"],
        "tenant": tenant,
        **changes,
    }
    return api.with_token(None).post("/v1/login/oidc", json=told)  # type: ignore[return-value]


def test_a_person_signs_in_with_the_role_of_their_group(api: ApiInHand, provider: OidcProvider) -> None:
    session = sign_in(api, provider)
    assert session.status_code == 200, session.text
    assert (session.json()["user"], session.json()["role"]) == ("oidc:u-1", "member")
    someone = api.with_token(session.json()["token"])
    assert someone.get("/v1/whoami").json()["tenant_name"] == "alice"
    assert someone.get("/v1/users").status_code == 403
    found = [one for one in api.operator.get("/v1/users").json()["items"] if one["kind"] == "oidc"]
    assert [(one["user"], one["has_password"]) for one in found] == [("oidc:u-1", False)]
    told = {"tenant": "alice", "user": "oidc:u-1", "password": "correct horse battery"}
    assert api.with_token(None).post("/v1/login", json=told).json()["code"] == "login_refused"


def test_a_confidential_client_shows_its_secret_to_the_provider_and_to_nobody_else(
    api: ApiInHand, provider: OidcProvider
) -> None:
    provider.secret = CLIENT_SECRET
    assert "invalid_client" in sign_in(api, provider).json()["detail"]
    configure(api, provider, client_secret=CLIENT_SECRET)
    assert sign_in(api, provider).status_code == 200
    assert api.operator.get("/v1/oidc").json()["has_secret"] is True
    assert CLIENT_SECRET not in repr(api.everything())


def _shown(lies: dict[str, Any]) -> str:
    """The same in every process: a key is another one in each."""
    return str({name: value.kid if isinstance(value, RSAKey) else value for name, value in lies.items()})


@pytest.mark.parametrize(
    "lies",
    [
        {"claims": {"aud": "another-client"}},
        {"claims": {"aud": [CLIENT_ID, "another-client"]}},  # without saying for whom of them
        {"claims": {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"}},
        {"claims": {"iss": "https://elsewhere.example"}},
        {"claims": {"nonce": "another"}},
        {"claims": {"nonce": None}},
        {"claims": {"exp": 1}},
        {"claims": {"exp": None}},
        {"claims": {"iat": 9_999_999_999}},
        {"claims": {"sub": None}},
        {"claims": {"sub": ""}},
        {"claims": {"sub": ["u-1"]}},
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS256", "kid": "first"}},
        {"key": RSAKey.generate_key(2048, {"kid": "first"})},
        {"key": RSAKey.generate_key(2048, {"kid": "unknown"})},
        {"metadata_issuer": "https://elsewhere.example"},
        {"token_endpoint": "http://127.0.0.1:1/token"},
    ],
    ids=_shown,
)
def test_a_lie_of_the_provider_is_refused_and_nobody_is_made(
    api: ApiInHand, provider: OidcProvider, lies: dict[str, Any]
) -> None:
    provider.lies = lies
    refused = sign_in(api, provider)
    assert (refused.status_code, refused.json()["code"]) == (401, "oidc_failed")
    assert [one for one in api.operator.get("/v1/users").json()["items"] if one["kind"] == "oidc"] == []


def test_a_code_is_worth_nothing_without_its_verifier_its_nonce_and_its_address(
    api: ApiInHand, provider: OidcProvider
) -> None:
    other = api.with_token(None).get("/v1/login/oidc").json()["nonce"]
    forged = other[:-4] + "AAAA"
    for change in (
        {"code_verifier": "x" * 43},
        {"nonce": other},
        {"nonce": forged},
        {"redirect_uri": "http://127.0.0.1:1/callback"},
        {"redirect_uri": "https://evil.example/callback"},
        {"code": "guess"},
    ):
        refused = sign_in(api, provider, **change)
        assert (refused.status_code, refused.json()["code"]) == (401, "oidc_failed"), change


def test_a_login_is_finished_once_and_within_ten_minutes(api: ApiInHand, provider: OidcProvider) -> None:
    begun = api.with_token(None).get("/v1/login/oidc").json()
    for after_us, status in ((0, 200), (0, 401)):
        api.hand.clock.advance(after_us)
        granted = go(provider, begun)
        told = {"code": granted.code, "code_verifier": granted.code_verifier, "redirect_uri": granted.redirect_uri}
        answer = api.with_token(None).post("/v1/login/oidc", json={**told, "nonce": begun["nonce"]})
        assert answer.status_code == status, answer.text
    begun = api.with_token(None).get("/v1/login/oidc").json()
    granted = go(provider, begun)
    api.hand.clock.advance(601_000_000)
    told = {"code": granted.code, "code_verifier": granted.code_verifier, "redirect_uri": granted.redirect_uri}
    late = api.with_token(None).post("/v1/login/oidc", json={**told, "nonce": begun["nonce"]})
    assert late.json()["code"] == "oidc_failed"


def test_groups_decide_and_a_changed_group_changes_the_role_and_ends_sessions(
    api: ApiInHand, provider: OidcProvider
) -> None:
    provider.person = {"sub": "u-2", "groups": ["strangers"]}
    assert sign_in(api, provider).json()["code"] == "no_role_for_groups"
    provider.person = {"sub": "u-2"}
    assert sign_in(api, provider).json()["code"] == "no_role_for_groups"
    provider.person = {"sub": "u-2", "groups": ["engineers", "admins"]}
    assert sign_in(api, provider).json()["code"] == "tenant_to_choose"
    assert sign_in(api, provider, "operators").json()["role"] == "operator"
    assert sign_in(api, provider, "nowhere").json()["code"] == "no_role_for_groups"
    member = api.with_token(sign_in(api, provider, "alice").json()["token"])
    api.operator.put("/v1/oidc/groups", json={"group": "engineers", "tenant": "alice", "role": "viewer"})
    assert member.get("/v1/whoami").json()["role"] == "member"
    assert sign_in(api, provider, "alice").json()["role"] == "viewer"
    assert member.get("/v1/whoami").status_code == 401
    api.operator.put("/v1/oidc/groups", json={"group": "engineers", "tenant": "alice", "role": None})
    assert sign_in(api, provider, "alice").json()["code"] == "no_role_for_groups"


def test_an_address_counts_only_where_it_is_verified(api: ApiInHand, provider: OidcProvider) -> None:
    configure(api, provider, user_claim="email")
    provider.person = {"sub": "u-3", "groups": ["engineers"], "email": "boss@example.com"}
    assert sign_in(api, provider).json()["code"] == "oidc_failed"
    provider.person["email_verified"] = True
    assert sign_in(api, provider).json()["user"] == "oidc:boss@example.com"


def test_a_disabled_person_stays_out_and_a_user_of_the_yard_is_not_taken_over(
    api: ApiInHand, provider: OidcProvider
) -> None:
    assert sign_in(api, provider).status_code == 200
    api.operator.delete("/v1/users/oidc:u-1?tenant=alice")
    assert sign_in(api, provider).json()["code"] == "login_refused"
    provider.person = {"sub": "taken", "groups": ["engineers"]}
    api.operator.post("/v1/users", json={"user": "oidc:taken", "tenant": "alice", "role": "operator"})
    assert sign_in(api, provider).json()["code"] == "login_refused"


def test_new_keys_of_the_provider_are_found(
    api: ApiInHand, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sign_in(api, provider).status_code == 200
    provider.keys.append(ECKey.generate_key("P-256", {"kid": "second"}))  # type: ignore[arg-type]
    assert sign_in(api, provider).status_code == 401  # its keys were read a moment ago
    monkeypatch.setattr(under_test, "ANEW_S", 0.0)
    assert sign_in(api, provider).status_code == 200
    before = provider.asked.count("/jwks")
    assert sign_in(api, provider).status_code == 200
    assert provider.asked.count("/jwks") == before


def test_a_provider_inside_is_not_asked_unless_the_operator_allowed_it(api: ApiInHand, provider: OidcProvider) -> None:
    api.hand.yard.outgoing = Outgoing()
    provider.asked.clear()
    refused = sign_in(api, provider)
    assert refused.json()["code"] == "fetch_refused"
    assert provider.asked == []


def test_without_a_provider_nobody_signs_in_by_one(api: ApiInHand, provider: OidcProvider) -> None:
    assert api.alice.put("/v1/oidc", json={"issuer": provider.issuer, "client_id": "x"}).status_code == 403
    assert api.operator.put("/v1/oidc", json={"issuer": "http://plain.example", "client_id": "x"}).status_code == 400
    assert api.operator.delete("/v1/oidc").status_code == 204
    assert sign_in(api, provider).json()["code"] == "oidc_off"


def test_the_terminal_takes_only_the_answer_to_its_own_question(api: ApiInHand, provider: OidcProvider) -> None:
    begun = api.with_token(None).get("/v1/login/oidc").json()
    provider.lies = {"state": "of another"}
    with pytest.raises(YardError, match="another login"):
        go(provider, begun)
    provider.lies = {"refuses": True}
    with pytest.raises(YardError, match="access_denied"):
        go(provider, begun)
    with pytest.raises(YardError, match="timed_out"):
        authorize(begun, lambda page: None, "done", wait_s=0.1)


def test_every_login_is_in_the_audit_log(api: ApiInHand, provider: OidcProvider) -> None:
    sign_in(api, provider)
    provider.lies = {"claims": {"aud": "another-client"}}
    sign_in(api, provider)
    yard = api.hand.yard
    yard.authority.auditor.settle(yard.clock.now_us())
    with yard.store.read() as c:
        entries = [json.loads(line) for line in audit.leaves(c, 0, audit.size(c))]
    told = [(one["allowed"], one["because"]) for one in entries if one["action"] == "gpuyard:Login"]
    assert sorted(told) == [(False, "oidc_failed"), (True, "oidc")]

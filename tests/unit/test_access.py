"""Who may do what: the whole table, and what is not in it."""

from __future__ import annotations

import pytest

from gpuyard.access.geography import told_secure
from gpuyard.access.rules import Action, decide
from gpuyard.access.tokens import digest, from_header, new_token
from gpuyard.model.tenants import Identity, Role

MEMBERS = {Action.READ, Action.LAUNCH, Action.CONTROL, Action.ENTER}


def identity(role: Role) -> Identity:
    return Identity("tk-1", "user", role, "tn-mine")


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("tenant", [None, "tn-mine", "tn-other"])
def test_an_operator_may_do_everything_everywhere(action: Action, tenant: str | None) -> None:
    assert decide(identity(Role.OPERATOR), action, tenant).allowed


@pytest.mark.parametrize("action", Action)
def test_a_member_works_in_its_own_tenant_alone(action: Action) -> None:
    member = identity(Role.MEMBER)
    assert decide(member, action, "tn-mine").allowed == (action in MEMBERS | {Action.READ_FLEET})
    assert not decide(member, action, "tn-other").allowed


@pytest.mark.parametrize("action", Action)
def test_a_viewer_looks_and_touches_nothing(action: Action) -> None:
    viewer = identity(Role.VIEWER)
    assert decide(viewer, action, "tn-mine").allowed == (action in {Action.READ, Action.READ_FLEET})
    assert not decide(viewer, action, "tn-other").allowed


@pytest.mark.parametrize("role", [Role.MEMBER, Role.VIEWER])
@pytest.mark.parametrize("action", [action for action in Action if action is not Action.READ_FLEET])
def test_only_operators_touch_the_yard_itself(role: Role, action: Action) -> None:
    decision = decide(identity(role), action, None)
    assert not decision.allowed
    assert decision.rule in {"role", "operators_only"}


def test_a_role_that_nobody_knows_may_do_nothing() -> None:
    unknown = Identity("tk-1", "user", "root", "tn-mine")  # type: ignore[arg-type]
    assert not any(decide(unknown, action, "tn-mine").allowed for action in Action)


def test_every_decision_names_its_rule() -> None:
    rules = {
        decide(identity(role), action, tenant).rule
        for role in Role
        for action in Action
        for tenant in (None, "tn-mine", "tn-x")
    }
    assert rules == {"operator", "own_tenant", "other_tenant", "operators_only", "role"}


def test_tokens_are_long_random_and_never_stored_as_they_are() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert len(token) >= 43
        assert token not in digest(token)
        assert digest(token) == digest(token)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic gy_abc",
        "gy_abc",
        "Bearer\tgy_abc",
        "Bearer sk_abc",
        "Bearer  ",
    ],
)
def test_a_header_without_a_token_of_ours_is_nobody(header: str | None) -> None:
    assert from_header(header) is None


def test_the_scheme_may_be_written_as_http_allows() -> None:
    token = new_token()
    assert from_header(f"bearer {token}") == from_header(f"BEARER {token}") == token


@pytest.mark.parametrize(
    ("peer", "proto", "secure"),
    [
        ("10.0.0.2", "https", True),
        ("10.0.0.2", "http, https", True),
        ("10.0.0.2", "https, http", False),  # the nearest proxy has the last word
        ("10.0.0.2", None, False),
        ("192.0.2.1", "https", False),  # a stranger says so
        ("not an address", "https", False),
        (None, "https", False),
    ],
)
def test_only_a_trusted_proxy_says_that_a_caller_came_over_tls(
    peer: str | None, proto: str | None, secure: bool
) -> None:
    assert told_secure(peer, proto, ("10.0.0.0/8",)) is secure

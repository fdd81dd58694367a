"""People who sign in, service accounts, and keys that are rotated."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from api_in_hand import ApiInHand
from gpuyard.access import passwords
from gpuyard.access.rates import Buckets
from gpuyard.control.access_keys import StoredKeys
from gpuyard.model.errors import YardError
from gpuyard.store import audit

RIGHT = "correct horse battery staple"
OTHER = "another horse entirely, please"
HOUR_US = 3_600_000_000


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    for name, kind in (("carol", "person"), ("ci", "service")):
        made = api.operator.post("/v1/users", json={"user": name, "tenant": "alice", "kind": kind})
        assert made.status_code == 201, made.text
    set_to(api, RIGHT)
    yield api
    api.close()


def set_to(api: ApiInHand, password: str) -> None:
    done = api.operator.put("/v1/users/carol/password?tenant=alice", json={"password": password})
    assert done.status_code == 204, done.text


def sign_in(api: ApiInHand, password: str = RIGHT, user: str = "carol", tenant: str = "alice") -> Any:
    return api.with_token(None).post("/v1/login", json={"tenant": tenant, "user": user, "password": password})


def test_a_person_signs_in_and_the_token_ends_by_itself(api: ApiInHand) -> None:
    session = sign_in(api).json()
    assert (session["user"], session["role"]) == ("carol", "member")
    carol = api.with_token(session["token"])
    assert carol.get("/v1/whoami").json()["tenant_name"] == "alice"
    api.hand.clock.advance(11 * HOUR_US)
    assert carol.get("/v1/whoami").status_code == 200
    api.hand.clock.advance(HOUR_US)
    assert carol.get("/v1/whoami").status_code == 401
    assert api.with_token(session["token"]).get("/v1/whoami").status_code == 401
    assert sign_in(api).status_code == 200


def test_whatever_is_wrong_is_refused_in_the_same_words(api: ApiInHand) -> None:
    api.operator.post("/v1/users", json={"user": "dora", "tenant": "alice"})
    answers = [
        sign_in(api, "wrong horse battery staple"),
        sign_in(api, user="nobody"),
        sign_in(api, tenant="nowhere"),
        sign_in(api, tenant="bob"),
        sign_in(api, user="ci"),  # a service account
        sign_in(api, user="dora"),  # a person without a password
        sign_in(api, RIGHT + "\u0000"),
    ]
    assert {one.status_code for one in answers} == {401}
    assert len({one.text for one in answers}) == 1
    assert answers[0].json()["code"] == "login_refused"
    assert sign_in(api, "").status_code == sign_in(api, "x" * 2000).status_code == 400


def test_an_unknown_user_costs_the_same_work_as_a_wrong_password(api: ApiInHand) -> None:
    api.app.state.logins.addresses = api.app.state.logins.names = Buckets(1000, 1000)

    def seconds(user: str) -> float:
        begun = time.process_time()
        sign_in(api, "wrong horse battery staple", user)
        return time.process_time() - begun

    for user in ("carol", "nobody"):
        seconds(user)
    known, unknown = (median(seconds(user) for _ in range(7)) for user in ("carol", "nobody"))
    assert 0.5 < known / unknown < 2


def test_whoever_guesses_has_to_wait_and_a_name_that_is_none_waits_as_well(api: ApiInHand) -> None:
    for user in ("carol", "nobody"):
        api.app.state.logins.addresses = Buckets(1000, 1000)
        api.app.state.logins.names = Buckets(per_second=0.1, burst=3)
        answers = [sign_in(api, "wrong horse battery staple", user) for _ in range(4)]
        assert [one.status_code for one in answers] == [401, 401, 401, 429]
        assert answers[-1].json()["params"]["of"] == "login"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    api.app.state.logins.addresses = Buckets(per_second=0.1, burst=2)
    answers = [sign_in(api, user=f"user-{n}") for n in range(3)]
    assert [one.status_code for one in answers] == [401, 401, 429]


def test_more_attempts_at_once_than_there_is_room_for_are_sent_away(api: ApiInHand) -> None:
    logins = api.app.state.logins
    logins.addresses = logins.names = Buckets(1000, 1000)
    logins._inside = 16
    assert sign_in(api).status_code == 429
    logins._inside = 0
    with ThreadPoolExecutor(4) as several:
        assert {one.status_code for one in several.map(lambda _: sign_in(api), range(4))} == {200}


def test_a_new_password_ends_every_session(api: ApiInHand) -> None:
    one, two = (api.with_token(sign_in(api).json()["token"]) for _ in range(2))
    assert one.put("/v1/password", json={"old": OTHER, "new": OTHER}).status_code == 401
    assert two.get("/v1/whoami").status_code == 200
    assert one.put("/v1/password", json={"old": RIGHT, "new": OTHER}).status_code == 204
    assert one.get("/v1/whoami").status_code == two.get("/v1/whoami").status_code == 401
    assert sign_in(api).status_code == 401
    three = api.with_token(sign_in(api, OTHER).json()["token"])
    set_to(api, RIGHT)
    assert three.get("/v1/whoami").status_code == 401
    assert api.operator.put("/v1/password", json={"old": RIGHT, "new": OTHER}).status_code == 401


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaaa", "carol carol carol 1", "x" * 300, "ababababababab"])
def test_a_password_that_is_easily_guessed_is_refused(api: ApiInHand, password: str) -> None:
    done = api.operator.put("/v1/users/carol/password?tenant=alice", json={"password": password})
    assert (done.status_code, done.json()["code"]) == (422, "password_refused")
    assert password not in done.text
    assert sign_in(api).status_code == 200


def test_a_disabled_user_is_out_at_once_with_every_key(api: ApiInHand) -> None:
    carol = api.with_token(sign_in(api).json()["token"])
    key = api.operator.post("/v1/access-keys", json={"user": "carol", "tenant": "alice"}).json()["id"]
    assert StoredKeys(api.hand.yard).find(key) is not None
    assert carol.get("/v1/whoami").status_code == 200
    assert api.operator.delete("/v1/users/carol?tenant=alice").status_code == 204
    assert carol.get("/v1/whoami").status_code == 401
    assert StoredKeys(api.hand.yard).find(key) is None
    assert sign_in(api).status_code == 401
    assert api.operator.delete("/v1/users/carol?tenant=alice").json()["code"] == "user_not_found"
    again = api.operator.post("/v1/users", json={"user": "carol", "tenant": "alice"})
    assert again.json()["code"] == "name_taken"


def test_a_service_accounts_token_is_rotated_and_the_old_one_goes_on_for_a_while(api: ApiInHand) -> None:
    def rotate(keep_s: int) -> Any:
        return api.operator.post("/v1/users/ci/token?tenant=alice", json={"keep_s": keep_s})

    first = api.with_token(rotate(0).json()["token"])
    assert first.get("/v1/whoami").json()["user"] == "ci"
    second = api.with_token(rotate(60).json()["token"])
    assert first.get("/v1/whoami").status_code == second.get("/v1/whoami").status_code == 200
    api.hand.clock.advance(60_000_000)
    assert first.get("/v1/whoami").status_code == 401
    assert second.get("/v1/whoami").status_code == 200
    assert api.operator.post("/v1/users/carol/token?tenant=alice", json={}).json()["code"] == "user_not_found"
    assert api.operator.put("/v1/users/ci/password?tenant=alice", json={"password": RIGHT}).status_code == 404


def test_an_access_key_is_rotated_and_the_old_one_goes_on_for_a_while(api: ApiInHand) -> None:
    keys = StoredKeys(api.hand.yard)
    old = api.operator.post("/v1/access-keys", json={"user": "carol", "tenant": "alice"}).json()["id"]
    assert keys.find(old) is not None
    made = api.operator.post(f"/v1/access-keys/{old}/rotate", json={"keep_s": 3600}).json()
    found = keys.find(made["id"])
    assert found is not None
    assert found.secret == made["secret"]
    assert keys.find(old) is not None
    api.hand.clock.advance(HOUR_US)
    assert keys.find(old) is None  # from memory, and from the store
    api.hand.yard.access_keys.clear()
    assert keys.find(old) is None
    told = api.operator.post(f"/v1/access-keys/{old}/rotate", json={})
    assert told.json()["code"] == "access_key_not_found"


def test_when_a_token_was_last_used_is_known_to_the_hour(api: ApiInHand) -> None:
    def last() -> str | None:
        found = api.operator.get("/v1/tokens").json()["items"]
        return next(one["last_used_at"] for one in found if one["user"] == "alice-member")

    assert last() is None
    api.alice.get("/v1/whoami")
    api.hand.loops.pass_once()
    first = last()
    assert first is not None
    api.hand.clock.advance(HOUR_US // 2)
    api.alice.get("/v1/whoami")
    api.hand.loops.pass_once()
    assert last() == first
    api.hand.clock.advance(HOUR_US)
    api.alice.get("/v1/whoami")
    api.hand.loops.pass_once()
    assert last() != first


def test_every_attempt_is_in_the_audit_log_and_no_password_and_no_unknown_name(api: ApiInHand) -> None:
    sign_in(api)
    sign_in(api, "wrong horse battery staple")
    sign_in(api, user="wrong horse battery")
    yard = api.hand.yard
    yard.authority.auditor.settle(yard.clock.now_us())
    with yard.store.read() as c:
        entries = [json.loads(line) for line in audit.leaves(c, 0, audit.size(c))]
        keys = yard.authority.auditor.subject_keys(c)
        opened = [yard.authority.auditor.opened(json.dumps(one), keys) for one in entries]
    told = [(one["allowed"], one["because"]) for one in entries if one["action"] == "gpuyard:Login"]
    assert sorted(told) == [(False, "unknown_user"), (False, "wrong_password"), (True, "password")]
    assert "horse" not in repr(opened) + repr(entries) + repr(api.everything()["events"])


def test_only_whoever_runs_the_yard_manages_users(api: ApiInHand) -> None:
    carol = api.with_token(sign_in(api).json()["token"])
    for answer in (
        carol.get("/v1/users"),
        carol.post("/v1/users", json={"user": "eve", "role": "operator"}),
        carol.put("/v1/users/carol/password", json={"password": OTHER}),
        carol.post("/v1/users/ci/token", json={}),
        carol.delete("/v1/users/ci"),
        carol.post("/v1/access-keys/GYAK/rotate", json={}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_one_password_that_keyboards_enter_in_two_ways_is_one() -> None:
    encoded = passwords.encode("caf\u00e9 au lait, grand")
    assert encoded.startswith("$argon2id$")
    assert passwords.matches(encoded, "cafe\u0301 au lait, grand")
    assert not passwords.matches("not an encoding", "x")
    assert not passwords.matches(None, "x")
    with pytest.raises(YardError, match="password_name"):
        passwords.check_new("my name is CAROL!", "carol")


def test_a_listed_user_is_told_with_the_name_of_its_tenant(api: ApiInHand) -> None:
    shown = {x["user"]: (x["tenant"], x["tenant_id"]) for x in api.operator.get("/v1/users").json()["items"]}
    assert shown["carol"] == ("alice", "tn-alice")

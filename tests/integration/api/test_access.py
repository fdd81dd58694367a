"""Policies, quotas and geography over HTTP, and the audit log of it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import QUARTER, ApiInHand
from gpuyard.sdk.audit_check import check_consistency, check_inclusion, check_log, read_note

ONLY_READS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
NO_QUARTERS = {
    "Version": "2012-10-17",
    "Statement": {
        "Sid": "NoQuarters",
        "Effect": "Deny",
        "Action": "ec2:RunInstances",
        "Resource": "*",
        "Condition": {"StringLike": {"ec2:InstanceType": "*-quarter"}},
    },
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    yield api
    api.close()


def save(api: ApiInHand, name: str, policy: dict[str, Any], *attached: dict[str, Any]) -> None:
    assert api.operator.put(f"/v1/policies/{name}", json={"document": json.dumps(policy)}).status_code == 200
    for one in attached:
        assert api.operator.post("/v1/attachments", json={"policy": name, **one}).status_code == 201


def export(api: ApiInHand) -> list[str]:
    return api.operator.get("/v1/audit/export").text.split("\n")[:-1]


def entries(api: ApiInHand) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export(api)[1:]]


def launch(api: ApiInHand, who: str = "alice", **more: Any) -> Any:
    return getattr(api, who).post("/v1/workloads", json={**QUARTER, **more})


def test_a_policy_denies_from_the_moment_it_is_attached_and_no_longer_when_it_is_detached(api: ApiInHand) -> None:
    assert launch(api).status_code == 201
    save(api, "small", NO_QUARTERS, {"kind": "project", "subject": "alice"})
    refused = launch(api)
    assert (refused.status_code, refused.json()["code"]) == (403, "denied_by_policy")
    assert refused.json()["params"]["statement"] == "small/NoQuarters"
    assert launch(api, "bob").status_code == 201
    params = {"policy": "small", "kind": "project", "subject": "alice"}
    assert api.operator.delete("/v1/attachments", params=params).status_code == 204
    assert launch(api).status_code == 201


@pytest.mark.parametrize(
    "attached",
    [
        {"kind": "everyone", "subject": "*"},
        {"kind": "user", "subject": "alice/alice-member"},
        {"kind": "organisation", "subject": "acme"},
        {"kind": "token", "subject": "tk-1"},
    ],
)
def test_a_fence_lets_through_what_it_allows_and_nothing_else(api: ApiInHand, attached: dict[str, Any]) -> None:
    assert api.operator.post("/v1/organisations", json={"name": "acme"}).status_code == 201
    assert api.operator.put("/v1/tenants/alice/organisation", json={"organisation": "acme"}).status_code == 204
    assert api.operator.put("/v1/policies/ro", json={"document": json.dumps(ONLY_READS)}).status_code == 200
    assert api.operator.post("/v1/attachments", json={"policy": "ro", "fence": True, **attached}).status_code == 201
    assert api.alice.get("/v1/workloads").status_code == 200
    assert launch(api).json()["code"] == "denied_by_policy"


def test_a_policy_may_allow_a_viewer_more_in_its_tenant_and_nowhere_else(api: ApiInHand) -> None:
    from gpuyard.model.tenants import Role

    viewer = api.client(api.hand.tenant("alice"), Role.VIEWER)
    assert viewer.post("/v1/workloads", json=QUARTER).json()["code"] == "forbidden"
    allow = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    save(api, "more", allow, {"kind": "project", "subject": "alice"})
    assert viewer.post("/v1/workloads", json=QUARTER).status_code == 201
    assert viewer.post("/v1/workloads", json={**QUARTER, "tenant": "bob"}).json()["code"] == "tenant_not_found"
    assert viewer.get("/v1/policies").json()["code"] == "forbidden"
    assert viewer.post("/v1/tenants", json={"name": "mine"}).json()["code"] == "forbidden"


def test_a_policy_that_is_not_understood_is_not_saved(api: ApiInHand) -> None:
    before = api.everything()
    bad = json.dumps(NO_QUARTERS).replace("ec2:InstanceType", "ec2:TargetInstanceType")
    refused = api.operator.put("/v1/policies/small", json={"document": bad})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_policy")
    assert "ec2:InstanceType" in refused.json()["detail"]
    told = api.alice.post("/v1/access/check", json={"document": bad}).json()
    assert len(told["findings"]) == 1
    assert api.everything()["policies"] == before["policies"] == []
    assert (
        api.operator.post("/v1/attachments", json={"policy": "small", "kind": "everyone", "subject": "*"}).status_code
        == 404
    )


def test_a_policy_that_is_attached_is_not_deleted(api: ApiInHand) -> None:
    save(api, "small", NO_QUARTERS, {"kind": "everyone", "subject": "*"})
    assert api.operator.delete("/v1/policies/small").json()["code"] == "policy_in_use"
    params = {"policy": "small", "kind": "everyone", "subject": "*"}
    assert api.operator.delete("/v1/attachments", params=params).status_code == 204
    assert api.operator.delete("/v1/policies/small").status_code == 204
    assert api.operator.delete("/v1/policies/small").json()["code"] == "policy_not_found"


@pytest.mark.parametrize(
    "path", ["/v1/policies", "/v1/attachments", "/v1/quotas", "/v1/geography", "/v1/organisations", "/v1/audit/export"]
)
def test_only_operators_see_and_change_access(api: ApiInHand, path: str) -> None:
    assert api.operator.get(path).status_code == 200
    assert api.alice.get(path).json()["code"] == "forbidden"


def test_explaining_names_the_statement_and_changes_nothing(api: ApiInHand) -> None:
    save(api, "small", NO_QUARTERS, {"kind": "project", "subject": "alice"})
    asked = {
        "user": "x",
        "tenant": "alice",
        "action": "ec2:RunInstances",
        "facts": {"ec2:InstanceType": "rtx4090-quarter"},
    }
    told = api.operator.post("/v1/access/explain", json=asked).json()
    assert (told["allowed"], told["because"], told["statements"]) == (False, "explicit_deny", ["small/NoQuarters"])
    told = api.operator.post("/v1/access/explain", json={**asked, "facts": {"ec2:InstanceType": "rtx4090-full"}}).json()
    assert (told["allowed"], told["statements"]) == (True, ["role-member/own_tenant"])
    wrong = api.operator.post("/v1/access/explain", json={**asked, "action": "ec2:RunInstance"})
    assert wrong.json()["params"]["nearest"].startswith("ec2:RunInstances")


def test_a_dry_run_asks_the_past_again(api: ApiInHand) -> None:
    launch(api)
    launch(api)
    launch(api, "bob", slices={"offer": "rtx4090-full"})
    asked = {"policy": "small", "document": json.dumps(NO_QUARTERS)}
    assert api.operator.post("/v1/access/dry-run", json=asked).json()["changed"] == 0
    attach = {"policy": "small", "kind": "everyone", "subject": "*"}
    told = api.operator.post("/v1/access/dry-run", json={**asked, "attach": attach}).json()
    assert told["changed"] == 2
    assert {(one["user"], one["was_allowed"], one["would_be_allowed"]) for one in told["changes"]} == {
        ("alice-member", True, False)
    }
    assert launch(api).status_code == 201  # nothing was changed
    api.hand.clock.advance(8 * 86_400_000_000)
    assert api.operator.post("/v1/access/dry-run", json={**asked, "attach": attach}).json()["changed"] == 0


def test_a_quota_is_told_at_its_soft_and_refuses_at_its_hard_limit(api: ApiInHand) -> None:
    quota = {"kind": "project", "subject": "alice", "what": "card_share_ppm", "soft": 250_000, "hard": 600_000}
    assert api.operator.put("/v1/quotas", json=quota).status_code == 204
    first, second = launch(api).json(), launch(api).json()
    told = [event for event in api.operator.get("/v1/events").json()["items"] if event["kind"] == "quota.soft_reached"]
    assert [event["subject"] for event in told] == [second["id"]]
    before = api.everything()
    refused = launch(api)
    assert (refused.status_code, refused.json()["code"]) == (409, "quota_exceeded")
    after = api.everything()
    assert {name for name in after if after[name] != before[name]} <= {"audit", "counters", "audit_subjects"}
    assert launch(api, "bob").status_code == 201
    assert api.operator.get("/v1/quotas").json()["items"][0]["held"] == 500_000
    api.alice.post(f"/v1/workloads/{first['id']}/stop")
    api.hand.settle()
    assert launch(api).status_code == 201
    again = api.alice.post(f"/v1/workloads/{first['id']}/start")
    assert again.json()["code"] == "quota_exceeded"


@pytest.mark.parametrize(
    ("what", "hard"),
    [("card_memory_bytes", 5 << 30), ("storage_bytes", 1 << 30), ("spend_per_hour_nano", 1)],
)
@pytest.mark.parametrize("kind", ["organisation", "project", "user"])
def test_every_quota_counts_for_everyone_it_is_for(api: ApiInHand, kind: str, what: str, hard: int) -> None:
    api.operator.post("/v1/organisations", json={"name": "acme"})
    api.operator.put("/v1/tenants/alice/organisation", json={"organisation": "acme"})
    subject = {"organisation": "acme", "project": "alice", "user": "alice/alice-member"}[kind]
    quota = {"kind": kind, "subject": subject, "what": what, "hard": hard}
    assert api.operator.put("/v1/quotas", json=quota).status_code == 204
    assert launch(api).json()["code"] == "quota_exceeded"
    assert launch(api, "bob").status_code == 201
    assert api.operator.put("/v1/quotas", json={**quota, "hard": None}).status_code == 204
    assert launch(api).status_code == 201


def verify(api: ApiInHand, country: str, until: str = "2030-01-01T00:00:00Z") -> None:
    body = {"country": country, "verifier": "kyc", "evidence_sha256": "0" * 64, "expires_at": until}
    assert api.operator.put("/v1/tenants/alice/country", json=body).status_code == 204


def networks(api: ApiInHand, **found: str | None) -> None:
    listed = {cidr.replace("_", "/"): country for cidr, country in found.items()}
    assert api.operator.put("/v1/networks", json={"networks": listed}).status_code == 204


@pytest.fixture
def fenced(api: ApiInHand) -> ApiInHand:
    """Quarter cards only for tenants and callers in Germany; callers come from 203.0.113.7."""
    body = {"card_models": ["RTX4090"], "countries": ["de"]}
    assert api.operator.put("/v1/export-classes/eu", json=body).status_code == 204
    api.alice._transport.client = ("203.0.113.7", 5)  # type: ignore[attr-defined]
    return api


def why(answer: Any) -> str:
    assert (answer.status_code, answer.json()["code"]) == (403, "outside_geography"), answer.text
    return str(answer.json()["params"]["why"])


def test_tenant_and_caller_must_both_be_where_the_cards_may_be_used(fenced: ApiInHand) -> None:
    assert why(launch(fenced)) == "tenant_unverified"
    verify(fenced, "FR")
    assert why(launch(fenced)) == "tenant_country"
    verify(fenced, "DE")
    assert why(launch(fenced)) == "caller_unknown"
    networks(fenced, **{"203.0.113.0_24": "FR"})
    assert why(launch(fenced)) == "caller_country"
    networks(fenced, **{"203.0.113.0_24": "FR", "203.0.113.7_32": "DE"})
    made = launch(fenced, name="box")
    assert made.status_code == 201
    fenced.hand.settle()
    networks(fenced, **{"203.0.113.0_24": "FR"})
    assert why(fenced.alice.get("/v1/workloads/box/logs")) == "caller_country"
    assert fenced.alice.post("/v1/workloads/box/stop").status_code == 202  # ending is possible from anywhere
    fenced.hand.settle()
    assert why(fenced.alice.post("/v1/workloads/box/start")) == "caller_country"
    assert {e["because"] for e in entries(fenced) if not e["allowed"]} >= {
        "tenant_unverified",
        "tenant_country",
        "caller_unknown",
    }


def test_cards_without_an_export_class_are_used_from_anywhere_and_any_model_means_all_of_them(
    fenced: ApiInHand,
) -> None:
    assert launch(fenced, slices={"offer": "h100-full"}).status_code == 201
    assert why(launch(fenced, slices={"memory_bytes": 1 << 30, "compute_ppm": 100_000})) == "tenant_unverified"


def test_a_header_of_a_stranger_does_not_say_where_it_comes_from(fenced: ApiInHand) -> None:
    verify(fenced, "DE")
    networks(fenced, **{"198.51.100.0_24": "DE"})
    spoofed = {"X-Forwarded-For": "198.51.100.1"}
    assert why(fenced.alice.post("/v1/workloads", json=QUARTER, headers=spoofed)) == "caller_unknown"
    networks(fenced, **{"198.51.100.0_24": "DE", "203.0.113.7_32": None})
    assert fenced.alice.post("/v1/workloads", json=QUARTER, headers=spoofed).status_code == 201
    chain = {"X-Forwarded-For": "198.51.100.1, 192.0.2.9"}
    assert why(fenced.alice.post("/v1/workloads", json=QUARTER, headers=chain)) == "caller_unknown"


def test_what_runs_is_stopped_when_the_country_is_no_longer_verified(fenced: ApiInHand) -> None:
    verify(fenced, "DE")
    networks(fenced, **{"203.0.113.7_32": "DE"})
    made = launch(fenced).json()["id"]
    fenced.hand.settle()
    verify(fenced, "FR")
    fenced.hand.clock.advance(11_000_000)
    fenced.hand.settle()
    found = fenced.alice.get(f"/v1/workloads/{made}").json()
    assert found["state"] == "stopped"
    assert found["reason"] == "outside_geography"
    assert [e["because"] for e in entries(fenced) if e["action"] == "gpuyard:KeepRunning"] == ["tenant_country"]


def test_the_log_holds_and_says_who_asked_what_only_under_seal(api: ApiInHand) -> None:
    launch(api)
    api.bob.get("/v1/workloads/nobody-has-this")
    api.alice.get("/v1/tokens")
    lines = export(api)
    assert check_log(lines).size == len(lines) - 1
    found = entries(api)
    assert {(e["action"], e["allowed"]) for e in found} >= {("ec2:RunInstances", True), ("gpuyard:ManageTokens", False)}
    text = "\n".join(export(api))
    assert "alice-member" not in text
    assert "testclient" not in text
    assert "rtx4090-quarter" in text


def test_a_decision_about_a_change_commits_with_it_and_is_there_after_a_kill(api: ApiInHand) -> None:
    made = launch(api).json()["id"]
    api.hand.kill()
    with api.hand.yard.store.read() as c:
        from gpuyard.store import audit, workloads

        assert workloads.get(c, made) is not None
        stored = [json.loads(line) for line in audit.leaves(c, 0, 100)]
    assert [entry["action"] for entry in stored] == ["ec2:RunInstances"]


def test_a_change_that_is_refused_leaves_its_decision_for_the_next_settling(api: ApiInHand) -> None:
    api.alice.post("/v1/workloads", json={**QUARTER, "name": "box"})
    assert api.alice.post("/v1/workloads", json={**QUARTER, "name": "box"}).json()["code"] == "name_taken"
    assert sum(e["count"] for e in entries(api) if e["action"] == "ec2:RunInstances") == 2


def test_the_same_question_many_times_is_one_entry_that_counts(api: ApiInHand) -> None:
    for _ in range(20):
        api.alice.get("/v1/tokens")
    assert [e["count"] for e in entries(api) if e["action"] == "gpuyard:ManageTokens"] == [20]


def test_a_tenant_proves_its_own_entries_and_sees_no_others(api: ApiInHand) -> None:
    launch(api)
    launch(api, "bob")
    proof = api.alice.get("/v1/audit/entries/0/proof").json()
    signed = read_note(proof["note"], proof["key"])
    check_inclusion(proof["leaf"], 0, proof["path"], signed)
    assert api.alice.get("/v1/audit/entries/1/proof").json()["code"] == "not_found"
    assert api.alice.get("/v1/audit/entries/9999/proof").json()["code"] == "not_found"
    kept = signed
    launch(api)
    later = api.alice.get("/v1/audit/consistency", params={"of": kept.size}).json()
    check_consistency(kept, later["path"], read_note(later["note"], proof["key"]))


def test_shredding_a_person_leaves_the_log_whole_and_the_person_unreadable(api: ApiInHand) -> None:
    launch(api)
    auditor = api.hand.yard.authority.auditor
    before = export(api)
    with api.hand.yard.store.read() as c:
        keys = auditor.subject_keys(c)
    assert "alice-member" in str([auditor.opened(line, keys) for line in before[1:]])
    gone = api.operator.post("/v1/audit/shred", json={"tenant": "alice", "user": "alice-member"}).json()["subject"]
    with api.hand.yard.store.read() as c:
        keys = auditor.subject_keys(c)
    assert gone not in keys
    assert [auditor.opened(line, keys) for line in before[1:] if json.loads(line)["subject"] == gone] == [None]
    assert check_log(export(api)).size > len(before) - 1
    assert "alice-member" not in str(api.everything()["audit_subjects"])
    launch(api)
    assert {e["subject"] for e in entries(api) if e["action"] == "ec2:RunInstances"} > {
        gone
    }  # a new subject from now on


def test_the_store_itself_refuses_to_change_what_was_written(api: ApiInHand) -> None:
    from sqlalchemy import exc, text

    launch(api)
    for statement in ("UPDATE audit SET leaf = '{}'", "DELETE FROM audit"):
        with pytest.raises(exc.DBAPIError, match="immutable"), api.hand.yard.store.write() as c:
            c.execute(text(statement))

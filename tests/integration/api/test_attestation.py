"""Evidence over HTTP: a nonce that counts once, and an instance that is called what is proven of this start of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from api_in_hand import ApiInHand
from attested_amd_nvidia import AmdMachine, NvidiaCard
from attested_authorities import ec_key
from gpuyard.access.attestation.evidence import Evidence
from gpuyard.hardware.confidential import find_confidential

MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
AMD, CARD = AmdMachine(), NvidiaCard()
KEY = ec_key().public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
).decode()  # fmt: skip
POLICY = {"amd-sev-snp": AMD.policy(), "nvidia-gpu": CARD.policy(), "max_age_s": 43_200}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path)
    assert api.operator.put("/v1/attestation/policy", json={"document": POLICY}).status_code == 200
    yield api
    api.close()


def launch(api: ApiInHand, offer: str = "h100-full", name: str = "box") -> str:
    body = {"kind": "instance", "name": name, "slices": {"offer": offer}}
    made = api.alice.post("/v1/workloads", json=body)
    assert made.status_code == 201, made.text
    api.hand.settle()
    return str(made.json()["id"])


def nonce(api: ApiInHand, **options: Any) -> dict[str, Any]:
    made = api.alice.post("/v1/workloads/box/attestation/nonce", json={"key": KEY, **options})
    assert made.status_code == 201, made.text
    return dict(made.json())


def wire(one: Evidence) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "report": base64.b64encode(one.report).decode(),
        "certificates": one.certificates,
        "revocation": [base64.b64encode(each).decode() for each in one.revocation],
    }


def machine(asked: dict[str, Any]) -> dict[str, Any]:
    return wire(AMD.evidence(bytes.fromhex(asked["report_data"])))


def card(asked: dict[str, Any]) -> dict[str, Any]:
    return wire(CARD.evidence(bytes.fromhex(asked["card_nonce"])))


def submit(api: ApiInHand, asked: dict[str, Any], *evidence: dict[str, Any], who: Any = None) -> Any:
    body = {"nonce": asked["nonce"], "evidence": list(evidence)}
    return (who or api.alice).post("/v1/workloads/box/attestation", json=body)


def called(api: ApiInHand) -> str:
    one = api.alice.get("/v1/workloads/box").json()["confidentiality"]
    (listed,) = [w["confidentiality"] for w in api.alice.get("/v1/workloads").json()["items"] if w["name"] == "box"]
    shown = api.alice.get("/v1/workloads/box/attestation").json()["confidentiality"]
    assert one == listed == shown
    return f"{one['level']} {one['because']}"


def refused(answer: Any) -> str:
    assert answer.status_code in {409, 422}, answer.text
    params = answer.json()["params"]
    return str(params.get("flaw") or params.get("because") or answer.json()["code"])


def test_an_instance_is_not_confidential_until_evidence_was_verified(api: ApiInHand) -> None:
    launch(api)
    assert called(api) == "not_confidential no_evidence"
    asked = nonce(api)
    made = submit(api, asked, machine(asked))
    assert made.status_code == 201, made.text
    assert made.json()["claims"][0]["measurement"] == "a1" * 48
    assert called(api) == "processor cards_not_exclusive"


def test_the_doctor_says_whether_this_machine_could_be_confidential_at_all(api: ApiInHand) -> None:
    (told,) = [one for one in api.operator.get("/v1/doctor").json()["findings"] if one["name"] == "confidential"]
    assert "confidential" in told["text"]
    assert told["ok"] is find_confidential().ok


def test_a_card_that_is_not_withheld_from_others_is_never_called_confidential(api: ApiInHand) -> None:
    launch(api, "h100-half")
    asked = nonce(api)
    made = submit(api, asked, machine(asked), card(asked))
    assert (made.status_code, made.json()["cards"]) == (201, 1)
    assert called(api) == "processor cards_not_exclusive"


def test_evidence_counts_for_one_start(api: ApiInHand) -> None:
    launch(api)
    asked, waiting = nonce(api), nonce(api)
    assert submit(api, asked, machine(asked), card(asked)).status_code == 201
    assert api.alice.post("/v1/workloads/box/stop").status_code == 202
    api.hand.settle()
    assert called(api) == "not_confidential not_running"
    assert api.alice.post("/v1/workloads/box/start").status_code == 202
    api.hand.settle()
    assert called(api) == "not_confidential no_evidence"
    assert refused(submit(api, waiting, machine(waiting))) == "nonce_other_unit"
    assert nonce(api)["unit"] != asked["unit"]


def test_evidence_is_out_of_date_some_time_and_lists_say_so(api: ApiInHand) -> None:
    launch(api)
    asked = nonce(api)
    assert submit(api, asked, machine(asked)).json()["until"] == "2026-09-22T02:13:20.000000Z"
    api.hand.clock.advance(12 * HOUR_US - 1)
    assert called(api) == "processor cards_not_exclusive"
    api.hand.clock.advance(1)
    assert api.alice.get("/v1/workloads/box").json()["confidentiality"]["because"] == "evidence_old"
    api.hand.settle()
    assert called(api) == "not_confidential no_evidence"
    (ended,) = api.alice.get("/v1/workloads/box/attestation").json()["attestations"]
    assert ended["ended_because"] == "evidence_old"


def test_another_policy_ends_what_was_verified_under_the_one_before(api: ApiInHand) -> None:
    launch(api)
    asked = nonce(api)
    assert submit(api, asked, machine(asked)).status_code == 201
    assert api.operator.put("/v1/attestation/policy", json={"document": POLICY}).status_code == 200
    assert called(api) == "processor cards_not_exclusive"
    stricter = {**POLICY, "amd-sev-snp": AMD.policy(measurements=["00" * 48])}
    assert api.operator.put("/v1/attestation/policy", json={"document": stricter}).status_code == 200
    assert called(api) == "not_confidential no_evidence"
    asked = nonce(api)
    assert refused(submit(api, asked, machine(asked))) == "measurement"
    assert api.operator.put("/v1/attestation/policy", json={"document": {}}).status_code == 200
    asked = nonce(api)
    assert refused(submit(api, asked, machine(asked))) == "attestation_off"


def test_a_nonce_counts_once_whatever_came_of_it(api: ApiInHand) -> None:
    launch(api)
    asked = nonce(api)
    other = machine(nonce(api))
    assert refused(submit(api, asked, other)) == "other_binding"
    assert refused(submit(api, asked, machine(asked))) == "nonce_used"
    assert called(api) == "not_confidential no_evidence"


def test_a_nonce_is_for_ten_minutes(api: ApiInHand) -> None:
    launch(api)
    early, late = nonce(api), nonce(api)
    api.hand.clock.advance(10 * MINUTE_US)
    assert submit(api, early, machine(early)).status_code == 201
    api.hand.clock.advance(1)
    assert refused(submit(api, late, machine(late))) == "nonce_unknown"


def test_a_nonce_of_another_instance_or_of_nobody_is_refused(api: ApiInHand) -> None:
    launch(api)
    launch(api, "rtx4090-quarter", "other")
    asked = api.alice.post("/v1/workloads/other/attestation/nonce", json={"key": KEY}).json()
    assert refused(submit(api, asked, machine(asked))) == "nonce_unknown"
    assert refused(submit(api, {"nonce": "00" * 32}, machine(asked))) == "nonce_unknown"
    body = {"nonce": asked["nonce"], "evidence": [machine(asked)]}
    assert api.alice.post("/v1/workloads/other/attestation", json=body).status_code == 201  # it was not spent above


def test_evidence_for_another_key_is_refused(api: ApiInHand) -> None:
    launch(api)
    mine, theirs = nonce(api), nonce(api)
    assert mine["key_sha256"] == theirs["key_sha256"]
    assert mine["report_data"] != theirs["report_data"]
    assert refused(submit(api, mine, machine(theirs))) == "other_binding"


def test_nobody_else_hands_in_evidence_or_sets_policies(api: ApiInHand) -> None:
    launch(api)
    asked = nonce(api)
    assert submit(api, asked, machine(asked), who=api.bob).status_code == 404
    assert api.bob.post("/v1/workloads/box/attestation/nonce", json={"key": KEY}).status_code == 404
    assert api.bob.get("/v1/workloads/box/attestation").status_code == 404
    assert api.alice.put("/v1/attestation/policy", json={"document": {}}).status_code == 403
    assert api.alice.get("/v1/attestation/policy").json()["document"] == POLICY
    assert submit(api, asked, machine(asked)).status_code == 201


def test_what_runs_not_has_no_nonce(api: ApiInHand) -> None:
    launch(api)
    assert api.alice.post("/v1/workloads/box/stop").status_code == 202
    api.hand.settle()
    assert api.alice.post("/v1/workloads/box/attestation/nonce", json={"key": KEY}).json()["code"] == "not_running"


@pytest.mark.parametrize(
    "key", ["", "nothing", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "\ud800"]
)
def test_a_key_that_is_none_is_refused(api: ApiInHand, key: str) -> None:
    launch(api)
    text = json.dumps({"key": key})
    answer = api.alice.post(
        "/v1/workloads/box/attestation/nonce", content=text, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("piece", "code"),
    [
        ({"kind": "arm-cca"}, "invalid_request"),
        ({"report": "?"}, "invalid_request"),
        ({"report": "AAAAA"}, "evidence_refused"),
        ({"revocation": ["AAAA"]}, "evidence_refused"),
        ({"certificates": "\ud800"}, "invalid_request"),
        ({"more": 1}, "invalid_request"),
        ({"kind": "intel-tdx"}, "attestation_off"),
    ],
)
def test_what_is_no_evidence_is_refused_in_words(api: ApiInHand, piece: dict[str, Any], code: str) -> None:
    launch(api)
    asked = nonce(api)
    text = json.dumps({"nonce": asked["nonce"], "evidence": [machine(asked) | piece]})
    answer = api.alice.post("/v1/workloads/box/attestation", content=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code < 500, answer.json()["code"]) == (True, code), answer.text
    assert called(api) == "not_confidential no_evidence"


@pytest.mark.parametrize(
    "document",
    [{"x\ud800": 1}, {"max_age_s": 1e400}, {"nvidia-gpu": CARD.policy(drivers=["\ud800"])}, {"max_age_s": 2**70}],
)
def test_a_policy_that_is_none_is_refused_and_changes_nothing(api: ApiInHand, document: dict[str, Any]) -> None:
    answer = api.operator.put(
        "/v1/attestation/policy",
        content=json.dumps({"document": document}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code in {400, 422}, answer.text
    assert api.operator.get("/v1/attestation/policy").json()["document"] == POLICY


def test_every_flaw_has_a_sentence_in_both_languages(
    api: ApiInHand, problem_in_both: Callable[[Callable[[dict[str, str]], httpx.Response], int, str], str]
) -> None:
    launch(api)

    def ask(headers: dict[str, str]) -> httpx.Response:
        asked = nonce(api)
        body = {"nonce": asked["nonce"], "evidence": [card(asked)]}
        return api.alice.post("/v1/workloads/box/attestation", json=body, headers=headers)

    assert "处理器" in problem_in_both(ask, 422, "evidence_refused")


def test_each_verdict_is_in_the_audit_log(api: ApiInHand) -> None:
    workload = launch(api)
    asked = nonce(api)
    submit(api, asked, card(asked))
    asked = nonce(api)
    submit(api, asked, machine(asked))
    api.hand.settle()
    with api.hand.yard.store.read() as c:
        from gpuyard.store import audit

        entries = [json.loads(line) for line in audit.leaves(c, 0, audit.size(c))]
    verdicts = [one for one in entries if one["action"] == "gpuyard:VerifyEvidence"]
    told = {one["because"]: one for one in verdicts}
    assert {why: one["allowed"] for why, one in told.items()} == {"one_processor": False, "verified": True}
    assert all(one["resource"].endswith(f"instance/{workload}") for one in verdicts)
    assert told["verified"]["statements"][0].startswith("attestation-policy/")


def test_a_policy_may_forbid_to_hand_in_evidence(api: ApiInHand) -> None:
    launch(api)
    document = {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Deny", "Action": "gpuyard:AttestInstance", "Resource": "*"},
    }
    assert api.operator.put("/v1/policies/quiet", json={"document": json.dumps(document)}).status_code == 200
    attached = {"policy": "quiet", "kind": "everyone", "subject": "*"}
    assert api.operator.post("/v1/attachments", json=attached).status_code < 300
    answer = api.alice.post("/v1/workloads/box/attestation/nonce", json={"key": KEY})
    assert answer.json()["code"] == "denied_by_policy"

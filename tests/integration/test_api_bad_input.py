"""What is wrong is refused with a code, in a sentence of the reader's language, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_in_hand import JOB, QUARTER, ApiInHand

GIB = 1 << 30
HUGE = 10**30


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path_factory.mktemp("yard"))
    yield api
    api.close()


def shape(**wish: Any) -> dict[str, Any]:
    return {"kind": "instance", "slices": {"memory_bytes": 8 * GIB, "compute_ppm": 250_000, **wish}}


LAUNCHES: list[tuple[str, Any, str]] = [
    ("an unknown offer", {"kind": "job", "slices": {"offer": "rtx9090-full"}, "command": ["x"]}, "unknown_offer"),
    ("an unknown model", shape(card_model="RTX9090"), "unknown_card_model"),
    ("a model that is not here", shape(card_model="RTX3090"), "no_card_of_model"),
    ("more memory than any card", shape(memory_bytes=200 * GIB), "slice_too_large"),
    ("more memory than the model", shape(memory_bytes=30 * GIB, card_model="RTX4090"), "slice_too_large"),
    ("more cards than a node has", shape(count=16), "too_many_slices"),
    ("no memory", shape(memory_bytes=0), "invalid_request"),
    ("negative memory", shape(memory_bytes=-1), "invalid_request"),
    ("a huge number", shape(memory_bytes=HUGE), "invalid_request"),
    ("no compute", shape(compute_ppm=0), "invalid_request"),
    ("two cards of compute", shape(compute_ppm=2_000_000), "invalid_request"),
    ("a number as text", shape(memory_bytes="8GiB"), "invalid_request"),
    ("half a byte", shape(memory_bytes=0.5), "invalid_request"),
    ("no slices", {"kind": "instance"}, "invalid_request"),
    ("no cards", shape(count=0), "invalid_request"),
    ("an unknown kind", {**QUARTER, "kind": "daemon"}, "invalid_request"),
    ("an unknown field", {**QUARTER, "gpu": 1}, "invalid_request"),
    ("a bad name", {**QUARTER, "name": "../etc"}, "invalid_request"),
    ("a job without a command", {"kind": "job", "slices": {"offer": "rtx4090-half"}}, "invalid_request"),
    ("replicas of an instance", {**JOB, "kind": "instance", "replicas": 2}, "invalid_request"),
    ("a tier that there is not", {**QUARTER, "priority": 10}, "invalid_request"),
    ("a tier that is not for this tenant", {**QUARTER, "priority": 1}, "priority_too_high"),
    ("an option that there is not", {**QUARTER, "option": "reserved"}, "invalid_request"),
    ("a port that does not exist", {**QUARTER, "ports": [70_000]}, "invalid_request"),
    ("a port twice", {**QUARTER, "ports": [80, 80]}, "invalid_request"),
    ("more CPU than comes with it", {**QUARTER, "cpu_milli": 1_024_000}, "limit_too_large"),
    ("a list", [], "invalid_request"),
    ("nothing", None, "invalid_request"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "body", "code"), LAUNCHES, ids=[what for what, _, _ in LAUNCHES])
def test_a_launch_that_cannot_be_is_refused_in_words_and_changes_nothing(
    api: ApiInHand, what: str, body: Any, code: str
) -> None:
    before = api.everything()
    sentences: dict[str, str] = {}
    for language in ("en", "zh"):
        answer = api.alice.post("/v1/workloads", json=body, headers={"Accept-Language": language})
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert 400 <= answer.status_code < 500
        assert problem["status"] == answer.status_code
        assert problem["code"] == code
        sentences[language] = problem["detail"]
    assert sentences["en"] != sentences["zh"]
    assert any("一" <= letter <= "鿿" for letter in sentences["zh"])
    assert api.everything() == before


RAW: list[tuple[str, bytes, int]] = [
    ("broken JSON", b'{"kind": ', 400),
    ("not UTF-8", b'{"kind": "\xff\xfe"}', 400),
    ("NaN", b'{"kind": "job", "slices": {"memory_bytes": NaN}}', 400),
    ("deep nesting", b"[" * 5000 + b"]" * 5000, 400),
    ("a megabyte and more", b'{"name": "' + b"a" * (1 << 20) + b'"}', 413),
    ("empty", b"", 400),
]


@pytest.mark.parametrize(("what", "body", "status"), RAW, ids=[what for what, _, _ in RAW])
def test_a_body_that_is_no_request_is_refused(api: ApiInHand, what: str, body: bytes, status: int) -> None:
    before = api.everything()
    answer = api.alice.post("/v1/workloads", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["code"] in {"invalid_request", "request_too_large"}
    assert api.everything() == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("PATCH", "/v1/workloads", 405, "method_not_allowed"),
        ("GET", "/v1/workloads/missing", 404, "workload_not_found"),
        ("DELETE", "/v1/workloads/missing", 404, "workload_not_found"),
        ("POST", "/v1/workloads/missing/stop", 404, "workload_not_found"),
        ("GET", "/v1/workloads/%00", 400, "invalid_request"),
        ("GET", "/v1/workloads/" + "x" * 4000, 404, "workload_not_found"),
        ("GET", "/v1/workloads?limit=0", 400, "invalid_request"),
        ("GET", "/v1/workloads?limit=1e30", 400, "invalid_request"),
        ("GET", "/v1/workloads?cursor=nonsense", 400, "invalid_cursor"),
        ("GET", "/v1/workloads?state=dancing", 400, "invalid_request"),
        ("GET", "/v1/bill?day=yesterday", 400, "invalid_request"),
        ("GET", "/v1/bill?day=2026-02-30", 400, "invalid_time"),
        ("GET", "/v1/events?after=1" + "0" * 30, 400, "invalid_request"),
        ("GET", "/v1/intervals?from=now", 400, "invalid_time"),
        ("GET", "/v1/events?after=-1", 400, "invalid_request"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    api: ApiInHand, method: str, path: str, status: int, code: str
) -> None:
    answer = api.alice.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(answer.json()["detail"]) < 500


def test_a_name_that_is_taken_is_refused(api: ApiInHand) -> None:
    body = {**QUARTER, "name": "mine"}
    assert api.alice.post("/v1/workloads", json=body).status_code == 201
    again = api.alice.post("/v1/workloads", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert api.bob.post("/v1/workloads", json=body).status_code == 201


def test_every_answer_says_that_it_is_what_it_is_and_not_to_be_kept(api: ApiInHand) -> None:
    for answer in (api.alice.get("/v1/workloads"), api.alice.get("/v1/nothing"), api.alice.get("/v1/health")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_failure_of_ours_is_told_with_a_reference_and_nothing_else(
    api: ApiInHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("gpuyard.api.tenants.views", broken)
    monkeypatch.setattr("gpuyard.store.tenants.listing", broken)
    answer = api.operator.get("/v1/tenants")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret detail" not in answer.text


def test_a_full_disk_is_said_and_nothing_is_half_done(tmp_path: Path) -> None:
    api = ApiInHand(tmp_path)
    try:
        api.alice.post("/v1/workloads", json=QUARTER)
        before = api.everything()
        with api.hand.yard.store.write() as c:
            pages = c.exec_driver_sql("PRAGMA page_count").scalar_one()
            c.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        refused = None
        for _ in range(300):
            answer = api.alice.post("/v1/workloads", json={**JOB, "environment": {"FILL": "x" * 30_000}})
            if answer.status_code != 201:
                refused = answer
                break
            before = api.everything()
        assert refused is not None
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert api.everything() == before
        with api.hand.yard.store.write() as c:
            c.exec_driver_sql("PRAGMA max_page_count = 1073741823")
        assert api.alice.post("/v1/workloads", json=QUARTER).status_code == 201
    finally:
        api.close()

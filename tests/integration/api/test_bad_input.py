"""Bad input at the edges of the API: each is told in a whole sentence of both languages, and nothing is changed."""

from __future__ import annotations

import json
import socket
import string
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api_in_hand import JOB, QUARTER, ApiInHand
from gpuyard.access.rules import Action
from gpuyard.model.errors import STATUS_BY_CODE
from gpuyard.texts import LANGUAGES

Both = Callable[[Callable[[dict[str, str]], httpx.Response], int, str], str]
JSON = {"Content-Type": "application/json"}
GIB = 1 << 30


def job(**fields: Any) -> bytes:
    return json.dumps({**JOB, **fields}).encode()


# What a field breaks, and the words of the Chinese sentence that tell it.
FIELDS: list[tuple[str, bytes, str]] = [
    ("a lone surrogate in a label's name", job(labels={"\ud800": "x"}), "应为合法的 Unicode"),
    ("a lone surrogate in a variable", job(environment={"A": "\ud800"}), "应为合法的 Unicode"),
    ("a lone surrogate in a tenant", job(tenant="\ud800"), "应为合法的 Unicode"),
    ("NUL in a label's name", job(labels={"a\0": "x"}), "应为一行文字"),
    ("a name with capitals", job(name="My Box"), "应为 1 到 63 个小写字母、数字和中间的连字符"),
    ("NUL in an argument", job(command=["\0"]), "应符合"),
    ("NUL in an image", job(image="a\0"), "应符合"),
    ("NUL in a folder", job(working_directory="/\0"), "应符合"),
    ("NUL in an offer", job(slices={"offer": "\0"}), "应符合"),
    ("a label without a name", job(labels={"": "x"}), "应为一行文字"),
    ("a label with a huge name", job(labels={"k" * 10_000: "x"}), "最多 253 个字符"),
    ("a huge offer", job(slices={"offer": "x" * 10_000}), "最多 512 个字符"),
    ("too many labels", job(labels={f"l{n}": "" for n in range(65)}), "最多 64 项"),
    ("a number where text belongs", job(name=7), "应为字符串"),
    ("text where a number belongs", job(replicas="2"), "应为整数"),
    ("true where a number belongs", job(replicas=True), "应为整数"),
    ("a fraction where a number belongs", job(replicas=1.5), "应为整数"),
    ("a number beyond all numbers", job(replicas=10**400), "最多为 1000"),
    ("1e30", job(time_limit_us=1e30), "应为整数"),
    ("infinity", b'{"kind": "job", "slices": {"offer": "rtx4090-half", "count": 1e999}}', "应为整数"),
    ("NaN", b'{"kind": "job", "slices": {"offer": "rtx4090-half", "count": NaN}}', "整数"),
    ("too small", job(cpu_milli=1), "至少为 10"),
    ("too large", job(replicas=1001), "最多为 1000"),
    ("no list", job(command="sleep 5"), "应为列表"),
    ("no object", job(environment=["A=B"]), "应为对象"),
    ("no truth", job(mounts=[{"volume": "v", "path": "/v", "read_only": "perhaps"}]), "应为 true 或 false"),
    ("no such choice", job(restart="sometimes"), "'never', 'on_failure' 或 'always'"),
    ("no such field", job(gpus=1), "没有这个字段"),
    ("a field that is missing", b'{"kind": "job"}', "缺少该项"),
    ("broken JSON", b'{"kind": ', "不是合法的 JSON"),
    ("not UTF-8", b'{"kind": "\xff"}', "不是 UTF-8"),
    ("replicas of an instance", job(kind="instance", replicas=2), "只有服务和作业可以有多个副本，而这是 instance"),
    ("a service that ends", job(kind="service", restart="never"), "重启策略只能是 always"),
    ("a port twice", job(ports=[80, 80]), "声明了两次"),
    ("no command", job(command=[]), "没有镜像的 job 必须给出命令"),
    ("an offer and a shape", job(slices={"offer": "rtx4090-half", "compute_ppm": 1}), "只能给出其一"),
    ("neither", job(slices={}), "请给出规格"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "body", "words"), FIELDS, ids=[what for what, _, _ in FIELDS])
def test_what_is_wrong_with_a_field_is_said_in_both_languages(
    api: ApiInHand, problem_in_both: Both, what: str, body: bytes, words: str
) -> None:
    before = api.everything()
    sentence = problem_in_both(
        lambda headers: api.alice.post("/v1/workloads", content=body, headers={**JSON, **headers}),
        400,
        "invalid_request",
    )
    assert words in sentence
    assert len(sentence) < 600
    assert api.everything() == before


REFUSED: list[tuple[str, str, str, Any, int, str]] = [
    ("operator", "POST", "/v1/tenants", {"name": "x", "credit": "1e30"}, 400, "invalid_price"),
    ("operator", "POST", "/v1/tenants", {"name": "x", "credit": "-1"}, 400, "invalid_price"),
    ("operator", "POST", "/v1/tenants", {"name": "alice"}, 409, "name_taken"),
    ("operator", "POST", "/v1/tenants", {"name": "Ä"}, 400, "invalid_request"),
    ("operator", "POST", "/v1/tokens", {"user": "a\nb"}, 400, "invalid_request"),
    ("operator", "POST", "/v1/tokens", {"user": "a\0"}, 400, "invalid_request"),
    ("operator", "POST", "/v1/tokens", {"user": "a", "role": "root"}, 400, "invalid_request"),
    ("operator", "POST", "/v1/tokens", {"user": "a", "tenant": "nobody"}, 404, "tenant_not_found"),
    ("operator", "DELETE", "/v1/tokens/never", None, 404, "token_not_found"),
    ("alice", "GET", "/v1/yard", None, 403, "forbidden"),
    ("alice", "POST", "/v1/tenants", {"name": "x"}, 403, "forbidden"),
    ("alice", "POST", "/v1/workloads", {"kind": "instance", "slices": {"memory_bytes": 900 * GIB, "compute_ppm": 1}}, 422, "slice_too_large"),
    ("alice", "POST", "/v1/workloads", {**QUARTER, "slices": {"offer": "none"}}, 422, "unknown_offer"),
    ("alice", "POST", "/v1/workloads", {**QUARTER, "slices": {"card_model": "none"}}, 422, "unknown_card_model"),
    ("alice", "POST", "/v1/workloads", {**QUARTER, "memory_bytes": 1 << 50}, 422, "limit_too_large"),
    ("alice", "PUT", "/v1/workloads", None, 405, "method_not_allowed"),
    ("alice", "GET", "/v1/workloads/", None, 404, "not_found"),
    ("alice", "GET", "/v1/workloads?tenant=bob", None, 404, "tenant_not_found"),
    ("alice", "GET", "/v1/cards?cursor=%FF", None, 400, "invalid_cursor"),
    ("alice", "GET", "/v1/workloads?cursor=%00", None, 400, "invalid_request"),
    ("alice", "GET", "/v1/workloads/nothing/logs?since=yesterday", None, 404, "workload_not_found"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "status", "code"),
    REFUSED,
    ids=[f"{n} {row[1]} {row[2].split('?')[0]} {row[5]}" for n, row in enumerate(REFUSED)],
)
def test_every_refusal_is_a_sentence_in_both_languages_and_changes_nothing(
    api: ApiInHand, problem_in_both: Both, who: str, method: str, path: str, body: Any, status: int, code: str
) -> None:
    before = api.everything()
    client = getattr(api, who)
    problem_in_both(lambda headers: client.request(method, path, json=body, headers=headers), status, code)
    assert api.everything() == before


def test_inside_a_workload_bad_input_is_told_too(api: ApiInHand, problem_in_both: Both) -> None:
    name = api.alice.post("/v1/workloads", json=QUARTER).json()["id"]
    api.hand.settle()
    before = api.everything()
    for method, path, content, status, code in [
        ("GET", "logs?since=yesterday", b"", 400, "invalid_time"),
        ("GET", "logs?since=9999999d", b"", 400, "invalid_duration"),
        ("GET", "logs?replica=7", b"", 400, "invalid_request"),
        ("GET", "files?path=/nothing", b"", 404, "file_not_found"),
        ("GET", "files", b"", 400, "invalid_request"),
        ("PUT", "files?path=/&replica=9", b"", 400, "invalid_request"),
        ("PUT", "files?path=/", b"no archive", 400, "invalid_request"),
        ("PUT", "files?path=../..", b"", 400, "invalid_path"),
    ]:
        url = f"/v1/workloads/{name}/{path}"
        problem_in_both(
            lambda headers, m=method, u=url, c=content: api.alice.request(m, u, content=c, headers=headers),
            status,
            code,
        )
    assert api.everything() == before


def test_a_path_that_takes_several_methods_names_them_all(api: ApiInHand) -> None:
    for path, allowed in (("/v1/workloads", "GET, POST"), ("/v1/workloads/x", "DELETE, GET"), ("/v1/cards", "GET")):
        refused = api.alice.patch(path)
        assert refused.status_code == 405
        assert refused.headers["allow"] == allowed
        assert f"it takes {allowed}" in refused.json()["detail"]


@pytest.mark.parametrize("host", ["[bad", "", "a b", "evil.example/x?y#z", "\xff"])
def test_whatever_the_host_header_says_nothing_of_it_is_believed(api: ApiInHand, host: str) -> None:
    for path, status in (("/v1/workloads", 200), ("/v1/workloads/", 404), ("/v1/nothing", 404)):
        answer = api.alice.get(path, headers={"Host": host.encode("latin1")}, follow_redirects=False)
        assert answer.status_code == status
        assert "location" not in answer.headers


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_a_wrong_length_is_refused(api: ApiInHand, problem_in_both: Both, key: str) -> None:
    before = api.everything()
    problem_in_both(
        lambda headers: api.alice.post("/v1/workloads", json=JOB, headers={**headers, "Idempotency-Key": key}),
        400,
        "invalid_request",
    )
    assert api.everything() == before


def raw(port: int, request: bytes, then: bytes = b"") -> bytes:
    """What comes back for these bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(request)
        try:
            line.sendall(then)
            line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was refused before it was all sent
        found = b""
        try:
            while part := line.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


def head(served: Any, *more: str, path: str = "/v1/workloads") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Authorization: {served.alice['Authorization']}",
        "Accept-Language: zh",
    ]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(served: Any) -> None:
    before = served.api.everything()
    for length in (str((1 << 20) + 1), "9" * 15):
        told = raw(served.port, head(served, f"Content-Length: {length}", "Connection: close"))
        assert b" 413 " in told.split(b"\r\n")[0]
        assert "request_too_large" in told.decode()
    assert served.api.everything() == before


def test_a_body_that_grows_in_pieces_is_cut_off(served: Any) -> None:
    before = served.api.everything()

    def pieces() -> Any:
        yield b'{"name": "'
        for _ in range(40):
            yield b"x" * 65_536

    answer = httpx.post(f"{served.url}/v1/workloads", content=pieces(), headers=served.alice, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert served.api.everything() == before


def test_a_caller_who_goes_away_in_the_middle_of_a_body_changes_nothing(served: Any) -> None:
    before = served.api.everything()
    body = job()
    raw(served.port, head(served, "Content-Type: application/json", f"Content-Length: {len(body)}"), body[:-1])
    assert httpx.get(f"{served.url}/v1/health").status_code == 200
    assert served.api.everything() == before


@pytest.mark.parametrize("request_line", [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_what_is_no_http_is_answered_and_the_server_goes_on(served: Any, request_line: bytes) -> None:
    told = raw(served.port, request_line)
    assert told == b"" or b" 400 " in told.split(b"\r\n")[0] or b" 404 " in told.split(b"\r\n")[0]
    assert httpx.get(f"{served.url}/v1/health").status_code == 200


def test_both_languages_have_every_sentence_with_the_same_facts() -> None:
    def facts(sentence: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}

    en, zh = LANGUAGES["en"], LANGUAGES["zh"]
    assert en.keys() == zh.keys()
    assert {key for key in en if facts(en[key]) != facts(zh[key])} == set()
    assert {f"error.{code}" for code in STATUS_BY_CODE} <= en.keys()
    assert {f"word.action.{action.value}" for action in Action} <= en.keys()

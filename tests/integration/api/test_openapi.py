"""The OpenAPI document and the yard agree: what it promises is what is answered, and nothing ever fails inside."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks

from api_in_hand import JOB, QUARTER, ApiInHand
from gpuyard.access.rate_limits import RateLimits
from gpuyard.control.outgoing import Outgoing
from machines_in_hand import MachinesInHand

CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


def _nowhere(host: str, port: int) -> list[str]:
    raise OSError("Name or service not known")


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiInHand]:
    """A yard with something in every list; its live streams end at once."""
    api = MachinesInHand(tmp_path_factory.mktemp("yard"))
    api.joined("rack2").agent().round()
    api.alice.post("/v1/workloads", json={**QUARTER, "name": "box", "labels": {"team": "vision"}})
    api.alice.post("/v1/workloads", json={**JOB, "name": "done"})
    for _ in range(3):
        api.hand.settle()
        api.hand.clock.advance(6_000_000)
    api.hand.yard.outgoing = Outgoing(resolve=_nowhere)  # one of the operations names whom to fetch from
    api.app.state.stopping = threading.Event()
    api.app.state.stopping.set()
    yield api
    api.close()


@pytest.fixture(scope="module")
def document(lively: ApiInHand) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/v1/openapi.json", lively.app)


# What takes no token, and what it answers to an empty request here.
OPEN = {
    "/v1/health": 200,
    "/v1/login": 400,  # an empty one
    "/v1/login/oidc": {"get": 404, "post": 400},  # no provider is set
    "/v1/ca": 404,  # this yard speaks no TLS
    "/v1/machines/join": 400,  # an empty one
    "/v1/payments/stripe": 422,  # a call of Stripe proves itself by its signature; refused where nobody takes any
}

QUICK = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_whatever_is_asked_the_answer_is_one_that_the_document_describes(
    lively: ApiInHand, document: schemathesis.BaseSchema, subtests: pytest.Subtests
) -> None:
    headers = {"Authorization": lively.operator.headers["Authorization"]}
    asked = 0
    for found in document.get_all_operations():
        operation = found.ok()
        lively.hand.yard.rates = RateLimits()  # one of the operations sets them
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @QUICK
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                nonlocal asked
                asked += 1
                case.call_and_validate(checks=CHECKS, headers=headers)

            # Nothing can be wrong with what takes nothing: that is unsatisfiable.
            with subtests.test(operation=operation.label, mode=mode.value), suppress(Unsatisfiable):
                ask()
    assert asked > 200


ASKED = [
    ("/v1/yard", "operator"),
    ("/v1/doctor", "operator"),
    ("/v1/whoami", "alice"),
    ("/v1/tenants", "operator"),
    ("/v1/tenants/{tenant}", "operator"),
    ("/v1/tokens", "operator"),
    ("/v1/nodes", "alice"),
    ("/v1/cards", "alice"),
    ("/v1/offers", "alice"),
    ("/v1/machines", "operator"),
    ("/v1/machines/{machine}", "operator"),
    ("/v1/machines/invitations", "operator"),
    ("/v1/workloads", "alice"),
    ("/v1/workloads/{workload}", "alice"),
    ("/v1/workloads/{workload}/logs", "alice"),
    ("/v1/leases", "alice"),
    ("/v1/intervals", "alice"),
    ("/v1/bill", "alice"),
    ("/v1/events", "alice"),
]


@pytest.mark.parametrize(("path", "who"), ASKED, ids=[path for path, _ in ASKED])
def test_real_answers_have_the_shape_that_the_document_gives_them(
    lively: ApiInHand, document: schemathesis.BaseSchema, path: str, who: str
) -> None:
    client = getattr(lively, who)
    answer = client.get(path.format(workload="box", tenant="alice", machine="rack2"))
    assert answer.status_code == 200
    if "items" in answer.text and path.count("{") == 0 and "json" in answer.headers["content-type"]:
        assert answer.json().get("items", ["not a list"]), "an empty list would prove nothing"
    document[path]["GET"].validate_response(answer)


def test_the_document_itself_is_valid_and_every_operation_says_what_it_does(
    lively: ApiInHand, document: schemathesis.BaseSchema
) -> None:
    document.validate()
    told = lively.with_token(None).get("/v1/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    paths = told["paths"]
    assert len(paths) > 15
    for path, operations in paths.items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["tags"], where
            assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"}, where
            assert ("security" in operation) == (path not in OPEN), where
            assert "422" not in operation["responses"], f"{where}: a broken shape is refused with 400"


def test_every_operation_that_names_a_token_refuses_whoever_has_none(lively: ApiInHand) -> None:
    paths = lively.with_token(None).get("/v1/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            named = {"workload": "box", "tenant": "alice", "token": "tk-0", "number": "INV-000001", "transfer": "tr-0"}
            url = path.format_map(defaultdict(lambda: "1", **named, key="GYAK", period="day", action="soft"))
            answer = lively.with_token(None).request(method, url, params={"path": "/"})
            if "security" in operation:
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), f"{method} {path}"
            else:
                expected = OPEN[path]
                assert answer.status_code == (expected[method] if isinstance(expected, dict) else expected)

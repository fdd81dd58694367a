"""A yard per module, in process; and the same over a real socket where the transport matters."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
import uvicorn

from api_in_hand import ApiInHand


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiInHand]:
    api = ApiInHand(tmp_path_factory.mktemp("yard"))
    yield api
    api.close()


@dataclass(frozen=True)
class Served:
    """A yard behind a real server, and the headers of who may ask it."""

    api: ApiInHand
    port: int
    alice: dict[str, str]
    bob: dict[str, str]
    operator: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def served(api: ApiInHand) -> Iterator[Served]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    headers = [{"Authorization": client.headers["Authorization"]} for client in (api.alice, api.bob, api.operator)]
    yield Served(api, listener.getsockname()[1], *headers)
    api.app.state.stopping.set()
    server.should_exit = True
    thread.join(20)
    listener.close()
    assert not thread.is_alive()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for it. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_han(text: str) -> bool:
    """Whether Chinese is written in it."""
    return any("一" <= letter <= "鿿" for letter in text)


@pytest.fixture(scope="session")
def problem_in_both() -> Callable[[Callable[[dict[str, str]], httpx.Response], int, str], str]:
    """Asks twice and gives the Chinese sentence: the answer has to be this problem, in a sentence of each language."""

    def check(ask: Callable[[dict[str, str]], httpx.Response], status: int, code: str) -> str:
        told = {}
        for language in ("en-GB,en;q=0.9", "zh-CN,zh;q=0.9"):
            answer = ask({"Accept-Language": language})
            assert answer.headers["content-type"] == "application/problem+json", answer.text
            problem = answer.json()
            assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
            assert problem["type"] == f"urn:gpuyard:error:{code}"
            assert "\n" not in problem["detail"]
            told[language[:2]] = problem["detail"]
        assert told["en"].rstrip().endswith(".")
        assert not has_han(told["en"])
        assert has_han(told["zh"])
        assert told["zh"].rstrip().endswith("。")
        return told["zh"]

    return check

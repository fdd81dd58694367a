"""Token buckets: what they let through, and that strangers cannot fill the memory."""

from __future__ import annotations

from pathlib import Path

from api_in_hand import ApiInHand
from gpuyard.access.rates import Buckets

SECOND_US = 1_000_000


def test_a_burst_and_then_so_many_a_second() -> None:
    buckets = Buckets(per_second=2, burst=3)
    for _ in range(3):
        assert buckets.wait_us("a", 0) == 0
        buckets.take("a", 0)
    assert buckets.wait_us("a", 0) == SECOND_US // 2
    assert buckets.wait_us("a", SECOND_US // 2) == 0
    assert buckets.wait_us("b", 0) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = Buckets(per_second=2, burst=1)
    buckets.take("a", 5 * SECOND_US)
    assert buckets.wait_us("a", 0) > 0


def test_ever_new_keys_are_forgotten() -> None:
    buckets = Buckets(per_second=1, burst=1, most=10)
    for n in range(1000):
        buckets.take(str(n), 0)
    assert buckets.wait_us("999", 0) > 0
    assert buckets.wait_us("0", 0) == 0


def test_whoever_guesses_tokens_is_made_to_wait(tmp_path: Path) -> None:
    api = ApiInHand(tmp_path)
    api.app.state.strangers = Buckets(per_second=0.5, burst=5)
    stranger = api.with_token("gy_guess")
    answers = [stranger.get("/v1/whoami") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) in (1, 2)
    assert answers[-1].json()["code"] == "too_many_requests"
    api.close()

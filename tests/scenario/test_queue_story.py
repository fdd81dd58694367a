"""The queue as its users meet it: a real yard, real processes, the real command line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from real_yard import RealYard
from real_yard import wait_for as wait_for_seconds

pytestmark = pytest.mark.slow
# On a machine with much else to do a start takes long; what is waited for is no different for that.
wait_for = partial(wait_for_seconds, seconds=120)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[RealYard]:
    yard = RealYard(tmp_path, "--simulate", "2xRTX4090,4xH100", "--spot-notice", "12s", "--spot-minimum-run", "1s")
    yard.up()
    yield yard
    yard.close()


def state(yard: RealYard, name: str) -> str:
    return yard.json("show", name)["state"]


def test_a_spot_lease_saves_its_work_goes_waits_and_comes_back(yard: RealYard) -> None:
    """The yard is killed with -9 while the notice runs; everything still happens in time."""
    script = "if [ -f saved ]; then echo went on from $(cat saved); fi; while true; do sleep 1; done"
    for name in ("one", "two"):
        yard.run(
            "run", "--job", "--offer", "rtx4090-full", "--option", "spot", "--name", name,
            "--checkpoint", "sh -c 'echo 42 > saved'", "--stop-grace", "2s", "--", "sh", "-c", script,
        )  # fmt: skip
    time.sleep(1.5)
    yard.run("checkpoint", "two")
    yard.run("run", "--job", "--offer", "rtx4090-full", "--name", "urgent", "--no-wait", "--", "sleep", "300")
    told = wait_for(
        lambda: [line for line in yard.run("events", "--limit", "500").splitlines() if "reclaim_notice" in line]
    )
    assert len(told) == 1
    assert 'name="two"' in told[0], "least work is lost where it was saved last"
    assert "It was told to go by" in yard.run("why", "two")
    yard.kill()
    yard.up()
    wait_for(lambda: state(yard, "urgent") == "running", lambda: yard.run("ps"))
    assert state(yard, "two") == "pending"
    assert state(yard, "one") == "running"
    assert "How often it was told to go: 1" in yard.run("why", "two")
    yard.run("rm", "urgent")
    wait_for(lambda: state(yard, "two") == "running", lambda: yard.run("ps"))
    assert wait_for(lambda: "went on from 42" in yard.run("logs", "two"))
    (lease,) = yard.json("show", "two")["leases"]
    assert (lease["attempt"], lease["restarts"], lease["run"], lease["option"]) == (2, 0, 1, "spot")


def test_a_wait_and_a_placement_are_explained_in_both_languages(yard: RealYard) -> None:
    yard.run("run", "--job", "--offer", "h100-full", "--count", "3", "--name", "near", "--", "sleep", "300")
    told = yard.run("why", "near")
    assert "joined by NVLink" in told
    assert "NV18" in told
    zh = yard.run("why", "near", environment={"GPUYARD_LANG": "zh"})
    assert "由 NVLink 相连" in zh
    gang = ("run", "--job", "--offer", "h100-full", "--replicas", "3", "--no-wait")
    yard.run(*gang, "--name", "gang", "--", "sleep", "5")
    wait_for(lambda: yard.json("show", "gang")["reason"] == "waiting_for_slices")
    told = yard.run("why", "gang")
    assert "number 1 of 1 in the queue" in told
    assert "1 of the 3 replicas of the gang would find room" in told
    assert "nobody can say when it starts" in told
    assert "half of the replicas" in told
    zh = yard.run("why", "gang", environment={"GPUYARD_LANG": "zh"})
    assert "整组 3 个副本中只有 1 个放得下" in zh
    assert re.search(r"排第 1，共 1 个", zh)
    yard.run("rm", "near")
    wait_for(lambda: state(yard, "gang") == "succeeded", lambda: yard.run("why", "gang"))


def test_quotas_tiers_and_plans_answer_in_words(yard: RealYard) -> None:
    yard.run("tenants", "share", "operators", "--quota-cards", "1", "--no-borrow", "--weight", "3")
    shown = yard.json("tenants", "share", "operators")
    assert (shown["quota_compute_ppm"], shown["may_borrow"], shown["weight"]) == (1_000_000, False, 3)
    yard.run("run", "--job", "--offer", "h100-full", "--name", "first", "--", "sleep", "300")
    yard.run("run", "--job", "--offer", "h100-full", "--name", "second", "--no-wait", "--", "sleep", "300")
    wait_for(lambda: "quota is 1 cards" in yard.run("why", "second"), lambda: yard.run("why", "second"))
    yard.run("tenants", "share", "operators", "--quota-cards", "none")
    wait_for(lambda: state(yard, "second") == "running")
    for words, code in (
        (("tenants", "share", "operators", "--weight", "0"), "invalid_request"),
        (("tenants", "share", "operators", "--quota-memory", "much"), "invalid_size"),
        (("tenants", "share", "nobody"), "tenant_not_found"),
        (("run", "--job", "--offer", "h100-full", "--priority", "3", "--", "true"), "priority_too_high"),
        (("run", "--job", "--offer", "h100-full", "--option", "cheap", "--", "true"), "invalid_request"),
        (("run", "--job", "--offer", "h100-full", "--work", "1", "--on", "H100", "--", "true"), "invalid_request"),
        (("run", "--job", "--work", "1", "--", "true"), "invalid_request"),
        (("plan", "--work", "0", "--on", "H100"), "invalid_request"),
        (("plan", "--work", "1", "--on", "H1000"), "unknown_card_model"),
        (("plan", "--work", "1", "--on", "H100", "--deadline", "tomorrow"), "invalid_time"),
        (("plan", "--work", "1", "--on", "H100", "--budget", "-1"), "invalid_price"),
        (("plan", "--work", "1", "--on", "H100", "--count", "40"), "too_many_slices"),
        (("run", "--job", "--work", "9", "--on", "H100", "--budget", "0.01", "--", "true"), "goal_unreachable"),
        (("why", "nothing"), "workload_not_found"),
        (("checkpoint", "nothing"), "workload_not_found"),
    ):
        for language in ("en", "zh"):
            done = yard.cli(*words, environment={"GPUYARD_LANG": language})
            assert done.returncode != 0
            assert f"[{code}]" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
    plan = yard.json("plan", "--work", "10", "--on", "RTX4090")
    assert {(tier["card_model"], tier["option"]) for tier in plan["tiers"]} == {
        (model, option) for model in ("RTX4090", "H100") for option in ("on_demand", "spot")
    }
    assert plan["chosen"] == "H100", "six times as fast for five times the price"
    yard.run("run", "--job", "--work", "1", "--on", "RTX4090", "--budget", "5", "--name", "goal", "--", "true")
    assert yard.json("show", "goal")["spec"]["slices"]["offer"] == "h100-full"


def test_a_job_is_moved_for_one_that_fits_nowhere_and_goes_on_from_what_it_saved(yard: RealYard) -> None:
    script = "if [ -f saved ]; then echo went on from $(cat saved); fi; while true; do sleep 1; done"
    on: dict[str, list[str]] = {}
    for name in ("one", "two", "three", "four"):
        yard.run(
            "run", "--job", "--offer", "rtx4090-half", "--name", name, "--checkpoint", "sh -c 'echo 42 > saved'",
            "--stop-grace", "2s", "--", "sh", "-c", script,
        )  # fmt: skip
        on.setdefault(yard.json("show", name)["leases"][0]["slices"][0]["card_uuid"], []).append(name)
    (stays, gone), (other, also_gone) = on.values()
    yard.run("rm", gone, also_gone)
    yard.run("run", "--job", "--offer", "rtx4090-full", "--name", "big", "--no-wait", "--", "sleep", "300")
    wait_for(lambda: state(yard, "big") == "running", lambda: yard.run("why", "big"))
    wait_for(lambda: {state(yard, stays), state(yard, other)} == {"running"}, lambda: yard.run("ps"))
    (moved,) = [name for name in (stays, other) if "was moved there" in yard.run("why", name)]
    wait_for(lambda: "went on from 42" in yard.run("logs", moved))
    (lease,) = yard.json("show", moved)["leases"]
    assert (lease["attempt"], lease["restarts"], lease["run"]) == (2, 0, 1)
    told = yard.run("events", "--limit", "500")
    assert told.index("lease.move_begun") < told.index("lease.moved")
    pool = yard.json("status")["pool"]
    assert (pool["target_ppm"], pool["moves_done"], pool["moves_on_the_way"]) == (750_000, 1, 0)
    assert "target 75 %" in yard.run("status")

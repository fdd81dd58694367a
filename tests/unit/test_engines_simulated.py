"""The simulated runtime's own doors."""

from __future__ import annotations

import time

import pytest

from gpuyard.engines.runtime import Unit, UnitState
from gpuyard.engines.simulated import SimulatedRuntime

SECOND_NS = 1_000_000_000


class HandClock:
    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.at_ns = SECOND_NS

    def now_us(self) -> int:
        return self.at_ns // 1000

    def monotonic_ns(self) -> int:
        return self.at_ns


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def runtime(clock: HandClock) -> SimulatedRuntime:
    return SimulatedRuntime(clock)


def unit(name: str, *command: str) -> Unit:
    return Unit(name, f"d-{name}", "t", command, "any", {}, {}, (), (), None, 1000, 1 << 30, (), True)


def test_a_sleep_ends_on_the_nanosecond_however_late_one_looks(runtime: SimulatedRuntime, clock: HandClock) -> None:
    runtime.start(unit("nap", "sleep", "30"))
    clock.at_ns += 100 * SECOND_NS
    ended = runtime.observe()["nap"]
    assert (ended.state, ended.proven_ns, ended.exit_code) == (UnitState.EXITED, 31 * SECOND_NS, 0)


def test_a_unit_is_created_until_its_start_delay_is_over(clock: HandClock) -> None:
    runtime = SimulatedRuntime(clock, start_delay_us=2_000_000)
    runtime.start(unit("slow", "serve"))
    assert runtime.observe()["slow"].state is UnitState.CREATED
    clock.at_ns += 2 * SECOND_NS
    running = runtime.observe()["slow"]
    assert (running.state, running.started_ns) == (UnitState.RUNNING, 3 * SECOND_NS)


def test_a_unit_stopped_before_it_began_never_started(clock: HandClock) -> None:
    runtime = SimulatedRuntime(clock, start_delay_us=2_000_000)
    runtime.start(unit("slow", "serve"))
    runtime.stop("slow", 0)
    ended = runtime.observe()["slow"]
    assert (ended.reason, ended.started_ns, ended.exit_code) == ("stopped", None, None)


def test_finish_crash_and_lose_end_units_as_they_say(runtime: SimulatedRuntime, clock: HandClock) -> None:
    for name in ("finished", "crashed", "lost"):
        runtime.start(unit(name, "serve"))
    clock.at_ns += SECOND_NS
    runtime.observe()
    clock.at_ns += SECOND_NS
    runtime.lose("lost")
    runtime.finish("finished", 3)
    runtime.crash("crashed")
    seen = runtime.observe()
    told = {name: (each.reason, each.exit_code, each.recorded, each.proven_ns) for name, each in seen.items()}
    assert told == {
        "finished": ("exited", 3, True, 3 * SECOND_NS),
        "crashed": ("killed", 137, True, 3 * SECOND_NS),
        "lost": ("supervisor_lost", None, False, 2 * SECOND_NS),
    }


def test_another_boot_loses_every_unit_at_its_last_sign_of_life(runtime: SimulatedRuntime, clock: HandClock) -> None:
    runtime.start(unit("old", "serve"))
    runtime.observe()
    clock.boot_id, clock.at_ns = "boot-2", 5
    ended = runtime.observe()["old"]
    assert (ended.reason, ended.boot_id, ended.proven_ns) == ("supervisor_lost", "boot-1", SECOND_NS)


def test_two_thousand_units_are_cheap(runtime: SimulatedRuntime) -> None:
    began = time.process_time()
    for number in range(2000):
        runtime.start(unit(f"u-{number}", "serve"))
    assert len(runtime.observe()) == 2000
    assert time.process_time() - began < 1

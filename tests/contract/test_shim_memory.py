"""The shim and the ledger over the emulated driver: no program holds more than its slice, whatever way it goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.slicing.ledger import usage
from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant

LIMIT = 2048 * MIB
CONTEXT = 400 * MIB
WAYS = ["plain", "pitch", "managed", "array", "vmm", "async", "async_ptsz", "pool"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


@pytest.fixture
def shop(tmp_path: Path, program: Path) -> Iterator[Shop]:
    with Machine("2xRTX4090") as machine:
        shop = Shop(machine, tmp_path / "slices", program)
        yield shop
        shop.close()


def until(holds: object, seconds: float = 5) -> float:
    begun = time.monotonic()
    while not holds():  # type: ignore[operator]
        assert time.monotonic() - begun < seconds
        time.sleep(0.01)
    return time.monotonic() - begun


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_allocate_stops_at_the_limit_and_gives_all_of_it_back(shop: Shop, way: str) -> None:
    block = 64 * MIB
    fits = (LIMIT - CONTEXT) // block
    told = shop.run(shop.cut("a", LIMIT), "fill", way, block).splitlines()
    assert told == [f"granted {fits} then 2", f"free {LIMIT - CONTEXT} total {LIMIT}", f"again {fits} then 2"]
    assert shop.machine.card(0).peak_bytes <= LIMIT
    assert shop.machine.card(0).used_bytes == 0


def test_a_program_sees_its_slice_and_not_the_card(shop: Shop) -> None:
    told = shop.run(shop.cut("a", LIMIT), "info")
    assert told.startswith(f"free {LIMIT - CONTEXT} total {LIMIT} device {LIMIT}")


def test_two_programs_of_one_slice_share_its_memory(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    first = shop.start(environment, "hold", 600 * MIB)
    assert first.stdout is not None
    assert first.stdout.readline() == "holding\n"
    told = shop.run(environment, "fill", "plain", 64 * MIB).splitlines()
    assert told[0] == f"granted {(LIMIT - 2 * CONTEXT - 600 * MIB) // (64 * MIB)} then 2"


def test_slices_of_one_card_know_nothing_of_each_other(shop: Shop) -> None:
    first = shop.start(shop.cut("a", LIMIT), "hold", 1024 * MIB)
    assert first.stdout is not None
    first.stdout.readline()
    assert shop.run(shop.cut("b", LIMIT), "info").startswith(f"free {LIMIT - CONTEXT} total {LIMIT}")


def test_sixteen_programs_at_once_never_hold_a_byte_too_much(shop: Shop) -> None:
    limit = 8192 * MIB
    environment = shop.cut("a", limit)
    running = [shop.start(environment, "churn", seed, 1500) for seed in range(16)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    assert 0 < shop.machine.card(0).peak_bytes <= limit
    shop.keeper.reap()
    assert usage(shop.keeper._root / "a" / "ledger").used_bytes[0] == 0


def test_what_a_killed_program_held_is_free_again_within_a_second(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    held = shop.start(environment, "hold", 1024 * MIB)
    assert held.stdout is not None
    held.stdout.readline()
    held.kill()
    held.wait()
    assert until(lambda: shop.keeper.reap() or True) < 1
    assert shop.keeper.usage("a").used_bytes[0] == 0  # type: ignore[union-attr]
    fits = (LIMIT - CONTEXT) // (64 * MIB)
    assert shop.run(environment, "fill", "plain", 64 * MIB).startswith(f"granted {fits} ")


def test_without_the_yard_the_next_program_reaps_the_dead_itself(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    for _ in range(3):
        held = shop.start(environment, "hold", 1024 * MIB)
        assert held.stdout is not None
        held.stdout.readline()
        held.kill()
        held.wait()
    assert shop.run(environment, "fill", "plain", 64 * MIB).startswith(f"granted {(LIMIT - CONTEXT) // (64 * MIB)} ")


def test_a_stopped_program_keeps_what_it_holds(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    held = shop.start(environment, "hold", 1024 * MIB)
    assert held.stdout is not None
    held.stdout.readline()
    os.kill(held.pid, signal.SIGSTOP)
    shop.keeper.reap()
    fits = (LIMIT - 2 * CONTEXT - 1024 * MIB) // (64 * MIB)
    assert shop.run(environment, "fill", "plain", 64 * MIB).startswith(f"granted {fits} ")


def test_a_child_of_fork_holds_nothing_of_its_parents(shop: Shop) -> None:
    parent = shop.start(shop.cut("a", LIMIT), "fork", 1024 * MIB)
    assert parent.stdout is not None
    assert {parent.stdout.readline().split()[0] for _ in range(2)} == {"child", "parent"}
    parent.wait()
    until(lambda: shop.keeper.reap() is not None and shop.keeper.usage("a").used_bytes[0] == 0)  # type: ignore[union-attr]


def test_contexts_are_charged_before_they_are_made(shop: Shop) -> None:
    assert shop.run(shop.cut("a", LIMIT), "contexts", 9) == f"contexts {LIMIT // CONTEXT} then 2"


def test_memory_that_is_released_and_still_mapped_stays_charged(shop: Shop) -> None:
    told = shop.run(shop.cut("a", LIMIT), "mapped", 256 * MIB).splitlines()
    assert told == [f"released and mapped: used {CONTEXT + 256 * MIB}", f"unmapped: used {CONTEXT}"]


def test_a_driver_that_is_out_of_memory_below_the_limit_is_rolled_back_exactly(shop: Shop) -> None:
    environment = shop.cut("a", LIMIT)
    shop.machine.inject("cuMemAlloc_v2", result=2, skip=3, times=5)
    told = shop.run(environment, "fill", "plain", 64 * MIB).splitlines()
    assert told[0] == "granted 3 then 2"
    assert told[1] == f"free {LIMIT - CONTEXT} total {LIMIT}"


def test_another_card_than_ones_own_cannot_be_used(shop: Shop) -> None:
    other = {**shop.cut("a", LIMIT, card=1)}
    process = shop.start(other, "info")
    out, _ = process.communicate(timeout=30)
    assert "context failed: 800" in out


def test_a_slice_is_found_by_uuid_however_devices_are_numbered(shop: Shop) -> None:
    environment = {**shop.cut("a", LIMIT, card=1), "CUDA_VISIBLE_DEVICES": "1,0"}
    assert shop.run(environment, "info").startswith(f"free {LIMIT - CONTEXT} total {LIMIT}")

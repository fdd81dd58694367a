"""Where programs find the driver past the library path, the shim is given to them before anything else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuyard.slicing.trial import try_cards, try_ways
from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant

pytest_plugins = ["gpuyard.testing.fixtures"]


@pytest.fixture
def shop(fake_driver: Callable[..., Machine], tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(fake_driver(), tmp_path / "slices", compile_tenant(tmp_path))
    yield shop
    shop.close()


@pytest.fixture
def wrapper(shop: Shop, tmp_path: Path) -> str:
    """Python as a wrapper starts it that sets the library path anew, as environment modules do."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={shop.machine.libraries} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_where_the_library_path_holds_nothing_is_preloaded(shop: Shop) -> None:
    uuids = [card.uuid for card in shop.machine.cards]
    assert list(try_ways(shop.keeper, uuids).values()) == [None]
    assert "LD_PRELOAD" not in shop.cut("s", 1024 * MIB)


def test_where_it_does_not_the_shim_is_preloaded_and_holds(shop: Shop, wrapper: str) -> None:
    uuids = [card.uuid for card in shop.machine.cards]
    (why,) = try_cards(shop.keeper, uuids, wrapper).values()
    assert why is not None
    assert list(try_ways(shop.keeper, uuids, wrapper).values()) == [None]
    given = shop.cut("s", 1024 * MIB)
    assert "libcuda.so.1" in given["LD_PRELOAD"]
    around = {**given, "LD_LIBRARY_PATH": str(shop.machine.libraries)}
    assert f"total {1024 * MIB}" in shop.run(around, "info")


def test_a_program_with_the_driver_in_its_own_library_path_is_held_when_preloaded(shop: Shop, tmp_path: Path) -> None:
    source = Path(__file__).with_name("tenant.c")
    path = tmp_path / "linked"
    rpath = f"-Wl,--disable-new-dtags,-rpath,{shop.machine.libraries}"
    subprocess.run(["cc", "-w", "-o", path, source, rpath, "-ldl", "-lpthread"], check=True)
    given = shop.cut("s", 1024 * MIB)
    shop.program = path
    assert f"total {1024 * MIB}" not in shop.run(given, "info")  # the library path alone does not hold it
    shop.keeper.preload = True
    assert f"total {1024 * MIB}" in shop.run(shop.cut("t", 1024 * MIB), "info")


def test_programs_without_cuda_run_on_with_it(shop: Shop) -> None:
    shop.keeper.preload = True
    given = shop.cut("s", 1024 * MIB)
    done = subprocess.run(["sh", "-c", "echo fine | cat"], env=given, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_where_neither_way_holds_neither_is_claimed(shop: Shop, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nLD_PRELOAD= LD_LIBRARY_PATH={shop.machine.libraries} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    (why,) = try_ways(shop.keeper, [shop.machine.cards[0].uuid], str(script)).values()
    assert why is not None
    assert not shop.keeper.preload

"""Escape is noticed whatever way it goes: without our library, with a driver of its own, without any driver at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuyard.slicing import escape
from gpuyard.slicing.device_files import openers
from gpuyard.slicing.escape import Stranger, strangers
from gpuyard.slicing.ledger import Holder, namespace_of, start_time_of
from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant

LIMIT = 2048 * MIB
DEVICE = "/dev/full"  # stands in for the compute device: a character device that no program opens by chance


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


@pytest.fixture
def shop(tmp_path: Path, program: Path) -> Iterator[Shop]:
    with Machine("1xRTX4090") as machine:
        shop = Shop(machine, tmp_path / "slices", program)
        yield shop
        shop.close()


def unit(shop: Shop, lease: str) -> dict[str, str]:
    return {**shop.cut(f"{lease}-1", LIMIT), "GPUYARD_LEASE": lease, "GPUYARD_ATTEMPT": "1"}


def holding(shop: Shop, environment: dict[str, str], mib: int) -> int:
    process = shop.start(environment, "hold", mib * MIB)
    assert process.stdout is not None
    assert process.stdout.readline(), "it could not hold that"
    return process.pid


def private_driver(shop: Shop, environment: dict[str, str], folder: Path) -> dict[str, str]:
    """By a path of its own, under another name, with nothing set in the environment."""
    own = folder / "libmine.so"
    shutil.copy(shop.cuda, own)
    return {**environment, "TENANT_DRIVER": str(own)}


def path_set_anew(shop: Shop, environment: dict[str, str], folder: Path) -> dict[str, str]:
    return {**environment, "LD_LIBRARY_PATH": str(shop.cuda.parent)}


def preload_unset(shop: Shop, environment: dict[str, str], folder: Path) -> dict[str, str]:
    shop.keeper.preload = True
    preloaded = {**unit(shop, "rogue"), "LD_LIBRARY_PATH": str(shop.cuda.parent)}
    assert preloaded.pop("LD_PRELOAD")
    return preloaded


@pytest.mark.parametrize("around", [private_driver, path_set_anew, preload_unset], ids=lambda way: way.__name__)
def test_row_23_a_program_that_goes_around_the_library_is_seen_and_no_honest_one(
    shop: Shop, tmp_path: Path, around: Callable[[Shop, dict[str, str], Path], dict[str, str]]
) -> None:
    holding(shop, unit(shop, "good"), 512)
    rogue = holding(shop, around(shop, unit(shop, "rogue"), tmp_path), 768)
    (found,) = shop.keeper.strangers()
    assert (found.unit, found.pid, found.card_uuid) == ("rogue-1", rogue, shop.machine.cards[0].uuid)
    assert (found.used_bytes or 0) >= 768 * MIB
    assert found.end()
    shop.running[-1].wait(10)
    assert shop.keeper.strangers() == ()


def raw(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A program that has the device open and no library of any driver."""
    ready = subprocess.Popen(
        ["sh", "-c", f"exec 7<>{DEVICE}; echo; sleep 600"], env=environment, stdout=subprocess.PIPE
    )
    assert ready.stdout is not None
    ready.stdout.readline()
    return ready


def test_row_23_a_program_that_opens_the_device_itself_is_seen_though_nvml_is_silent(shop: Shop) -> None:
    environment = unit(shop, "rogue")
    outside = {name: value for name, value in environment.items() if name != "GPUYARD_LEASE"}
    with raw(environment) as rogue, raw(outside) as stranger:
        opened = openers({"rogue-1"}, (DEVICE,))
        started = start_time_of(rogue.pid) or 0
        assert rogue.pid in opened
        assert stranger.pid not in opened  # programs outside of the yard are not judged
        found = {each.pid: each for each in strangers([], [], {"rogue-1"}, opened)}
        assert found[rogue.pid] == Stranger(None, rogue.pid, None, "rogue-1", started)
        honest = Holder(rogue.pid, started, namespace_of() or 0, (0,))  # as one that came through our library
        assert rogue.pid not in {each.pid for each in strangers([], [honest], {"rogue-1"}, opened)}
        assert openers({"another-1"}, (DEVICE,)) == frozenset()
        for process in (rogue, stranger):
            subprocess.run(["pkill", "-9", "-P", str(process.pid)], check=False)
            process.kill()


@pytest.mark.parametrize(("device", "tells"), [("/dev/full", True), ("/dev/null", False)])
def test_an_open_device_tells_nothing_where_nvml_has_it_open_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, device: str, tells: bool
) -> None:
    monkeypatch.setattr(escape, "COMPUTE_DEVICES", (device,))
    with Path("/dev/null").open() as file:  # as an NVML that keeps it open
        real = escape.subprocess.run
        monkeypatch.setattr(escape.subprocess, "run", lambda *a, **k: real(*a, stdin=file, **k))
        environment = {**shop.keeper.driver.variables(), "LD_LIBRARY_PATH": str(shop.cuda.parent)}
        look = escape.card_look(environment)
    assert (look.device_tells, look.uses) == (tells, ())


def test_without_the_device_nobody_has_it_open() -> None:
    assert openers({"rogue-1"}, ("/dev/no-such-device", __file__)) == frozenset()
    assert os.getpid() not in openers({""}, ("/dev/no-such-device",))

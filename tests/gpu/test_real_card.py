"""On a machine with an NVIDIA card: what only the real driver can answer. `make gpu-check` runs this."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import pytest

from gpuyard.hardware.nvidia import NvidiaProbe
from gpuyard.model.fleet import Card

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cards() -> list[Card]:
    found = [card for node in NvidiaProbe().probe().nodes for card in node.cards]
    if not found:
        pytest.skip("no NVIDIA card answers here: install its driver")
    return found


def test_every_card_is_known_by_its_uuid_and_model(cards: list[Card]) -> None:
    for card in cards:
        assert card.uuid.startswith("GPU-")
        assert card.memory_bytes > 1 << 30


def test_the_shim_holds_on_every_card(cards: list[Card], tmp_path: Path) -> None:
    from gpuyard.adapters import real_driver
    from gpuyard.slicing.keeper import SliceKeeper
    from gpuyard.slicing.trial import try_cards

    told = try_cards(SliceKeeper(tmp_path / "slices", real_driver()), [card.uuid for card in cards])
    assert set(told.values()) == {None}


def test_the_driver_gives_the_same_address_by_both_ways(cards: list[Card]) -> None:
    driver = ctypes.CDLL("libcuda.so.1")
    address = ctypes.c_void_p()
    assert driver.cuInit(0) == 0
    for name, symbol in (("cuMemAlloc", "cuMemAlloc_v2"), ("cuLaunchKernel", "cuLaunchKernel")):
        assert driver.cuGetProcAddress_v2(name.encode(), ctypes.byref(address), 12000, ctypes.c_uint64(0), None) == 0
        assert address.value == ctypes.cast(getattr(driver, symbol), ctypes.c_void_p).value


def test_what_a_context_takes_is_below_what_is_charged_for_it(cards: list[Card]) -> None:
    import pynvml

    from gpuyard.slicing.keeper import CONTEXT_BYTES

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(cards[0].uuid)
    before = pynvml.nvmlDeviceGetMemoryInfo(handle).used
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    assert driver.cuInit(0) == 0
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    time.sleep(0.5)  # NVML's own sampling
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).used - before <= CONTEXT_BYTES
    driver.cuDevicePrimaryCtxRelease_v2(0)

"""How busy cards are and what they take, by NVML. A card that does not answer is absent, never idle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class CardActivity:
    """A card's utilisation in parts per million of the last sample period, and the memory in use on it."""

    busy_ppm: int
    memory_bytes: int


def nvidia_activity() -> Mapping[str, CardActivity]:
    """Every NVIDIA card of this machine that answers, by UUID."""

    def read(nvml: Any, handle: Any) -> CardActivity:
        busy = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) * 10_000
        return CardActivity(busy, int(nvml.nvmlDeviceGetMemoryInfo(handle).used))

    return _of_each(read)


def nvidia_energy() -> Mapping[str, int]:
    """By UUID the millijoules that cards took since their driver was loaded, by their own counters (since Volta)."""
    return _of_each(lambda nvml, handle: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))


def _of_each(read: Callable[[Any, Any], Read]) -> dict[str, Read]:
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    found: dict[str, Read] = {}
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                value = read(pynvml, handle)
                found[str(pynvml.nvmlDeviceGetUUID(handle))] = value
            except pynvml.NVMLError:
                continue
    except pynvml.NVMLError:
        return found
    finally:
        pynvml.nvmlShutdown()
    return found

"""How busy cards are, by NVML. A card that does not answer is absent, never idle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CardActivity:
    """A card's utilisation in parts per million of the last sample period, and the memory in use on it."""

    busy_ppm: int
    memory_bytes: int


def nvidia_activity() -> Mapping[str, CardActivity]:
    """Every NVIDIA card of this machine that answers, by UUID."""
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    found: dict[str, CardActivity] = {}
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                busy = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) * 10_000
                memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
                found[str(pynvml.nvmlDeviceGetUUID(handle))] = CardActivity(busy, memory)
            except pynvml.NVMLError:
                continue
    except pynvml.NVMLError:
        return found
    finally:
        pynvml.nvmlShutdown()
    return found

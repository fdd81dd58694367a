"""MIG as NVML tells of it: the profiles of a card, where instances of each may lie, and those that are there; and
making and removing them, which needs root and a card without work."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gpuyard.model.mig import MigCard, MigPlace, MigProfile
from gpuyard.model.units import MIB

if TYPE_CHECKING:
    from types import ModuleType

_PROFILES: Final = 32  # more numbers than NVML has profiles; those that it lacks refuse
_INSTANCES: Final = 16


def read(nvml: ModuleType, handle: Any) -> MigCard | None:
    """The card's MIG side; None where it has none. Raises NVMLError where the card is lost meanwhile."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return None
    profiles = tuple(filter(None, (_profile(nvml, handle, number) for number in range(_PROFILES))))
    if not profiles:
        return None
    taken: list[MigPlace] = []
    if current:
        for profile in profiles:
            for instance in _instances(nvml, handle, profile.id):
                where = nvml.nvmlGpuInstanceGetInfo(instance).placement
                taken.append(MigPlace(profile.id, int(where.start), int(where.size)))
    return MigCard(str(nvml.nvmlDeviceGetUUID(handle)), bool(current), profiles, tuple(taken))


def make(nvml: ModuleType, handle: Any, places: Sequence[MigPlace]) -> None:
    """Makes these GPU instances, each exactly where it was planned. Raises NVMLError, and leaves those before."""
    for place in places:
        where = nvml.c_nvmlGpuInstancePlacement_t(place.start, place.size)
        nvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, place.profile_id, ctypes.byref(where))


def remove(nvml: ModuleType, handle: Any, place: MigPlace) -> None:
    """Removes the instance that lies there; none is no error. Raises NVMLError where it is in use."""
    for instance in _instances(nvml, handle, place.profile_id):
        if int(nvml.nvmlGpuInstanceGetInfo(instance).placement.start) == place.start:
            nvml.nvmlGpuInstanceDestroy(instance)


def _profile(nvml: ModuleType, handle: Any, number: int) -> MigProfile | None:
    try:
        info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number, version=2)
        starts, size = _starts(nvml, handle, int(info.id))
    except nvml.NVMLError:
        return None  # this card has no such profile
    name = info.name.decode() if isinstance(info.name, bytes) else str(info.name)
    return MigProfile(
        id=int(info.id),
        name=name.removeprefix("MIG "),
        compute_slices=int(info.sliceCount),
        memory_bytes=int(info.memorySizeMB) * MIB,
        size=size,
        starts=starts,
        most=int(info.instanceCount),
    )


def _starts(nvml: ModuleType, handle: Any, profile_id: int) -> tuple[tuple[int, ...], int]:
    count = ctypes.c_uint(_INSTANCES)
    places = (nvml.c_nvmlGpuInstancePlacement_t * _INSTANCES)()
    nvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile_id, places, ctypes.byref(count))
    found = [places[number] for number in range(count.value)]
    return tuple(int(place.start) for place in found), max((int(place.size) for place in found), default=0)


def _instances(nvml: ModuleType, handle: Any, profile_id: int) -> list[Any]:
    count = ctypes.c_uint(_INSTANCES)
    instances = (nvml.c_nvmlGpuInstance_t * _INSTANCES)()
    nvml.nvmlDeviceGetGpuInstances(handle, profile_id, instances, ctypes.byref(count))
    return [instances[number] for number in range(count.value)]

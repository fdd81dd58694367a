"""MIG as NVML tells of it: the profiles of a card, where instances of each may lie, and those that are there; and
making and removing them, which needs root and a card without work."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from gpuyard.model.mig import MigCard, MigPlace, MigProfile
from gpuyard.model.units import MIB

if TYPE_CHECKING:
    from types import ModuleType

_PROFILES: Final = 32  # more numbers than NVML has profiles; those that it lacks refuse
_INSTANCES: Final = 16


def read(nvml: ModuleType, handle: Any) -> MigCard | None:
    """The card's MIG side; None where it has none. One in MIG mode has no profiles where the driver does not tell them.
    Raises NVMLError where the card is lost meanwhile."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return None
    profiles = tuple(filter(None, (_profile(nvml, handle, number) for number in range(_PROFILES))))
    if not profiles and not current:
        return None
    taken: list[MigPlace] = []
    if current:
        for profile in profiles:
            for instance in _instances(nvml, handle, profile.id):
                where = nvml.nvmlGpuInstanceGetInfo(instance).placement
                taken.append(MigPlace(profile.id, int(where.start), int(where.size)))
    return MigCard(str(nvml.nvmlDeviceGetUUID(handle)), bool(current), profiles, tuple(taken))


def make(nvml: ModuleType, handle: Any, place: MigPlace) -> str:
    """Has a GPU instance exactly there, with one compute instance that has all of it; the UUID of the device that
    programs then see. What is there of it already is kept, so it may be asked again after it was cut short.

    Raises NVMLError where it cannot be made: another instance is in the way, or this user may not.
    """
    instance = _at(nvml, handle, place)
    if instance is None:
        where = nvml.c_nvmlGpuInstancePlacement_t(place.start, place.size)
        instance = nvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, place.profile_id, ctypes.byref(where))
    number = int(nvml.nvmlGpuInstanceGetInfo(instance).id)
    uuid = _device(nvml, handle, number)
    if uuid is None:
        nvml.nvmlGpuInstanceCreateComputeInstance(instance, _whole(nvml, handle, instance, place))
        uuid = _device(nvml, handle, number)
    if uuid is None:
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_FOUND)
    return uuid


def remove(nvml: ModuleType, handle: Any, place: MigPlace) -> None:
    """Removes the instance that lies there; none is no error. Raises NVMLError where it is in use."""
    instance = _at(nvml, handle, place)
    if instance is None:
        return
    for profile_id in _compute_profiles(nvml, instance):
        for computing in _compute_instances(nvml, instance, profile_id):
            nvml.nvmlComputeInstanceDestroy(computing)
    nvml.nvmlGpuInstanceDestroy(instance)


def instance_id(nvml: ModuleType, handle: Any, place: MigPlace) -> int | None:
    """The driver's number of the instance that lies exactly there; None where there is none."""
    instance = _at(nvml, handle, place)
    return None if instance is None else int(nvml.nvmlGpuInstanceGetInfo(instance).id)


def _at(nvml: ModuleType, handle: Any, place: MigPlace) -> Any | None:
    for instance in _instances(nvml, handle, place.profile_id):
        if int(nvml.nvmlGpuInstanceGetInfo(instance).placement.start) == place.start:
            return instance
    return None


def _device(nvml: ModuleType, handle: Any, instance: int) -> str | None:
    """The UUID of the device that programs see of a GPU instance; None until something computes in it."""
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:
                continue
            raise
        if int(nvml.nvmlDeviceGetGpuInstanceId(device)) == instance:
            return str(nvml.nvmlDeviceGetUUID(device))
    return None


def _whole(nvml: ModuleType, handle: Any, instance: Any, place: MigPlace) -> int:
    """The kind of compute instance that has all slices of the GPU instance. Raises NVMLError where there is none."""
    slices = {p.id: p.compute_slices for p in filter(None, (_profile(nvml, handle, n) for n in range(_PROFILES)))}
    kinds = _compute_profiles(nvml, instance)
    found = next((number for number, count in kinds.items() if count == slices.get(place.profile_id)), None)
    if found is None:
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
    return found


def _compute_profiles(nvml: ModuleType, instance: Any) -> dict[int, int]:
    """The kinds of compute instances that the GPU instance can have, with their slices."""
    found: dict[int, int] = {}
    for number in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        shared = nvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
        try:
            info = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, shared)
        except nvml.NVMLError:
            continue  # not of this one
        found[int(info.id)] = int(info.sliceCount)
    return found


def _compute_instances(nvml: ModuleType, instance: Any, profile_id: int) -> list[Any]:
    count = ctypes.c_uint(_INSTANCES)
    instances = (nvml.c_nvmlComputeInstance_t * _INSTANCES)()
    nvml.nvmlGpuInstanceGetComputeInstances(instance, profile_id, instances, ctypes.byref(count))
    return [instances[number] for number in range(count.value)]


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
        multiprocessors=int(info.multiprocessorCount),
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

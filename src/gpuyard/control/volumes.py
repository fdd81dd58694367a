"""Encrypted volumes: what tenants ask of them, which workloads wait for a key, and which volumes are open while."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpuyard.control.reading import read
from gpuyard.control.world import World
from gpuyard.control.yard import Yard
from gpuyard.engines.runtime import Observation, UnitState
from gpuyard.engines.volumes.protocol import VolumeId
from gpuyard.hardware.probe import Finding
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease
from gpuyard.model.states import LeaseState
from gpuyard.model.workloads import Desired, Mount, Workload
from gpuyard.store import events, residency, workloads

if TYPE_CHECKING:
    from gpuyard.engines.volumes.protocol import Volumes

log = logging.getLogger(__name__)

_ON_NODE: Final = frozenset({LeaseState.GRANTED, LeaseState.ACTIVE})


@dataclass(frozen=True, slots=True)
class Told:
    """A volume as its tenant sees it. `state`: plain, open, closed (its key is held) or locked."""

    id: VolumeId
    state: str
    used_by: tuple[str, ...]  # names of workloads that are not removed and mount it


def listing(yard: Yard, tenant_id: str) -> list[Told]:
    """The tenant's volumes by name: those that exist, and those that a workload names and has not written yet."""
    sealed = _sealed(yard)
    users = _users(yard, tenant_id)
    plain = yard.engine.volumes.plain(tenant_id) if yard.engine.volumes is not None else frozenset[str]()
    names = {volume.name for volume in sealed if volume.tenant_id == tenant_id} | plain | users.keys()
    return [told(yard, VolumeId(tenant_id, name), users.get(name, ())) for name in sorted(names)]


def told(yard: Yard, volume: VolumeId, used_by: Sequence[str] | None = None) -> Told:
    """One volume now."""
    if used_by is None:
        used_by = _users(yard, volume.tenant_id).get(volume.name, ())
    held = yard.engine.volumes
    if held is None or volume not in held.encrypted():
        state = "plain"
    else:
        state = "open" if held.is_open(volume) else "closed" if held.has_key(volume) else "locked"
    return Told(volume, state, tuple(used_by))


def create(yard: Yard, volume: VolumeId, key: str, actor: str) -> Told:
    """An empty encrypted volume. Its key is held for the unit that is started next.

    Raises YardError `encryption_unavailable`, `volume_exists`, `storage_full` or `volume_failed`.
    """
    _volumes(yard).create(volume, key)
    return _done(yard, volume, actor, "volume.created")


def unlock(yard: Yard, volume: VolumeId, key: str, actor: str) -> Told:
    """Gives the key that units wait for.

    Raises YardError `volume_not_found`, `volume_not_encrypted`, `volume_key_refused`, `encryption_unavailable` or
    `volume_failed`.
    """
    _volumes(yard).unlock(volume, key)
    return _done(yard, volume, actor, "volume.unlocked")


def change_key(yard: Yard, volume: VolumeId, old: str, new: str, actor: str) -> Told:
    """Another key from now on. Raises as `unlock`, and `storage_full`."""
    _volumes(yard).change_key(volume, old, new)
    return _done(yard, volume, actor, "volume.key_changed")


def lock(yard: Yard, volume: VolumeId, actor: str) -> Told:
    """Has the yard forget the key. Raises YardError `volume_in_use` while a unit may use the volume."""
    running = _users(yard, volume.tenant_id, only_wanted=True).get(volume.name, ())
    if running:
        raise YardError("volume_in_use", volume=volume.name, workload=running[0], todo="stop")
    _volumes(yard).lock(volume)
    return _done(yard, volume, actor, "volume.locked")


def remove(yard: Yard, volume: VolumeId, actor: str) -> None:
    """Deletes it with what it holds. Raises YardError `volume_not_found`, `volume_in_use` or `volume_busy`."""
    known = next((one for one in listing(yard, volume.tenant_id) if one.id == volume), None)
    if known is None:
        raise YardError("volume_not_found", volume=volume.name)
    if known.used_by:
        raise YardError("volume_in_use", volume=volume.name, workload=known.used_by[0], todo="remove")
    _volumes(yard).remove(volume)
    with yard.store.write() as c:
        residency.forget(c, volume.tenant_id, [f"volume/{volume.name}"])
        events.append(c, [_event(yard, volume, actor, "volume.removed")])


def must_be_encrypted(yard: Yard, tenant_id: str, mounts: Iterable[Mount]) -> None:
    """Raises YardError `volume_not_encrypted` for a mount that is asked to be and is not."""
    sealed = _sealed(yard)
    for mount in mounts:
        if mount.encrypted and VolumeId(tenant_id, mount.volume) not in sealed:
            raise YardError("volume_not_encrypted", volume=mount.volume)


def ready(yard: Yard, workload: Workload) -> bool:
    """Whether every encrypted volume of a workload that is about to start is open; those that are not are being opened.

    Raises YardError `volume_locked`, or what keeps one from being opened.
    """
    held = yard.engine.volumes
    if held is None:
        return True
    mine = _of(workload) & held.encrypted()
    begun = [held.open_soon(volume) for volume in sorted(mine)]  # each of them, whatever the first one says
    return all(begun)


def locked(yard: Yard, leases: Iterable[Lease], known: Mapping[str, Workload]) -> dict[str, str]:
    """By lease that has no unit yet, the volume whose key the yard lacks."""
    held = yard.engine.volumes
    sealed = held.encrypted() if held is not None else None
    if held is None or not sealed:
        return {}
    found: dict[str, str] = {}
    for lease in leases:
        workload = known.get(lease.workload_id)
        if workload is None or lease.state not in (LeaseState.REQUESTED, LeaseState.GRANTED):
            continue
        for volume in sorted(_of(workload) & sealed):
            if not held.has_key(volume) and not held.is_open(volume):
                found[lease.id] = volume.name
    return found


def held_back(missing: Mapping[str, str], leases: Iterable[Lease]) -> dict[str, Mapping[str, object]]:
    """By waiting lease, the facts of the reason `waiting_for_slices`: no slices are taken up before there is a key."""
    return {
        lease.id: {
            "shortfalls": [{"lacks": "volume_key", "volume": missing[lease.id]}], "more_nodes": 0, "ever": True,
        }
        for lease in leases
        if lease.state is LeaseState.REQUESTED and lease.id in missing
    }  # fmt: skip


def settle(yard: Yard, world: World) -> None:
    """Closes what no unit uses, and tells of mounts that died under a unit."""
    held = yard.engine.volumes
    if held is None or not held.encrypted():
        return
    wanted: set[VolumeId] = set()
    for lease in world.leases:
        workload = world.workloads.get(lease.workload_id)
        if workload is not None and workload.desired is Desired.RUN:
            wanted |= _of(workload)
    died = held.settle(_in_use(world.leases, world.workloads, world.observations), wanted)
    if died:
        log.warning("volumes_died", extra={"volumes": [volume.name for volume in died]})
        with yard.store.write() as c:
            events.append(c, [_event(yard, volume, "yard", "volume.died") for volume in died])


def findings(yard: Yard) -> tuple[Finding, ...]:
    """Whether volumes can be encrypted here."""
    if yard.engine.volumes is None:
        return ()
    reason = yard.engine.volumes.why_not()
    return (Finding("encrypted_volumes", reason is None, {} if reason is None else {"detail": reason}),)


def leave(yard: Yard) -> None:
    """The yard ends: closes what no unit goes on using."""
    held = yard.engine.volumes
    if held is None or not held.encrypted():
        return
    now = read(yard)
    seen, _ = yard.engine.observe()
    held.leave(_in_use(now.leases, now.workloads, seen))


def _in_use(
    leases: Iterable[Lease], known: Mapping[str, Workload], observations: Mapping[str, Observation]
) -> set[VolumeId]:
    """The volumes of units that run, or are about to."""
    found: set[VolumeId] = set()
    for lease in leases:
        workload = known.get(lease.workload_id)
        if workload is None or not workload.spec.mounts:
            continue
        seen = observations.get(lease.unit_name)
        if lease.state in _ON_NODE or (seen is not None and seen.state is not UnitState.EXITED):
            found |= _of(workload)
    return found


def _of(workload: Workload) -> set[VolumeId]:
    return {VolumeId(workload.tenant_id, mount.volume) for mount in workload.spec.mounts}


def _users(yard: Yard, tenant_id: str, only_wanted: bool = False) -> dict[str, list[str]]:
    """By volume, the workloads that mount it; with `only_wanted` those alone that run or are to run."""
    with yard.store.read() as c:
        found = workloads.of_tenant(c, tenant_id)
    users: dict[str, list[str]] = {}
    for workload in found:
        if only_wanted and workload.desired is not Desired.RUN and workload.state.value not in ("stopping", "removing"):
            continue
        for volume in sorted(_of(workload)):
            users.setdefault(volume.name, []).append(workload.name)
    return users


def _sealed(yard: Yard) -> frozenset[VolumeId]:
    return yard.engine.volumes.encrypted() if yard.engine.volumes is not None else frozenset()


def _volumes(yard: Yard) -> Volumes:
    if yard.engine.volumes is None:
        raise YardError("encryption_unavailable", reason="--")
    return yard.engine.volumes


def _done(yard: Yard, volume: VolumeId, actor: str, kind: str) -> Told:
    with yard.store.write() as c:
        events.append(c, [_event(yard, volume, actor, kind)])
    yard.wake.set()
    return told(yard, volume)


def _event(yard: Yard, volume: VolumeId, actor: str, kind: str) -> Event:
    data = {"name": volume.name}
    return Event(kind, f"volume/{volume.name}", yard.clock.now_us(), volume.tenant_id, actor, data)

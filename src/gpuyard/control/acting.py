"""Carries out what a verdict asks of the engine. Every action may be repeated: it looks first."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from gpuyard.control import volumes
from gpuyard.control.residency import settle_data
from gpuyard.control.world import Action, ForgetUnit, RemoveDisks, StartUnit, StopUnit, World
from gpuyard.control.yard import Yard
from gpuyard.engines.runtime import Runtime, Unit, UnitState
from gpuyard.hardware.amd import visible as visible_amd
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.leases import RECLAIMED, Lease
from gpuyard.model.states import WorkloadState
from gpuyard.model.units import SECOND_US
from gpuyard.model.workloads import Workload
from gpuyard.store import events, leases, placements, residency, workloads

log = logging.getLogger(__name__)

RETRY_START_US = 2 * SECOND_US


class Actor:
    """Does the actions of one yard and remembers what could not be started yet."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.start_errors: dict[str, str] = {}
        self._retry_at_us: dict[str, int] = {}
        self._kept: set[str] = set()  # ended units whose workload still stands: their logs are kept

    def act(self, actions: Sequence[Action], world: World, owner: Mapping[str, Runtime]) -> bool:
        """Does each action. Returns whether the world is likely to look different at once."""
        hurried = False
        for action in actions:
            match action:
                case StartUnit(lease):
                    hurried |= self._start(lease, world)
                case StopUnit(name, runtime, grace_us, checkpoint):
                    knows = owner.get(name) or (self.yard.engine.get(runtime) if runtime else None)
                    if knows is not None:
                        knows.stop(name, grace_us, checkpoint)
                case ForgetUnit(name):
                    if name in owner:
                        owner[name].forget(name)
                case RemoveDisks(workload):
                    hurried |= self._remove(workload, world, owner)
        self._forget_the_unknown(world, owner)
        return hurried

    def _start(self, lease: Lease, world: World) -> bool:
        name = lease.unit_name
        if world.now.at_us < self._retry_at_us.get(name, 0):
            return False
        workload = world.workloads[lease.workload_id]
        try:
            settle_data(self.yard, lease, workload)
            if not volumes.ready(self.yard, workload):
                return False
            self.yard.engine.get(workload.runtime).start(self._unit(lease, workload))
        except YardError as error:
            self.start_errors[name] = str(error.params.get("reason", error.code))
            self._retry_at_us[name] = world.now.at_us + RETRY_START_US
            told = {"unit": name, "code": error.code, "params": dict(error.params)}
            log.warning("unit_not_started", extra=told)
            return False
        self.start_errors.pop(name, None)
        self._retry_at_us.pop(name, None)
        return True

    def _unit(self, lease: Lease, workload: Workload) -> Unit:
        spec = workload.spec
        with self.yard.store.read() as c:
            sealed = workloads.sealed(c, workload.id) if spec.secret_names else {}
            placed = placements.of(c, [lease.id]).get(lease.id)
        cards = ",".join(cut.card_uuid for cut in lease.slices)
        simulated = self.yard.simulated_cards
        shape = lease.slices[0].shape if lease.slices else spec.slices.shape  # an instance has more than was asked for
        mine = {
            "GPUYARD_WORKLOAD": workload.name,
            "GPUYARD_WORKLOAD_ID": workload.id,
            "GPUYARD_LEASE": lease.id,
            "GPUYARD_REPLICA": str(lease.replica),
            "GPUYARD_REPLICAS": str(spec.replicas),
            "GPUYARD_ATTEMPT": str(lease.attempt),
            "GPUYARD_CARDS": cards,
            "GPUYARD_SLICE_MEMORY_BYTES": str(shape.memory_bytes if lease.slices else 0),
            "GPUYARD_SLICE_COMPUTE_PPM": str(shape.compute_ppm if lease.slices else 0),
            # Simulated cards do not exist for a driver: the unit must not pick a real one instead.
            "CUDA_VISIBLE_DEVICES": "" if simulated else cards,
            "NVIDIA_VISIBLE_DEVICES": "void" if simulated or not cards else cards,
            **(visible_amd(cut.card_uuid for cut in lease.slices) if cards else {"HIP_VISIBLE_DEVICES": "-1"}),
        }
        if placed is not None and "cpus" in placed.why:
            mine["GPUYARD_CPUS"] = str(placed.why["cpus"])  # nearest to the cards; a hint, for taskset or numactl
        return Unit(
            name=lease.unit_name,
            disk=lease.disk_name,
            tenant_id=lease.tenant_id,
            command=spec.command,
            image=spec.image,
            environment={**spec.environment, **mine},
            secrets=self.yard.sealer.open(sealed),
            mounts=spec.mounts,
            ports=spec.ports,
            working_directory=spec.working_directory,
            cpu_milli=workload.cpu_milli,
            memory_bytes=workload.memory_bytes,
            slices=lease.slices,
            simulated_cards=simulated,
        )

    def _remove(self, workload: Workload, world: World, owner: Mapping[str, Runtime]) -> bool:
        """Units, logs and disks of a workload that is being removed; REMOVED once none of them is left."""
        runtime = self.yard.engine.runtimes.get(workload.runtime)
        if runtime is None:
            return False  # started without this runtime: it waits until the yard has it again
        with self.yard.store.read() as c:
            lease_ids = {lease.id for lease in leases.of_workload(c, workload.id, include_ended=True)}
        for name, observation in world.observations.items():
            if name.rpartition("-")[0] in lease_ids:
                if observation.state is not UnitState.EXITED:
                    runtime.stop(name, 0)
                    return False
                owner[name].forget(name)
                self._kept.discard(name)
        disks = tuple(f"{workload.id}-{replica}" for replica in range(workload.spec.replicas))
        for disk in disks:
            runtime.remove_disk(disk)
        with self.yard.store.write() as c:
            now_us = self.yard.clock.now_us()
            why = RECLAIMED if workload.reason == RECLAIMED else None
            workloads.set_state(c, workload.id, WorkloadState.REMOVED, why, {}, workload.exit_code, now_us)
            residency.forget(c, workload.tenant_id, [f"disk/{disk}" for disk in disks])
            gone = Event("workload.removed", workload.id, now_us, workload.tenant_id, data={"name": workload.name})
            events.append(c, [gone])
        return True

    def _forget_the_unknown(self, world: World, owner: Mapping[str, Runtime]) -> None:
        """Ended units that no workload stands behind any more: a removal that was cut short left them."""
        open_ids = {lease.id for lease in world.leases}
        for name, observation in world.observations.items():
            if observation.state is not UnitState.EXITED or name in self._kept:
                continue
            lease_id = name.rpartition("-")[0]
            if lease_id in open_ids:
                continue
            with self.yard.store.read() as c:
                lease = leases.get(c, lease_id)
                workload = workloads.get(c, lease.workload_id) if lease else None
            if workload is None or workload.state is WorkloadState.REMOVED:
                owner[name].forget(name)
            else:
                self._kept.add(name)

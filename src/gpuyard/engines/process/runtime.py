"""The process runtime: units as processes of this machine, each below a supervisor that outlives the server."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO, Final

from gpuyard.engines.activity import Activity
from gpuyard.engines.interfaces import traffic_of
from gpuyard.engines.process import cgroup, files, groups, launching, logs, ports, processes, sessions
from gpuyard.engines.process.cutting import Cutting
from gpuyard.engines.process.disks import Disks
from gpuyard.engines.process.folders import COMPLAINT, LOG, Facts, UnitFolders
from gpuyard.engines.process.records import Claim, End, Record, Start
from gpuyard.engines.runtime import Isolation, LogLine, Observation, Unit, UnitState
from gpuyard.model.errors import YardError
from gpuyard.model.slices import share_of
from gpuyard.model.times import Clock

if TYPE_CHECKING:
    from gpuyard.slicing.keeper import SliceKeeper
    from gpuyard.slicing.mig_keeper import MigKeeper

HOST_IMAGE: Final = "host"


class ProcessRuntime:
    """Runs units below `root`. Several objects, also of several processes, may share a root: units run once."""

    kind = "process"

    def __init__(self, root: Path, clock: Clock, log_bytes: int = launching.LOG_BYTES) -> None:
        self._root = root.absolute()
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clock = clock
        self._log_bytes = log_bytes
        self._disks = Disks(self._root)
        self._folders = UnitFolders(self._root)
        self._staging = self._root / "staging"
        self._staging.mkdir(mode=0o700, exist_ok=True)
        self._limits = cgroup.find(self._root)
        self._cutting = Cutting()
        self._ended: dict[str, Observation] = {}
        self._spawned: dict[str, subprocess.Popen[bytes]] = {}
        self._complaints: dict[str, str] = {}
        self._lock = RLock()

    def enforce(self, slices: SliceKeeper) -> None:
        """From now on cuts the slices of units that are enforced; gives back those that nobody has."""
        self._cutting.slices = slices
        self._cutting.forget_all_but(frozenset(self._folders.names()))

    def cut_by_mig(self, instances: MigKeeper) -> None:
        """From now on has the MIG instances of units made and removed; removes those that nobody has."""
        self._cutting.instances = instances
        self._cutting.forget_all_but(frozenset(self._folders.names()))

    @property
    def unit_groups(self) -> tuple[Path, Path] | None:
        """Where units have their groups of the unified hierarchy, and where that is mounted; None without."""
        folder = self._limits.unified
        return (Path(folder), Path(self._limits.mount)) if folder else None

    @property
    def isolation(self) -> Isolation:
        """What holds here: limits only where the cgroup controller could be used."""
        controllers = self._limits.controllers
        limits = [f"{name}_limit" for name in ("memory", "cpu", "pids") if name in controllers]
        missing = [f"no_{name}_limit" for name in ("cpu", "pids") if name not in controllers]
        if "memory" not in controllers:
            limits.append("memory_limit_per_process")
        shared = ("same_user", "shared_files", "shared_network", "other_cards", "no_disk_limit", "writable_volumes")
        return Isolation(enforces=("own_session", *limits), not_protected=(*missing, *shared))

    def check_image(self, image: str | None) -> None:
        """A process brings no image of its own.

        Raises YardError `runtime_unavailable` for any but none and "host".
        """
        if image not in {None, HOST_IMAGE}:
            reason = "a process runs this machine's own programs; an image needs the container runtime"
            raise YardError("runtime_unavailable", runtime="process", image=image, reason=reason)

    def start(self, unit: Unit) -> None:
        """Starts a supervisor for the unit, unless the unit was ever begun.

        Raises YardError `engine_failed` where it cannot be started now, `invalid_name` and `runtime_unavailable` for
        what no unit may have.
        """
        self.check_image(unit.image)
        with self._lock:
            self._take_off_spawned()
            if unit.name in self._spawned:
                return
            complaint = self._complaints.pop(unit.name, None)
            if complaint is not None:
                raise YardError("engine_failed", runtime="process", reason=complaint)
            try:
                self._start(unit)
            except OSError as error:
                reason = str(error.strerror or error)
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    reason = f"the disk that holds {self._root} is full"
                raise YardError("engine_failed", runtime="process", reason=reason) from error

    def _start(self, unit: Unit) -> None:
        if not self._folders.exists(unit.name):
            plan = self._limits.plan(unit.name, unit.cpu_milli, unit.memory_bytes)
            chosen = ports.allocate(unit.ports, self._taken_ports()) if unit.ports else {}
            facts = Facts(unit.disk, chosen, tuple(path for path, _ in plan), share_of(unit.slices))
            self._folders.create(unit.name, facts)
        facts, record = self._folders.facts(unit.name), self._folders.record(unit.name)
        if facts is None or record is None:
            return  # forgotten meanwhile
        try:
            if record.claim() is not None:
                return
            try:
                folder = self._disks.prepare(unit.disk, unit.tenant_id, unit.mounts, unit.working_directory)
            except YardError as error:
                if error.code == "volume_locked":  # closed since the yard had it opened: it will be again
                    reason = f"the volume {error.params['volume']} is not open"
                    raise YardError("engine_failed", runtime="process", reason=reason) from error
                self._end_unbegun(record, "start_failed", _detail_of(error))
                return
        finally:
            record.close()
        unit = self._cutting.kept(unit)
        disk = self._disks.path(unit.disk)
        task = launching.task_for(unit, disk, folder, facts.ports, self._limits, self._log_bytes)
        self._spawned[unit.name] = launching.spawn(task, self._folders.path(unit.name))

    def stop(self, name: str, grace_us: int, checkpoint_command: tuple[str, ...] = ()) -> None:
        """Writes the request into the unit's record, where its supervisor finds it whoever is killed meanwhile."""
        with self._lock:
            record = self._folders.record(name)
            if record is None:
                return
            try:
                if record.end() is not None or self._end_unbegun(record, "stopped", ""):
                    return
                if record.stop() is None:
                    record.write_stop(grace_us, checkpoint_command)
            finally:
                record.close()
        sessions.nudge(self._folders.path(name))

    def observe(self) -> Mapping[str, Observation]:
        """Reads the records. A unit that was made but never begun is not told, so that it is started again."""
        self._cutting.reap(self._clock.monotonic_ns())
        with self._lock:
            self._take_off_spawned()
            seen: dict[str, Observation] = {}
            for name in self._folders.names():
                observation = self._ended.get(name) or self._look(name)
                if observation is not None:
                    seen[name] = observation
            self._ended = {name: each for name, each in seen.items() if each.state is UnitState.EXITED}
            self._cutting.end(self._ended, self._folders.names, self._clock.monotonic_ns())
            return seen

    def forget(self, name: str) -> None:
        """Kills what runs of the unit and drops its folder."""
        with self._lock:
            record, facts = self._folders.record(name), self._folders.facts(name)
            if record is not None and facts is not None:
                try:
                    if record.end() is None and not self._end_unbegun(record, "stopped", ""):
                        self._kill(name, record, facts)
                finally:
                    record.close()
            self._take_off_spawned()
            self._folders.remove(name)
            self._cutting.release(name)
            self._ended.pop(name, None)
            self._complaints.pop(name, None)

    def remove_disk(self, disk: str) -> None:
        """Deletes the disk, and the folders of units that were to run on it but never began."""
        with self._lock:
            for name in list(self._folders.names()):
                facts = self._folders.facts(name)
                if facts is not None and facts.disk == disk and self._look(name) is None:
                    self._folders.remove(name)
            self._disks.remove(disk)

    def disks(self) -> frozenset[str]:
        """The folders below `disks`."""
        return self._disks.names()

    def logs(self, name: str, since_us: int | None = None, follow: bool = False) -> AsyncIterator[LogLine]:
        """The lines that are kept: two pieces of `log_bytes` at most."""

        def ended() -> bool:
            observation = self._observe_one(name)
            return observation is None or observation.state is UnitState.EXITED

        return logs.follow(self._folders.path(name) / LOG, since_us, ended, follow)

    async def execute(
        self, name: str, command: tuple[str, ...], terminal: bool, columns: int = 80, rows: int = 24
    ) -> sessions.ExecSession:
        """Has the unit's supervisor run the command, in the unit's environment, folder and limits."""
        observation = await asyncio.to_thread(self._observe_one, name)
        if observation is None or observation.state is not UnitState.RUNNING:
            raise YardError("not_running", workload=name, state=observation.state if observation else "gone")
        return await sessions.open_session(self._folders.path(name), command, terminal, columns, rows)

    def read_files(self, disk: str, name: str | None, path: str) -> Iterator[bytes]:  # noqa: ARG002 - the protocol's
        """A tar stream of a file or folder of the disk."""
        return files.pack(self._disks.confinement(disk), path)

    def write_files(self, disk: str, name: str | None, path: str, tar: BinaryIO) -> None:  # noqa: ARG002
        """Unpacks a tar stream into a folder of the disk."""
        files.unpack(self._disks.confinement(disk), self._staging, path, tar, f"the disk {disk}")

    def activity(self, name: str) -> Activity:
        """CPU time of the unit's processes. The network is the machine's own, where no unit's traffic can be told
        apart: none has more than the whole machine, its loopback included."""
        record, facts = self._folders.record(name), self._folders.facts(name)
        if record is None or facts is None:
            return Activity()
        try:
            start = record.start()
        finally:
            record.close()
        if start is None:
            return Activity()
        pids = groups.members(facts.groups) or {start.child_pid, *processes.descendants(start.child_pid)}
        machine = traffic_of("self", loopback=True)
        network_bytes = None if machine is None else machine.received + machine.sent
        return Activity(cpu_us=processes.cpu_us(pids), network_bytes=network_bytes)

    def _observe_one(self, name: str) -> Observation | None:
        with self._lock:
            return self._ended.get(name) or self._look(name)

    def _look(self, name: str) -> Observation | None:
        """One unit as its record tells it."""
        record, facts = self._folders.record(name), self._folders.facts(name)
        if record is None or facts is None:
            return None
        try:
            claim = record.claim()
            if claim is None:
                begun = name in self._spawned
                return Observation(name, UnitState.CREATED, self._clock.boot_id) if begun else None
            end = record.end()
            if end is None and record.try_lock():
                end = record.end() or self._bury(record, facts, claim.boot_id)
            start = record.start()
            if end is not None:
                return _exited(name, end, start, facts.share_ppm)
            beat = record.beat()
        finally:
            record.close()
        if start is None or beat is None:
            return Observation(name, UnitState.CREATED, claim.boot_id)
        reached = {declared: (ports.HOST, port) for declared, port in facts.ports.items()}
        return Observation(
            name,
            UnitState.RUNNING,
            start.boot_id,
            started_ns=start.started_ns,
            proven_ns=beat[0],
            ports=reached,
            share_ppm=facts.share_ppm,
        )

    def _bury(self, record: Record, facts: Facts, boot_id: str) -> End:
        """The supervisor is gone without a word. Kills what it left and writes down the last sign of life."""
        start, beat = record.start(), record.beat()
        if boot_id == self._clock.boot_id:
            _kill_left(start, facts)
        groups.remove(facts.groups)
        ran_ns = beat[0] if beat else None
        end = End(ran_ns, boot_id, None, "supervisor_lost", "", False)
        record.write_end(end)
        return end

    def _kill(self, name: str, record: Record, facts: Facts) -> None:
        """Ends a unit at once, supervisor first, so that it writes nothing more."""
        spawned = self._spawned.get(name)
        if spawned is not None:
            spawned.kill()
            spawned.wait()
        claim = record.claim()
        if claim is None or claim.boot_id != self._clock.boot_id:
            return
        if not record.try_lock():
            processes.kill_exactly(claim.supervisor_pid, claim.supervisor_ticks)
        _kill_left(record.start(), facts)
        groups.remove(facts.groups)

    def _end_unbegun(self, record: Record, reason: str, detail: str) -> bool:
        """Ends a unit that no supervisor has begun; it never will be. Whether it was so."""
        if record.claim() is not None or not record.try_lock():
            return False
        try:
            if record.claim() is not None:
                return False
            now_ns = self._clock.monotonic_ns()
            record.write_claim(Claim(now_ns, 0, 0, self._clock.boot_id))
            record.write_end(End(now_ns, self._clock.boot_id, None, reason, detail, True))
            return True
        finally:
            record.unlock()

    def _take_off_spawned(self) -> None:
        """Reaps supervisors that have ended, and keeps what one had to say that could not begin."""
        for name, process in list(self._spawned.items()):
            if process.poll() is None:
                continue
            del self._spawned[name]
            if process.returncode > 0 and (record := self._folders.record(name)) is not None:
                unbegun = record.claim() is None
                record.close()
                if unbegun:
                    complaint = (self._folders.path(name) / COMPLAINT).read_text(errors="replace").strip()
                    last = complaint.splitlines()[-1:] or [f"its supervisor ended with {process.returncode}"]
                    self._complaints[name] = last[0]

    def _taken_ports(self) -> set[int]:
        known = (self._folders.facts(name) for name in self._folders.names())
        return {port for facts in known if facts is not None for port in facts.ports.values()}


def _kill_left(start: Start | None, facts: Facts) -> None:
    if facts.groups:
        groups.kill(facts.groups)
    if start is not None:
        processes.kill_left_of_unit(start.child_pid, start.child_ticks, start.mark)


def _exited(name: str, end: End, start: Start | None, share_ppm: int | None) -> Observation:
    # A supervisor that was lost before its first sign of life leaves no proof that the command ever ran.
    began = start is not None and end.reason != "start_failed" and end.at_ns is not None
    return Observation(
        name,
        UnitState.EXITED,
        end.boot_id,
        started_ns=start.started_ns if began and start is not None else None,
        proven_ns=end.at_ns,
        recorded=end.recorded,
        exit_code=end.exit_code,
        reason=end.reason,
        detail=end.detail or None,
        share_ppm=share_ppm,
    )


def _detail_of(error: YardError) -> str:
    """Why a disk could not be prepared, as a detail of start_failed."""
    path = error.params.get("path", "")
    match error.code:
        case "invalid_path":
            return f"the path {path} leads outside the workload's own files"
        case "mount_refused" | "volume_not_encrypted":
            return f"the mount {path} cannot be made: {error.params['reason']}"
        case _:
            return f"{error.code} {dict(error.params)}"

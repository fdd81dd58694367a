"""The container runtime: units are containers of this machine's Podman or Docker."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from gpuyard.engines.activity import Activity
from gpuyard.engines.container import observing
from gpuyard.engines.container.api import EngineApi, EngineGone, EngineRefused
from gpuyard.engines.container.creation import (
    LABEL_ASKED,
    LABEL_BOOT,
    LABEL_DISK,
    LABEL_SHARE,
    LABEL_TENANT,
    LABEL_UNIT,
    LABEL_YARD,
)
from gpuyard.engines.container.images import MayFetch, is_full_reference, is_present
from gpuyard.engines.container.launching import Launcher, remove_container
from gpuyard.engines.container.records import Records, UnitRecord
from gpuyard.engines.container.sightings import Watcher
from gpuyard.engines.container.slices import ContainerSlices, given
from gpuyard.engines.container.stopping import Stopper
from gpuyard.engines.container.storage import Storage
from gpuyard.engines.container.traffic import cpu_us_of
from gpuyard.engines.runtime import Isolation, LogLine, Observation, Session, Unit, UnitState
from gpuyard.hardware.amd import is_amd
from gpuyard.model.errors import YardError
from gpuyard.model.slices import share_of
from gpuyard.model.times import Clock
from gpuyard.slicing.cdi import DriverInside
from gpuyard.slicing.keeper import SliceKeeper

_LAUNCH_WAIT_S: Final = 30.0


class ContainerRuntime:
    """Runs units as containers. Several may share one engine: each sees only what it made."""

    kind = "container"

    def __init__(
        self,
        root: Path,
        clock: Clock,
        socket: Path,
        podman: bool,
        volumes: Path | None = None,
        may_fetch: MayFetch = lambda _: None,
    ) -> None:
        """`root` keeps disks and records, and volumes too unless `volumes` is where other runtimes have them; `podman`
        says which engine listens at `socket`."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._clock = clock
        self._podman = podman
        self._api = EngineApi(socket)
        self._storage = Storage(root, volumes or root / "volumes")
        self._records = Records(root / "units")
        self._yard = _identity(root / "identity")
        self._launcher = Launcher(self._api, podman, self._records, may_fetch)
        self._stopper = Stopper(self._api, clock)
        self._watcher = Watcher(self._api, self._records, self._launcher, clock, self._yard, self._launched)
        self._lock = threading.Lock()
        self._slices: ContainerSlices | None = None

    def enforce(self, keeper: SliceKeeper, driver: DriverInside) -> None:
        """From now on cuts the slices of units whose guarantee is cooperative; gives back those that nobody has."""
        self._slices = ContainerSlices(keeper, driver)
        self._launcher.keeper = keeper
        self._slices.end_all_but(self._records.all())

    @property
    def waits_before_start(self) -> bool:
        """Whether a container's cgroup can be had before its program begins: Podman can, Docker cannot."""
        return self._podman

    @property
    def isolation(self) -> Isolation:
        """What containers isolate here, now, as found and not as hoped."""
        try:
            info: Mapping[str, Any] = self._api.get("/info")
        except (EngineGone, EngineRefused):
            info = {}
        means = self._launcher.means
        enforced = ["own_files", "own_processes", "no_new_privileges", "granted_cards"]
        exposed = ["shared_kernel", "secrets_in_engine", "no_disk_limit"]
        for answer, limit in (
            ("MemoryLimit", "memory_limit"),
            ("CpuCfsQuota", "cpu_limit"),
            ("PidsLimit", "pids_limit"),
        ):
            if info.get(answer):
                enforced.append(limit)
            else:
                exposed.append(f"no_{limit}")
        if means.host_network:
            exposed.append("shared_network")
        else:
            enforced.append("own_network")
            exposed.append("network_between_units")
        if not means.init:
            exposed.append("no_init")
        return Isolation(tuple(enforced), tuple(exposed))

    def check_image(self, image: str | None) -> None:
        """Raises YardError `unknown_image` or `runtime_unavailable` where a unit with this image could not start."""
        if image is None:
            raise YardError("runtime_unavailable", runtime=self.kind, image="--", reason="a container needs an image")
        try:
            present = is_present(self._api, image)
        except EngineGone as error:
            raise YardError("runtime_unavailable", runtime=self.kind, image=image, reason=str(error)) from error
        except EngineRefused:
            present = False
        if not present and not is_full_reference(image):
            raise YardError("unknown_image", image=image, known="--")

    def start(self, unit: Unit) -> None:
        """Starts the unit in the background, or does nothing if a unit of this name was ever started."""
        with self._lock:
            record = self._records.get(unit.name)
            known = record is not None and (record.reason is not None or record.started_ns is not None)
            if known or unit.name in self._launcher.under_way():
                return
            try:
                existing = self._api.inspect(unit.name)
                if existing is None:
                    self._launch(unit)
                elif (existing["Config"].get("Labels") or {}).get(LABEL_YARD) != self._yard:
                    self._cannot_start(unit, f"a container of another owner is named {unit.name}")
                elif record is None:
                    self._records.save(observing.adopted(existing))
            except (EngineGone, EngineRefused, OSError) as error:
                raise self._failed(error) from error

    def _launch(self, unit: Unit) -> None:
        if unit.image is None:
            self._cannot_start(unit, "a container needs an image")
            return
        if any(is_amd(cut.card_uuid) for cut in unit.slices):
            self._cannot_start(unit, "AMD cards are given to plain processes only")
            return
        try:
            binds = self._storage.binds(unit)
            unit = given(self._slices, unit)
        except YardError as error:
            if error.code == "volume_locked":  # closed since the yard had it opened: it will be again
                reason = f"the volume {error.params['volume']} is not open"
                raise YardError("engine_failed", runtime=self.kind, reason=reason) from error
            self._cannot_start(unit, str(error.params.get("reason", error.code)))
            return
        record = self._new_record(unit)
        labels = {
            LABEL_YARD: self._yard,
            LABEL_UNIT: unit.name,
            LABEL_DISK: unit.disk,
            LABEL_TENANT: unit.tenant_id,
            LABEL_BOOT: record.boot_id,
            LABEL_ASKED: str(record.asked_ns),
            LABEL_SHARE: str(record.share_ppm),
        }
        self._launcher.launch(unit, record, labels, binds, self._launched)

    def _new_record(self, unit: Unit) -> UnitRecord:
        record = UnitRecord(
            name=unit.name,
            disk=unit.disk,
            tenant_id=unit.tenant_id,
            boot_id=self._clock.boot_id,
            asked_ns=self._clock.monotonic_ns(),
            share_ppm=share_of(unit.slices),
        )
        before = self._records.get(unit.name)
        if before is not None:
            record.stop_asked, record.stop_deadline_ns = before.stop_asked, before.stop_deadline_ns
        self._records.save(record)
        return record

    def _cannot_start(self, unit: Unit, detail: str) -> None:
        record = self._new_record(unit)
        record.reason, record.detail = "start_failed", detail
        self._records.save(record)

    def _launched(self, name: str) -> None:
        """After a launch: a stop that was asked meanwhile is carried out now."""
        record = self._records.get(name)
        if record is not None and record.stop_asked and record.reason is None:
            self._stopper.stop(record, ())

    def stop(self, name: str, grace_us: int, checkpoint_command: tuple[str, ...] = ()) -> None:
        """Asks the unit to end, in the background; asking again changes nothing; an unknown name is no error."""
        record = self._records.get(name)
        if record is None or record.reason is not None:
            return
        now_ns = self._clock.monotonic_ns()
        asked_before = record.stop_asked and record.boot_id == self._clock.boot_id
        if not asked_before:
            record.stop_deadline_ns = now_ns + grace_us * 1000
            record.stop_asked = True
            self._records.note(record)
        if name not in self._launcher.under_way():
            self._stopper.stop(record, () if asked_before else checkpoint_command)

    def observe(self) -> Mapping[str, Observation]:
        """Every unit that this runtime knows of. While the engine does not answer: as it was last seen."""
        seen = self._watcher.observe()
        if self._slices is not None:
            self._slices.keeper.reap_at(self._clock.monotonic_ns())
            self._slices.end_all_of(name for name, each in seen.items() if each.state is UnitState.EXITED)
        return seen

    def forget(self, name: str) -> None:
        """Drops the record and logs of an ended unit (a running one is killed first). Its disk stays."""
        record = self._records.get(name)
        if record is None:
            return
        record.stop_asked = True
        self._launcher.join(name, _LAUNCH_WAIT_S)
        try:
            container = self._api.inspect(name)
            if container is not None and (container["Config"].get("Labels") or {}).get(LABEL_YARD) == self._yard:
                remove_container(self._api, name)
        except (EngineGone, EngineRefused) as error:
            raise self._failed(error) from error
        if self._slices is not None:
            self._slices.end(name)
        self._watcher.traffic.pop(name, None)
        self._records.drop(name)

    def remove_disk(self, disk: str) -> None:
        """Deletes a disk. An unknown one is no error."""
        self._storage.remove(disk)

    def disks(self) -> frozenset[str]:
        """The disks that exist."""
        return self._storage.disks()

    async def logs(self, name: str, since_us: int | None = None, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines so far; with `follow`, on until the unit has ended. Raises YardError `engine_failed`."""
        from gpuyard.engines.container.logs import lines, lines_of_file

        if self._records.get(name) is None:
            return
        try:
            while follow and self._awaited(name):
                await asyncio.sleep(0.1)
            container = await asyncio.to_thread(self._api.inspect, name)
            if container is None:
                return
            file = Path(container.get("LogPath") or "/")
            if self._podman and file.is_file() and os.access(file, os.R_OK):
                found = lines_of_file(file, since_us, follow, lambda: not self._goes_on(name))
            else:
                found = lines(self._api.socket, name, since_us, follow)
            async for line in found:
                yield line
        except (EngineGone, EngineRefused) as error:
            raise self._failed(error) from error

    def _goes_on(self, name: str) -> bool:
        container = self._api.inspect(name)
        return container is not None and container["State"]["Status"] in observing.RUNNING | observing.NOT_YET

    def _awaited(self, name: str) -> bool:
        """Whether its container is still to come."""
        record = self._records.get(name)
        return record is not None and record.reason is None and name in self._launcher.under_way()

    async def execute(
        self, name: str, command: tuple[str, ...], terminal: bool, columns: int = 80, rows: int = 24
    ) -> Session:
        """Runs a command inside a running unit. Raises YardError `not_running` or `engine_failed`."""
        from gpuyard.engines.container.session import ContainerSession

        seen = (await asyncio.to_thread(self.observe)).get(name)
        if seen is None or seen.state is not UnitState.RUNNING:
            raise YardError("not_running", workload=name, state="--" if seen is None else seen.state.value)
        try:
            return await ContainerSession.open(self._api, name, command, terminal, columns, rows)
        except EngineRefused as error:
            if error.status in (404, 409):
                raise YardError("not_running", workload=name, state=UnitState.EXITED.value) from error
            raise self._failed(error) from error
        except EngineGone as error:
            raise self._failed(error) from error

    def read_files(self, disk: str, name: str | None, path: str) -> Iterator[bytes]:  # noqa: ARG002
        """A tar stream of a file or folder of the disk, also while nothing runs on it.

        Raises YardError `file_not_found` or `invalid_path`.
        """
        return self._storage.read(disk, path)

    def write_files(self, disk: str, name: str | None, path: str, tar: BinaryIO) -> None:  # noqa: ARG002
        """Unpacks a tar stream into a folder of the disk. Raises YardError `invalid_path` or `storage_full`."""
        self._storage.write(disk, path, tar)

    def sent_bytes(self, name: str) -> int | None:
        """What its interfaces sent, as they stood when it was last seen to run: at most a look before it ended."""
        seen = self._watcher.traffic.get(name)
        return None if seen is None else seen.sent

    def activity(self, name: str) -> Activity:
        """CPU time of its control group, and bytes through its own interfaces."""
        record, seen = self._records.get(name), self._watcher.traffic.get(name)
        pid = None if record is None or record.reason is not None else record.pid
        if pid is None:
            return Activity()
        return Activity(cpu_us_of(pid), None if seen is None else seen.received + seen.sent)

    def close(self) -> None:
        """Lets go of the engine; the units run on."""
        self._api.close()

    def _failed(self, error: Exception) -> YardError:
        return YardError("engine_failed", runtime=self.kind, reason=str(error) or type(error).__name__)


def _identity(file: Path) -> str:
    """A name for this yard on an engine that others may use too; kept with the disks."""
    if not file.exists():
        fresh = file.with_suffix(".new")
        fresh.write_text(secrets.token_hex(8))
        fresh.replace(file)
    return file.read_text()

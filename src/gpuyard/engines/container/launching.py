"""Bringing a unit up in the background: image, container, start, and what this machine makes necessary instead.

Every step looks first, so that it may be cut off anywhere and done again. What an engine cannot do here is found out by
its refusal: the container is then made again without it, and later ones are from the start.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from gpuyard.engines.container.api import LIBPOD, EngineApi, EngineGone, EngineRefused
from gpuyard.engines.container.creation import LABEL_PORTS, Bind, Means, docker_body, podman_body, slices_of
from gpuyard.engines.container.images import MayFetch, Puller, library_path
from gpuyard.engines.container.records import Records, UnitRecord
from gpuyard.engines.process.ports import HOST, allocate
from gpuyard.engines.runtime import Unit
from gpuyard.model.errors import YardError
from gpuyard.slicing.keeper import LIBRARIES_INSIDE, SliceKeeper

_AT_ONCE: Final = 4  # an engine starts containers no faster for being asked for more of them

# How refusals begin that are about the machine. Matched at the beginning only: further on, a refusal quotes commands,
# users and paths that tenants and their images choose, and those must not talk the yard out of a network of their own.
_NO_INIT: Final = re.compile(
    r"(container create: )?container-init binary not found|.*exec: \"docker-init\": executable file not found"
)
_NO_LIMITS: Final = re.compile(
    r"(crun|runc): (setrlimit|runc create failed: unable to start container process: error during container init: "
    r"error setting rlimit)"
)
_NO_NETWORK: Final = re.compile(
    r"netavark|plugin type=|cni plugin|error configuring network namespace|failed to find plugin|"
    r"slirp4netns|pasta failed|could not find (pasta|slirp4netns)|failed to create endpoint|"
    r"failed to set up container networking: (?!.*port is already allocated)|unable to find network"
)


class Launcher:
    """Starts units of one yard on one engine."""

    def __init__(self, api: EngineApi, podman: bool, records: Records, may_fetch: MayFetch) -> None:
        self.means = Means()
        self.keeper: SliceKeeper | None = None  # of slices, where any are enforced
        self._api = api
        self._podman = podman
        self._records = records
        self._puller = Puller(api, may_fetch)
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._under_way: dict[str, str | None] = {}
        self._threads: dict[str, threading.Thread] = {}

    def under_way(self) -> dict[str, str | None]:
        """The units that are being brought up, each with how far its image is fetched, if that is what it waits for."""
        with self._lock:
            return dict(self._under_way)

    def launch(
        self, unit: Unit, record: UnitRecord, labels: dict[str, str], binds: list[Bind], then: Callable[[str], None]
    ) -> None:
        """Makes and starts the container; `then` is called once it runs."""

        def work() -> None:
            self._puller.ensure(str(unit.image), lambda text: self._say(unit.name, text))
            self._say(unit.name, None)
            with self._slots:
                if not record.stop_asked:
                    self._create_and_start(self._shim_first(unit), record, labels, binds)

        self._in_background(record, work, then)

    def resume(self, record: UnitRecord, then: Callable[[str], None]) -> None:
        """Starts a container that was made and not started: whoever made it was killed in between."""

        def work() -> None:
            with self._slots:
                self._start(record.name)

        self._in_background(record, work, then)

    def join(self, name: str, timeout_s: float) -> None:
        """Waits until that unit is not being brought up any more."""
        with self._lock:
            thread = self._threads.get(name)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _in_background(self, record: UnitRecord, work: Callable[[], None], then: Callable[[str], None]) -> None:
        name = record.name

        def run() -> None:
            try:
                work()
            except EngineRefused as error:
                self._failed(record, error.message)
            except EngineGone:
                return  # the unit is not there: it will be started again
            finally:
                with self._lock:
                    self._under_way.pop(name, None)
                    self._threads.pop(name, None)
            then(name)

        thread = threading.Thread(target=run, name=f"launch-{name}", daemon=True)
        with self._lock:
            if name in self._under_way:
                return
            self._under_way[name] = None
            self._threads[name] = thread
        thread.start()

    def _say(self, name: str, text: str | None) -> None:
        with self._lock:
            if name in self._under_way:
                self._under_way[name] = text

    def _failed(self, record: UnitRecord, message: str) -> None:
        record.reason, record.detail = "start_failed", message[:300]
        self._records.note(record)
        remove_container(self._api, record.name)

    def _shim_first(self, unit: Unit) -> Unit:
        """The unit with our libraries before those that its image brings (a driver of its own, by some images)."""
        if not slices_of(unit):
            return unit
        theirs = unit.environment.get("LD_LIBRARY_PATH") or library_path(self._api, str(unit.image))
        path = f"{LIBRARIES_INSIDE}:{theirs}" if theirs else str(LIBRARIES_INSIDE)
        return replace(unit, environment={**unit.environment, "LD_LIBRARY_PATH": path})

    def _create_and_start(self, unit: Unit, record: UnitRecord, labels: dict[str, str], binds: list[Bind]) -> None:
        refusals: set[str] = set()
        while True:
            tried = self.means
            try:
                self._create(unit, record, labels, binds, tried)
                if not record.stop_asked:
                    self._start(unit.name)
                return
            except EngineRefused as error:
                weaker = lesser(tried, error.message)
                if weaker is None:
                    raise
                remove_container(self._api, unit.name)
                if weaker.host_network and not tried.host_network and "network" not in refusals:
                    refusals.add("network")  # once may be a hiccup, and what is given up here is an isolation
                    continue
                self.means = weaker

    def _start(self, name: str) -> None:
        """Begins the container's program: after the driver was told what memory it may have, where that must be so."""
        if self.keeper is not None and self.keeper.waits_for_limits(name):
            path = f"{LIBPOD}/containers/{quote(name)}"
            if self._api.get(f"{path}/json")["State"]["Status"] != "initialized":
                self._api.post(f"{path}/init")  # with its processes' cgroup, and nothing of the image run yet
            try:
                self.keeper.limit_container(name, int(self._api.get(f"{path}/json")["State"]["Pid"]))
            except YardError as error:
                raise EngineRefused(503, str(error.params["reason"])) from error
        self._api.post(f"/containers/{quote(name)}/start")

    def _create(self, unit: Unit, record: UnitRecord, labels: dict[str, str], binds: list[Bind], means: Means) -> None:
        allocated = self._host_ports(unit) if means.host_network else {}
        record.ports = {str(port): (HOST, number) for port, number in allocated.items()}
        labels = {**labels, LABEL_PORTS: ",".join(f"{port}:{allocated.get(port, '')}" for port in unit.ports)}
        try:
            if self._podman:
                body = podman_body(unit, labels, binds, means, allocated)
                self._api.post(f"{LIBPOD}/containers/create", body)
            else:
                body = docker_body(unit, labels, binds, means, allocated)
                self._api.post("/containers/create", body, name=unit.name)
        except EngineRefused as error:
            taken = error.status == 409 or "already in use" in error.message
            if not taken or self._api.inspect(unit.name) is None:
                raise

    def _host_ports(self, unit: Unit) -> dict[int, int]:
        others = (record for record in self._records.all().values() if record.reason is None)
        try:
            return allocate(unit.ports, {number for record in others for _, number in record.ports.values()})
        except YardError as error:
            raise EngineRefused(500, str(error.params.get("reason"))) from error


def remove_container(api: EngineApi, name: str) -> None:
    """Removes it with its own anonymous volumes, killed where it runs. An unknown one is no error."""
    with contextlib.suppress(EngineRefused):  # it does not run; else a removal by force would first ask it nicely
        api.post(f"/containers/{quote(name)}/kill", signal="SIGKILL")
    try:
        api.delete(f"/containers/{quote(name)}", force="1", v="1")
    except EngineRefused as error:
        if error.status != 404:
            raise


def lesser(means: Means, message: str) -> Means | None:
    """What to try instead, if the refusal is about something that can be gone without; None otherwise."""
    text = message.lower()
    if means.init and _NO_INIT.match(text):
        return replace(means, init=False)
    if not means.small_limits and _NO_LIMITS.match(text):
        return replace(means, small_limits=True)
    if not means.host_network and _NO_NETWORK.match(text):
        return replace(means, host_network=True)
    return None

"""The local engine: the runtimes of this machine, and which of them runs what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpuyard.engines.activity import Activity, Sending, Watched
from gpuyard.engines.runtime import Isolation, Observation, Runtime
from gpuyard.hardware.probe import Finding
from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from gpuyard.engines.volumes.protocol import Volumes
    from gpuyard.model.mig import MigPlace
    from gpuyard.slicing.escape import Stranger
    from gpuyard.slicing.kernel_units import LimitChange
    from gpuyard.slicing.mps import Restart

HOST_IMAGE = "host"


class LocalEngine:
    """Picks a runtime for each workload and looks at all of them at once.

    `default` serves workloads without an image; one with an image goes to the container runtime.
    """

    def __init__(self, runtimes: Mapping[str, Runtime], default: str) -> None:
        self.runtimes = dict(runtimes)
        self.default = default
        # By runtime, the cards on which our library was seen to keep units to their slices.
        self.shim_cards: dict[str, frozenset[str]] = {}
        self.mps_cards: dict[str, frozenset[str]] = {}  # those on which MPS was seen to hold them besides
        self.kernel_cards: dict[str, frozenset[str]] = {}  # those on which the driver was seen to hold their memory
        self.limit_changes: Callable[[], Sequence[LimitChange]] = tuple  # limits that were not as they should be
        self.multiprocessors: Mapping[str, int] = {}  # of each card, where it matters
        self.lost_limits: Callable[[], frozenset[str]] = frozenset  # cards on which one could not be set again
        # How many of them a unit's slices were given, by card; of cards under MPS alone.
        self.given: Callable[[str], Mapping[str, int]] = lambda _: {}
        self.watch_mps: Callable[[], Sequence[Restart]] = tuple  # looks after MPS's daemons; those that had died
        self.volumes: Volumes | None = None  # those that are encrypted; None: this engine knows none
        self.findings: tuple[Finding, ...] = ()  # what the runtimes found of this machine
        self.strangers: Callable[[], Sequence[Stranger]] = tuple  # who uses a card past its slice, as seen now
        # By card in MIG mode, the instances on it that are not the yard's.
        self.mig_others: Callable[[], Mapping[str, tuple[MigPlace, ...]]] = dict
        # By runtime, the program inside of units that tries what their slices hold.
        self.probes: dict[str, str] = {}
        self.drivers: dict[str, Path] = {}  # by runtime, the folder inside of units with the driver's own libcuda.so.1
        self.trying: set[str] = set()  # units in which a program of ours goes past our library now, to see what holds
        self._isolation: dict[str, Isolation] = {}
        self._closers: list[Callable[[], None]] = []
        self._joining = threading.Lock()
        self._prepare: Callable[[Runtime], None] = lambda _: None

    def shim_on(self, kind: str) -> frozenset[str]:
        """The cards (by UUID) on which our library keeps units of that runtime to their slices."""
        return self.shim_cards.get(kind, frozenset())

    def mps_on(self, kind: str) -> frozenset[str]:
        """The cards (by UUID) on which MPS holds units of that runtime to their slices."""
        return self.mps_cards.get(kind, frozenset())

    def kernel_on(self, kind: str) -> frozenset[str]:
        """The cards (by UUID) on which the driver itself holds units of that runtime to their memory."""
        return self.kernel_cards.get(kind, frozenset()) - self.lost_limits()

    def on_each_runtime(self, prepare: Callable[[Runtime], None]) -> None:
        """Does this with every runtime that is here, and with each that joins later before it runs anything."""
        with self._joining:
            self._prepare = prepare
            for runtime in self.runtimes.values():
                prepare(runtime)

    def add(self, runtime: Runtime, close: Callable[[], None] | None = None) -> None:
        """A runtime that was found after the start; `close` ends what was started for it."""
        with self._joining:
            self._prepare(runtime)
            self.runtimes = {**self.runtimes, runtime.kind: runtime}
        if close is not None:
            self._closers.append(close)

    def close(self) -> None:
        """Ends the services that were started for the runtimes. Units run on, and are found again."""
        while self._closers:
            self._closers.pop()()

    def on_close(self, close: Callable[[], None]) -> None:
        """Does this too when the services end."""
        self._closers.append(close)

    def isolation(self, kind: str) -> Isolation | None:
        """What a runtime isolates, as found when it was first asked; None for one that is not here."""
        runtime = self.runtimes.get(kind)
        if runtime is None:
            return None
        if kind not in self._isolation:
            self._isolation[kind] = runtime.isolation
        return self._isolation[kind]

    def choose(self, requested: str, image: str | None) -> Runtime:
        """The runtime that will run it.

        Raises YardError `runtime_unavailable` or `unknown_image`.
        """
        kind = requested
        if requested == "auto":
            has_image = image is not None and image != HOST_IMAGE
            kind = "container" if has_image and self.default == "process" else self.default
        runtime = self.runtimes.get(kind)
        if runtime is None:
            present = ", ".join(sorted(self.runtimes))
            raise YardError(
                "runtime_unavailable", runtime=kind, image=image or "--", reason=f"this yard has: {present}"
            )
        runtime.check_image(image)
        return runtime

    def get(self, kind: str) -> Runtime:
        """The runtime of that kind.

        Raises YardError `runtime_unavailable` where the yard was started without it.
        """
        if kind not in self.runtimes:
            raise YardError("runtime_unavailable", runtime=kind, image="--", reason="this yard was started without it")
        return self.runtimes[kind]

    def activity(self, kind: str, name: str) -> Activity:
        """What a unit has done so far, as far as its runtime can tell."""
        runtime = self.runtimes.get(kind)
        return runtime.activity(name) if isinstance(runtime, Watched) else Activity()

    def sent_bytes(self, runtime: Runtime, name: str) -> int | None:
        """What a unit has sent, where its runtime can tell."""
        return runtime.sent_bytes(name) if isinstance(runtime, Sending) else None

    def observe(self) -> tuple[dict[str, Observation], dict[str, Runtime]]:
        """Every unit of every runtime, and which runtime knows it."""
        seen: dict[str, Observation] = {}
        owner: dict[str, Runtime] = {}
        for runtime in self.runtimes.values():
            units = runtime.observe()
            seen.update(units)
            owner.update(dict.fromkeys(units, runtime))
        return seen, owner

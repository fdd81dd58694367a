"""The runtimes as cases: one object per kind that makes units, waits for them and cleans up behind itself."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gpuyard.engines.process.runtime import ProcessRuntime
from gpuyard.engines.runtime import Observation, Runtime, Unit, UnitState
from gpuyard.engines.simulated import SimulatedRuntime

DEADLINE_S = 30.0


class RealClock:
    """The machine's own time."""

    def __init__(self, boot_id: str | None = None) -> None:
        self.boot_id = boot_id or Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.at_ns = 1_000_000_000

    def now_us(self) -> int:
        return 1_700_000_000_000_000 + self.at_ns // 1000

    def monotonic_ns(self) -> int:
        return self.at_ns


class RuntimeCase:
    """One kind of runtime under test. `make` gives a new object on the same state, as a restarted server would."""

    def __init__(self, kind: str, make: Callable[[], Runtime], root: Path, image: str | None = None) -> None:
        self.kind = kind
        self.make = make
        self.root = root
        self.image = image
        self.runtime = make()
        self.clock: HandClock | None = None

    def unit(self, name: str, *command: str, **changes: Any) -> Unit:
        """A unit with small limits whose disk is named after it."""
        fields: dict[str, Any] = {
            "name": name,
            "disk": f"disk-{name}",
            "tenant_id": "tenant-a",
            "command": command,
            "image": self.image,
            "environment": {},
            "secrets": {},
            "mounts": (),
            "ports": (),
            "working_directory": None,
            "cpu_milli": 1000,
            "memory_bytes": 256 << 20,
            "slices": (),
            "simulated_cards": True,
        }
        return Unit(**{**fields, **changes})

    def start(self, name: str, *command: str, **changes: Any) -> Observation:
        """Starts a unit and waits until it runs or has ended."""
        self.runtime.start(self.unit(name, *command, **changes))
        return self.until(name, lambda seen: seen.state is not UnitState.CREATED)

    def ended(self, name: str) -> Observation:
        """The unit once it has ended."""
        return self.until(name, lambda seen: seen.state is UnitState.EXITED)

    def until(self, name: str, holds: Callable[[Observation], bool]) -> Observation:
        """The unit once the condition holds. Time passes meanwhile, on a clock that a test owns too."""
        deadline = time.monotonic() + DEADLINE_S
        seen: Mapping[str, Observation] = {}
        while time.monotonic() < deadline:
            seen = self.runtime.observe()
            if name in seen and holds(seen[name]):
                return seen[name]
            self.pass_time()
        raise AssertionError(f"{name} is {seen.get(name)}")

    def pass_time(self) -> None:
        """A moment."""
        if self.clock is not None:
            self.clock.at_ns += 50_000_000
        else:
            time.sleep(0.01)

    def close(self) -> None:
        """Ends and drops everything."""
        for name in self.runtime.observe():
            self.runtime.forget(name)
        for disk in self.runtime.disks():
            self.runtime.remove_disk(disk)


def archive(entries: Mapping[str, bytes | tarfile.TarInfo]) -> io.BytesIO:
    """A tar archive of files with these contents, or of entries as they are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    packed.seek(0)
    return packed


def contents(stream: Iterator[bytes]) -> dict[str, bytes]:
    """The files of a tar stream by name."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        files = ((entry.name, tar.extractfile(entry)) for entry in tar if entry.isreg())
        return {name: file.read() for name, file in files if file is not None}


@pytest.fixture
def pack() -> Callable[[Mapping[str, bytes | tarfile.TarInfo]], io.BytesIO]:
    return archive


@pytest.fixture
def unpacked() -> Callable[[Iterator[bytes]], dict[str, bytes]]:
    return contents


def _process(tmp_path: Path) -> RuntimeCase:
    root = tmp_path / "yard"
    return RuntimeCase("process", lambda: ProcessRuntime(root, RealClock()), root)


def _simulated(tmp_path: Path) -> RuntimeCase:
    clock = HandClock()
    runtime = SimulatedRuntime(clock)
    case = RuntimeCase("simulated", lambda: runtime, tmp_path)
    case.clock = clock
    return case


def _container(tmp_path: Path, request: pytest.FixtureRequest) -> RuntimeCase:
    engine = request.getfixturevalue("container_engine")
    from gpuyard.engines.container.runtime import ContainerRuntime

    root = tmp_path / "yard"

    def make() -> Runtime:
        return ContainerRuntime(root, RealClock(), engine.socket, engine.podman)

    return RuntimeCase("container", make, root, engine.image)


def _case(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> RuntimeCase:
    match kind:
        case "process":
            return _process(tmp_path)
        case "simulated":
            return _simulated(tmp_path)
        case _:
            return _container(tmp_path, request)


_CONTAINER = pytest.param("container", marks=pytest.mark.containers)


@pytest.fixture(params=["process", "simulated", _CONTAINER])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RuntimeCase]:
    """Every runtime."""
    made = _case(request.param, tmp_path, request)
    yield made
    made.close()


@pytest.fixture(params=["process", _CONTAINER])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RuntimeCase]:
    """The runtimes that run commands."""
    made = _case(request.param, tmp_path, request)
    yield made
    made.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RuntimeCase]:
    """The process runtime alone."""
    made = _process(tmp_path)
    yield made
    made.close()

"""The adapters of a yard, picked by what was asked for and by what this machine has."""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpuyard.cli.host import UpOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuyard.control.yard import Yard
    from gpuyard.engines.local import LocalEngine
    from gpuyard.engines.runtime import Runtime
    from gpuyard.engines.volumes.protocol import Volumes
    from gpuyard.hardware.probe import Finding, Probe
    from gpuyard.model.fleet import Card
    from gpuyard.model.times import Clock
    from gpuyard.slicing.cdi import DriverInside
    from gpuyard.slicing.drivers import Driver
    from gpuyard.slicing.keeper import SliceKeeper
    from gpuyard.store.database import Store


def find_probes(options: UpOptions, store: Store) -> tuple[tuple[Probe, ...], bool]:
    """Simulated cards where they are asked for, or were the last time and there are no real ones.

    Raises YardError `no_cards_found`.
    """
    from gpuyard.hardware.fleet_file import load
    from gpuyard.hardware.simulated import SimulatedProbe
    from gpuyard.hardware.this_machine import MachineProbe
    from gpuyard.model.errors import YardError
    from gpuyard.store import meta

    if options.fleet is not None:
        return (SimulatedProbe(load(options.fleet)),), True
    region = _region(options, store)
    spec = options.simulate
    if spec is None:
        real = MachineProbe(region=region)
        report = real.probe()
        if any(node.cards for node in report.nodes):
            return (real,), False
        with store.read() as c:
            spec = meta.get(c, "simulate")
        if spec is None:
            why = (
                ", ".join(finding.name for finding in report.findings if finding.ok is False)
                or "no NVIDIA or AMD driver"
            )
            raise YardError("no_cards_found", reason=why)
    probe = SimulatedProbe.from_spec(spec)
    with store.write() as c:
        meta.put(c, "simulate", spec)
    return (MachineProbe((probe,), region) if region else probe,), True


def _region(options: UpOptions, store: Store) -> str | None:
    """Where this machine stands, as it was told now or the last time: data must not lose their class by a restart."""
    from gpuyard.store import meta

    with store.read() as c:
        known = meta.get(c, "region")
    if options.region is None or options.region == known:
        return known
    with store.write() as c:
        meta.put(c, "region", options.region)
    return options.region


def make_engine(kind: str, root: Path, clock: Clock, may_fetch: Callable[[str], None] = lambda _: None) -> LocalEngine:
    """The runtimes of this machine. `auto` runs plain processes, and images where a container engine answers.

    Raises YardError `runtime_unavailable`.
    """
    from gpuyard.engines.local import LocalEngine

    runtimes: dict[str, Runtime] = {}
    if kind == "simulated":
        from gpuyard.engines.simulated import SimulatedRuntime
        from gpuyard.engines.volumes.simulated import SimulatedVolumes

        runtimes["simulated"] = SimulatedRuntime(clock)
        volumes: Volumes = SimulatedVolumes()
    else:
        from gpuyard.engines.volumes.encrypted import EncryptedVolumes

        volumes = EncryptedVolumes(root / "volumes")
    if kind in {"auto", "process"}:
        from gpuyard.engines.process.runtime import ProcessRuntime

        runtimes["process"] = ProcessRuntime(root, clock)
    engine = LocalEngine(runtimes, "process" if kind == "auto" else kind)
    engine.volumes = volumes
    if kind in {"auto", "container"}:
        _add_container_runtime(engine, root, clock, may_fetch, must=kind == "container")
    return engine


def _add_container_runtime(
    engine: LocalEngine, root: Path, clock: Clock, may_fetch: Callable[[str], None], must: bool
) -> None:
    """The container runtime over the engine that listens here, or over a Podman service of the yard's own where only
    the program is installed. That takes a moment to start: with `must` it is waited for, otherwise it joins later.

    Raises YardError `runtime_unavailable` where it must be here and is not.
    """
    from gpuyard.engines.container.sockets import PrivatePodman, find_socket
    from gpuyard.model.errors import YardError

    folder = root / "container"

    def join() -> bool:
        from gpuyard.engines.container.runtime import ContainerRuntime

        found = find_socket()
        private = None if found is not None else PrivatePodman.available(folder)
        if private is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = private.start()
        if found is None:
            return False
        engine.add(
            ContainerRuntime(folder, clock, found.path, found.podman, volumes=root / "volumes", may_fetch=may_fetch),
            close=private.stop if private is not None else None,
        )
        return True

    if not must:
        threading.Thread(target=join, name="container-engine", daemon=True).start()
    elif not join():
        reason = "neither Podman nor Docker answers on this machine; install one with `apt-get install podman runc`"
        raise YardError("runtime_unavailable", runtime="container", image="--", reason=reason)


def enforce_slices(yard: Yard, state: Path, mps: bool = False, kernel_limits: bool | None = None) -> None:
    """Puts our library between units and the driver, on the cards where it is seen to hold. Where it cannot be had,
    slices are only booked, and the doctor says why. With `mps`, NVIDIA's Multi-Process Service holds them besides. The
    driver's own memory limits hold them wherever that is seen to work, unless `kernel_limits` is False."""
    cards = [card for probe in yard.probes for node in probe.probe().nodes for card in node.cards]
    if not cards or yard.engine.default == "simulated":
        return
    from gpuyard.instances import cut_by_mig
    from gpuyard.limiting import unit_groups
    from gpuyard.slicing.building import PROBE
    from gpuyard.slicing.keeper import DRIVER_INSIDE, LIBRARIES_INSIDE

    tried = try_all(
        cards, state, yard.simulated_cards, yard.engine.default == "container", mps, kernel_limits,
        unit_groups(yard.engine),
    )  # fmt: skip
    yard.engine.findings = tried.findings
    keeper, held, under_mps, by_kernel = tried.keeper, tried.shim, tried.mps, tried.by_kernel
    if keeper is None:
        return
    inside = find_driver_inside(keeper, yard.simulated_cards, held)

    def enforce(runtime: Runtime) -> None:
        from gpuyard.engines.container.runtime import ContainerRuntime
        from gpuyard.engines.process.runtime import ProcessRuntime

        if isinstance(runtime, ProcessRuntime):
            runtime.enforce(keeper)
            yard.engine.shim_cards["process"] = held
            yard.engine.mps_cards["process"] = under_mps
            yard.engine.kernel_cards["process"] = by_kernel
            yard.engine.probes["process"] = str(keeper.libraries / PROBE)
            yard.engine.drivers["process"] = keeper.driver.cuda.parent
        elif isinstance(runtime, ContainerRuntime) and inside is not None:
            runtime.enforce(keeper, inside)
            yard.engine.shim_cards["container"] = held & inside.cards
            yard.engine.mps_cards["container"] = under_mps & inside.cards
            if runtime.waits_before_start:
                yard.engine.kernel_cards["container"] = by_kernel & inside.cards
            yard.engine.drivers["container"] = DRIVER_INSIDE
            yard.engine.probes["container"] = str(LIBRARIES_INSIDE / PROBE)

    yard.engine.strangers = keeper.strangers
    yard.engine.watch_mps = keeper.watch_mps
    if keeper.kernel is not None:
        yard.engine.limit_changes, yard.engine.lost_limits = keeper.kernel.changes, keeper.kernel.lost_cards
    yard.engine.multiprocessors = keeper.multiprocessors
    yard.engine.given = keeper.given_multiprocessors
    yard.engine.on_close(keeper.end_mps)
    yard.engine.on_each_runtime(enforce)
    cut_by_mig(yard, cards, keeper.driver, state)


def find_driver_inside(keeper: SliceKeeper, simulated: bool, cards: frozenset[str]) -> DriverInside | None:
    """Where containers have the driver: as NVIDIA's CDI specs say, or for emulated cards where systems have it. None
    where a container cannot be kept to a slice."""
    import platform

    from gpuyard.slicing.cdi import FOLDERS, DriverInside, Library, driver_inside, may_write

    if not may_write(FOLDERS[-1]):
        return None
    if not simulated:
        return driver_inside()
    usual = Path(f"/usr/lib/{platform.machine()}-linux-gnu")
    cuda, nvml = keeper.driver.cuda, keeper.driver.nvml
    return DriverInside(Library(cuda, usual / cuda.name), nvml and Library(nvml, usual / nvml.name), cards)


@dataclass(frozen=True, slots=True)
class Tried:
    """Who cuts slices; the cards (by UUID) on which each way of holding them was seen to work; what is said of that."""

    keeper: SliceKeeper | None
    shim: frozenset[str]
    findings: tuple[Finding, ...]
    mps: frozenset[str] = frozenset()
    by_kernel: frozenset[str] = frozenset()


def try_all(
    cards: Sequence[Card],
    state: Path,
    simulated: bool,
    contained: bool,
    mps: bool,
    kernel_limits: bool | None,
    groups: tuple[Path, Path] | None,
) -> Tried:
    """The library, MPS and the driver's own limits, one after the other, as each stands on the one before. `groups`:
    where units have their cgroups; None: limits are tried in a place of their own."""
    from gpuyard.limiting import scratch_groups, try_kernel_on

    keeper, shim, finding = try_slices(cards, state, simulated, kernel_limits)
    if keeper is None:
        return Tried(None, shim, (finding,))
    if keeper.mps is not None:
        keeper.mps.contained = contained
    under_mps, told = try_mps_on(keeper, shim, mps)
    with scratch_groups() if groups is None else nullcontext(groups) as groups:
        by_kernel, limited = try_kernel_on(keeper, shim, under_mps, groups, kernel_limits)
    return Tried(keeper, shim, (finding, told, limited), under_mps, by_kernel)


def try_slices(
    cards: Sequence[Card], state: Path, simulated: bool, kernel_limits: bool | None = None
) -> tuple[SliceKeeper | None, frozenset[str], Finding]:
    """Who would cut slices on these cards, on which of them (by UUID) that was seen to hold, and what the doctor says
    of it. On simulated cards the driver is the emulator, with memory limits by cgroup where they are asked for or were
    the last time."""
    from gpuyard.hardware.amd import is_amd
    from gpuyard.hardware.probe import Finding
    from gpuyard.model.errors import YardError
    from gpuyard.slicing.keeper import SliceKeeper
    from gpuyard.slicing.trial import reasons, try_ways, why

    cards = [card for card in cards if not is_amd(card.uuid)]  # CUDA is not for them: they are leased whole
    if not cards:
        return None, frozenset(), Finding("slices", None, {"detail": "AMD"})
    try:
        keeper = SliceKeeper(state / "slices", _emulator(cards, state, kernel_limits) if simulated else real_driver())
        under_mps = set(keeper.ceilings())  # by an earlier yard, whose programs run on: nobody else could open them
        uncut = [card.uuid for card in cards if card.mig is None]  # of the others, instances are tried instead
        told = try_ways(keeper, [uuid for uuid in uncut if uuid not in under_mps])
        told |= dict.fromkeys(under_mps.intersection(card.uuid for card in cards))
    except (YardError, ValueError, OSError) as error:
        return None, frozenset(), Finding("slices", False, {"detail": why(error)})
    held = frozenset(uuid for uuid, why in told.items() if why is None)
    if not uncut:
        return keeper, held, Finding("slices", None, {"detail": "MIG"})
    params = {"cards": len(held), "detail": reasons(told), "by": "preload" if keeper.preload else "library_path"}
    return keeper, held, Finding("slices", bool(held), params)


def try_mps_on(keeper: SliceKeeper, cards: frozenset[str], wanted: bool) -> tuple[frozenset[str], Finding]:
    """On which of these cards MPS holds slices, and what the doctor says of it. It is tried where it is wanted, and on
    cards that an earlier yard left under it: their programs run on."""
    from gpuyard.hardware.probe import Finding
    from gpuyard.model.said import Said
    from gpuyard.slicing.mps_trial import try_mps
    from gpuyard.slicing.trial import aside, reasons

    left = frozenset(keeper.ceilings()) & cards
    if keeper.mps is None:
        return left, Finding("mps_program", False if wanted else None)
    if not wanted and not left:
        return left, Finding("mps", None)
    told = try_mps(keeper, sorted(cards if wanted else left))
    held = frozenset(uuid for uuid, why in told.items() if why is None)
    detail = reasons(told)
    if held:
        return held | left, Finding("mps", True, {"cards": len(held), "detail": aside(detail)})
    return left, Finding("mps", False, {"detail": detail or Said("trial.no_card")})


def _emulator(cards: Sequence[Card], state: Path, kernel_limits: bool | None) -> Driver:
    """The driver emulator with these simulated cards. Raises ValueError where it has no such cards, or not so many."""
    from dataclasses import replace

    from gpuyard.slicing.drivers import Driver
    from gpuyard.testing.machine import DRIVER, LIMITING_DRIVER, Machine
    from gpuyard.testing.specs import parse

    emulated = [
        replace(
            parse(f"1x{card.model}")[0],
            uuid=card.uuid,
            memory_bytes=card.memory_bytes,
            pci_bus=index + 1,
            mig=card.mig is not None,
        )
        for index, card in enumerate(cards)
    ]
    limited = kernel_limits or (kernel_limits is None and (state / "emulator.groups").exists())
    machine = Machine(emulated, file=state / "emulator", driver_version=LIMITING_DRIVER if limited else DRIVER)
    return Driver(
        machine.libraries / "libcuda.so.1",
        machine.libraries / "libnvidia-ml.so.1",
        context_bytes=400 << 20,
        turn_ns=0,
        files={"GPUYARD_EMULATOR": machine.path},
        mps_control=machine.mps_control,
        groups=machine.groups,
    )


def find_encryption() -> Finding:
    """Whether volumes can be encrypted on this machine."""
    from gpuyard.engines.volumes.gocryptfs import why_not
    from gpuyard.hardware.probe import Finding

    reason = why_not()
    return Finding("encrypted_volumes", reason is None, {} if reason is None else {"detail": reason})


def real_driver() -> Driver:
    """This machine's driver, as its linker finds it; another process loads it. Raises OSError where there is none."""
    import shutil
    import subprocess
    from dataclasses import replace

    from gpuyard.slicing.context_cost import measured_context_bytes
    from gpuyard.slicing.drivers import Driver
    from gpuyard.slicing.kernel_limits import REAL_MOUNT

    program = "import ctypes; ctypes.CDLL('libcuda.so.1'); print(open('/proc/self/maps').read())"
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    cuda = next((line.split(maxsplit=5)[5] for line in done.stdout.splitlines() if "/libcuda.so" in line), None)
    if cuda is None:
        raise OSError("libcuda.so.1")
    nvml = Path(cuda).with_name("libnvidia-ml.so.1")
    control = shutil.which("nvidia-cuda-mps-control")
    bare = Driver(
        Path(cuda),
        nvml if nvml.exists() else None,
        mps_control=Path(control) if control else None,
        groups=REAL_MOUNT,
    )
    return replace(bare, context_bytes=measured_context_bytes(bare))

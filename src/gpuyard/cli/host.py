"""What the command line needs from the machine that it runs on; `main.py` provides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """How a yard is started."""

    state: Path
    simulate: str | None = None
    fleet: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8470
    database_url: str | None = None
    price_book: Path | None = None
    runtime: str = "auto"
    on_escape: str = "notice"  # or stop: end programs that go around their slice
    mps: bool = False  # whether NVIDIA's Multi-Process Service holds slices besides our library
    kernel_limits: bool | None = (
        None  # whether the driver's own memory limits hold slices; None: where they are seen to
    )
    spot_notice_us: int = 120_000_000
    spot_minimum_run_us: int = 600_000_000
    tax_table: Path | None = None
    tls: bool = False  # with certificates of the yard's own authority
    tls_cert: Path | None = None  # or with the operator's, which need no `tls`
    tls_key: Path | None = None
    tls_names: tuple[str, ...] = ()  # further names that others reach it by
    fetch_networks: tuple[str, ...] = ()  # that the yard may fetch from although they are not public
    plain_http: bool = False  # beyond this machine, because something in front of it speaks TLS
    moves_window: tuple[int, int] | None = None  # minutes of the day, UTC
    moves_an_hour: int = 20
    moves_of_tenant: int = 2
    use_target_ppm: int = 750_000
    sharing_window: tuple[int, int] | None = None  # minutes of the day, UTC, in which cards are shared; None: always
    weights: tuple[tuple[str, int], ...] = ()  # of the placement's terms, where they are not the usual ones
    hold_window_us: int = 600_000_000
    keep_disks_us: int = 15 * 86_400_000_000
    region: str | None = None  # that this machine stands in; None: as it was told the last time
    machines: str | None = None  # HOST:PORT where machines that joined are listened for; None: nowhere

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.tls or self.tls_cert is not None


@dataclass(frozen=True, slots=True)
class Started:
    """What a yard says once it answers. `token` only on its first start."""

    address: str
    state: str
    pid: int
    token: str | None
    cards: int
    nodes: int
    simulated: bool
    runtimes: tuple[str, ...]
    adopted: int  # units that went on running while no yard did
    ca_sha256: str | None = None  # of the yard's own authority, for clients to pin
    machines: str | None = None  # where machines that joined reach it


class FoundThing(TypedDict):
    """One thing that was looked for, as text keys of `doctor.<name>.<ok|missing|unknown>`."""

    name: str
    ok: bool | None
    params: dict[str, object]


class CardGuarantee(TypedDict):
    """What a whole or shared card can guarantee, with text keys of `guarantee.<key>`."""

    shape: str
    guarantee: str
    because: str
    not_protected: list[str]


class FoundCard(TypedDict):
    uuid: str
    model: str
    node: str
    pci_address: str
    memory_bytes: int
    driver: str | None
    simulated: bool
    guarantees: list[CardGuarantee]


class DoctorReport(TypedDict):
    """What this machine has and can guarantee."""

    findings: list[FoundThing]
    cards: list[FoundCard]


@dataclass(frozen=True, slots=True)
class MoneySums:
    """Sums that need no yard. `compare`: hourly, hours a year, reservations, spot, currency. `own`: see the command.
    `verify`: a published spot round."""

    compare: Callable[[str, int, Sequence[str], str | None, str], Mapping[str, Any]]
    own: Callable[..., Mapping[str, Any]]
    verify: Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What `gpuyard simulate` runs, as it was typed."""

    nodes: Path
    pods: Path
    policy: str
    seed: int
    fill: float | None
    churn: float | None
    arrivals: int
    lifetime: str
    wave: float
    crowd: float
    waits: bool
    moves: bool
    consolidates: bool
    faults_per_day: float
    prices: tuple[str, ...]
    idle_watts: int
    engine: str
    weights: tuple[str, ...]
    log: Path | None
    report: Path | None


@dataclass(frozen=True, slots=True)
class HostCommands:
    """`up` runs a yard until it is told to stop; `doctor` looks at this machine without one; `emulate` runs a command
    on emulated cards (SPEC, command, on virtual time, driver version) and gives its exit code; `sums` are worked out
    here."""

    up: Callable[[UpOptions, Callable[[Started], None]], None]
    doctor: Callable[[UpOptions], DoctorReport]
    emulate: Callable[[str, Sequence[str], bool, str | None], int]
    # looks at this machine's cards, as it is to be told to a yard; again and again
    inventory: Callable[[UpOptions], Callable[[], Mapping[str, Any]]]
    sums: MoneySums
    # runs a trace in virtual time; called with arrivals done and in all; its summary
    weights: Callable[[Sequence[str]], Mapping[str, int]]  # of the placement's terms, as typed
    simulate: Callable[[SimulateOptions, Callable[[int, int | None], None]], dict[str, Any]]


_installed: list[HostCommands] = []


def install(host: HostCommands) -> None:
    """Called once, by the composition root."""
    _installed[:] = [host]


def installed() -> HostCommands:
    """What the composition root gave."""
    return _installed[0]

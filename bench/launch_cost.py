"""What one launch costs the loops of a yard in which much runs already: CPU time, with a real store and no units."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gpuyard.catalog import prices
from gpuyard.control import launching
from gpuyard.control.fleet_watch import update_fleet
from gpuyard.control.launching import Launch
from gpuyard.control.loops import Loops
from gpuyard.control.offering import SliceWish
from gpuyard.control.sealing import Sealer
from gpuyard.control.yard import Yard
from gpuyard.engines.local import LocalEngine
from gpuyard.engines.simulated import SimulatedRuntime
from gpuyard.hardware.simulated import SimulatedProbe, parse_spec, simulated_node
from gpuyard.model.tenants import Tenant
from gpuyard.model.workloads import WorkloadKind
from gpuyard.placing import find_engine, find_scheduler
from gpuyard.store import tenants
from gpuyard.store.database import Store

NODES = 125  # of eight cards each
LAUNCHES = 20
_TENTH_US = 100_000


@dataclass(slots=True)
class _Clock:
    """A tenth of a second passes where it is told to: proofs and other work of every few seconds are not a launch's."""

    at_us: int = 1_790_000_000_000_000
    boot_id: str = "bench"

    def now_us(self) -> int:
        return self.at_us

    def monotonic_ns(self) -> int:
        return self.at_us * 1000

    def offset_us(self) -> int:
        return 0


def launch_milliseconds(leases: int) -> float:
    """CPU time of a launch until it runs, the median of some, among so many leases that run."""
    with tempfile.TemporaryDirectory(prefix="gpuyard-bench-") as folder:
        clock = _Clock()
        yard = _yard(Path(folder), clock)
        loops = Loops(yard)
        tenant = Tenant("tn-a", "a", None, yard.book.currency, clock.now_us())
        with yard.store.write() as c:
            tenants.insert(c, tenant)
        for number in range(leases):
            _launch(yard, tenant, number)
        _settle(loops)
        took: list[float] = []
        for number in range(leases, leases + LAUNCHES):
            clock.at_us += _TENTH_US
            begun = time.process_time()
            _launch(yard, tenant, number)
            _settle(loops)
            took.append(1000 * (time.process_time() - begun))
        yard.store.close()
        return median(took)


def _yard(folder: Path, clock: _Clock) -> Yard:
    nodes = tuple(simulated_node(f"node{n}", parse_spec("8xRTX4090")) for n in range(NODES))
    yard = Yard(
        id="yd-bench",
        store=Store.open(f"sqlite:///{folder / 'yard.db'}"),
        engine=LocalEngine({"simulated": SimulatedRuntime(clock)}, "simulated"),
        scheduler=find_scheduler(),
        make_engine=find_engine(),
        clock=clock,
        book=prices.load(None),
        probes=(SimulatedProbe(nodes),),
        sealer=Sealer(folder / "secret.key"),
        simulated_cards=True,
    )
    update_fleet(yard, clock.now_us())
    return yard


def _launch(yard: Yard, tenant: Tenant, number: int) -> None:
    wish = SliceWish(offer="rtx4090-quarter")
    launching.launch(
        yard, tenant, "bench", Launch(WorkloadKind.INSTANCE, wish, command=("sleep", "inf"), name=f"w{number}")
    )


def _settle(loops: Loops) -> None:
    quiet = 0
    while quiet < 2:
        quiet = 0 if loops.pass_once() else quiet + 1

"""A whole yard whose time, hardware and death are in a test's hand: a real store, the real loops, simulated units."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuyard.catalog import prices
from gpuyard.control import launching
from gpuyard.control.decisions import decide
from gpuyard.control.fleet_watch import update_fleet
from gpuyard.control.loops import Loops
from gpuyard.control.placement import take_snapshot
from gpuyard.control.reading import Reading, read
from gpuyard.control.sealing import Sealer
from gpuyard.control.waiting import take_standing
from gpuyard.control.yard import Yard
from gpuyard.engines.local import LocalEngine
from gpuyard.engines.runtime import Unit, UnitState
from gpuyard.engines.simulated import SimulatedRuntime
from gpuyard.hardware.probe import ProbeReport
from gpuyard.hardware.simulated import SimulatedProbe, parse_spec, simulated_node
from gpuyard.model.fleet import Node
from gpuyard.model.leases import Lease
from gpuyard.model.tenants import Tenant
from gpuyard.model.workloads import Workload
from gpuyard.placing import find_engine, find_scheduler
from gpuyard.store import leases, tenants, workloads
from gpuyard.store.database import Store

NOON_US = 1_790_000_000_000_000


class HandClock:
    """Yard time and monotonic time, moved only by `advance`; `reboot` begins another boot."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.at_us, self.since_boot_us, self.boots = NOON_US, 1_000_000, 1
        if file is not None and file.exists():
            self.at_us, self.since_boot_us, self.boots = json.loads(file.read_text())

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def monotonic_ns(self) -> int:
        return self.since_boot_us * 1000

    def now_us(self) -> int:
        return self.at_us

    def offset_us(self) -> int:
        return 0

    def advance(self, us: int) -> None:
        self.at_us += us
        self.since_boot_us += us
        self._keep()

    def reboot(self, down_us: int) -> None:
        self.at_us += down_us
        self.since_boot_us, self.boots = 1_000_000, self.boots + 1
        self._keep()

    def _keep(self) -> None:
        if self.file is not None:
            partial = self.file.with_suffix(".partial")
            partial.write_text(json.dumps([self.at_us, self.since_boot_us, self.boots]))
            partial.replace(self.file)


class HandProbe:
    """The simulated fleet, less the cards that a test broke."""

    name = "simulated"

    def __init__(self, spec: str) -> None:
        parts = spec.split(";")  # one node each
        nodes = (simulated_node(f"node{n}", parse_spec(part)) for n, part in enumerate(parts))
        self._whole = SimulatedProbe(tuple(nodes)) if len(parts) > 1 else SimulatedProbe.from_spec(spec)
        self.broken: set[str] = set()

    def probe(self) -> ProbeReport:
        report = self._whole.probe()
        nodes = tuple(
            Node(
                name=node.name,
                cpu_milli=node.cpu_milli,
                memory_bytes=node.memory_bytes,
                cards=tuple(card for card in node.cards if card.uuid not in self.broken),
                rack=node.rack,
                region=node.region,
                simulated=node.simulated,
                topology=node.topology,
            )
            for node in report.nodes
        )
        return ProbeReport(nodes, report.findings)


class KeptRuntime(SimulatedRuntime):
    """Simulated units that outlive the process, like real ones, and a book of every start and end."""

    def __init__(self, clock: HandClock, file: Path | None = None) -> None:
        super().__init__(clock)
        self.file = file
        self.started: list[str] = []
        self.ran_us: dict[str, int] = {}  # what each unit that was forgotten had run, as it was
        self.refusing: Exception | None = None  # what every start raises, while the engine is broken
        if file is not None and file.exists():
            self._shelf, self.started, self.ran_us = pickle.loads(file.read_bytes())

    def start(self, unit: Unit) -> None:
        if self.refusing is not None:
            raise self.refusing
        known = self.knows(unit.name)
        super().start(unit)
        if not known:
            self.started.append(unit.name)
        self.keep()

    def stop(self, name: str, grace_us: int, checkpoint_command: tuple[str, ...] = ()) -> None:
        super().stop(name, grace_us, checkpoint_command)
        self.keep()

    def forget(self, name: str) -> None:
        seen = self.observe().get(name)
        if seen is not None and seen.started_ns is not None and seen.proven_ns is not None:
            self.ran_us[name] = (seen.proven_ns - seen.started_ns) // 1000
        super().forget(name)
        self.keep()

    def remove_disk(self, disk: str) -> None:
        super().remove_disk(disk)
        self.keep()

    def knows(self, name: str) -> bool:
        return name in self._shelf.live or name in self._shelf.ended

    def live(self) -> dict[str, Unit]:
        """The units that run or are about to."""
        self.observe()
        return {name: live.unit for name, live in self._shelf.live.items()}

    def keep(self) -> None:
        if self.file is not None:
            partial = self.file.with_suffix(".partial")
            partial.write_bytes(pickle.dumps((self._shelf, self.started, self.ran_us)))
            partial.replace(self.file)


class HandYard:
    """Opens, runs and kills a yard over one folder. Clock, probe and units live on when it is killed."""

    def __init__(self, root: Path, spec: str = "2xRTX4090,1xH100", kept: bool = False) -> None:
        self.root = root
        self.clock = HandClock(root / "clock.json" if kept else None)
        self.probe = HandProbe(spec)
        self.runtime = KeptRuntime(self.clock, root / "units.pickle" if kept else None)
        self.yard: Any = None
        self.loops: Any = None
        self.open()

    def open(self) -> None:
        store = Store.open(f"sqlite:///{self.root / 'yard.db'}")
        self.yard = Yard(
            id="yd-test",
            store=store,
            engine=LocalEngine({"simulated": self.runtime}, "simulated"),
            scheduler=find_scheduler(),
            make_engine=find_engine(),
            clock=self.clock,
            book=prices.load(None),
            probes=(self.probe,),
            sealer=Sealer(self.root / "secret.key"),
            simulated_cards=True,
        )
        update_fleet(self.yard, self.clock.now_us())
        self.loops = Loops(self.yard)

    def kill(self) -> None:
        """Nothing that was in memory is left; what the store had not committed is not there."""
        self.yard.store.close()
        self.open()

    def tenant(self, name: str, credit_nano: int | None = None) -> Tenant:
        with self.yard.store.write() as c:
            known = tenants.find(c, name)
            if known is None:
                known = Tenant(f"tn-{name}", name, credit_nano, self.yard.book.currency, self.clock.now_us())
                tenants.insert(c, known)
            return known

    def launch(self, tenant: Tenant, wish: launching.Launch, key: str | None = None) -> Workload:
        return launching.launch(self.yard, tenant, "tester", wish, key)[0]

    def now(self, workload: Workload) -> Workload:
        """The workload as the store has it; as it was given where it is gone."""
        with self.yard.store.read() as c:
            return workloads.get(c, workload.id) or workload

    def lease(self, workload: Workload) -> Lease:
        """Its last lease, ended or not."""
        with self.yard.store.read() as c:
            return leases.of_workload(c, workload.id, include_ended=True)[-1]

    def settle(self, most: int = 40, each: Callable[[], None] = lambda: None) -> None:
        """Passes until nothing changes any more: twice, as what a pass asked of a unit is only seen by the next one."""
        quiet = 0
        for _ in range(most):
            each()
            quiet = 0 if self.loops.pass_once() else quiet + 1
            self._check_reading()
            if quiet == 2:
                return
        raise AssertionError(f"still changing after {most} passes")

    def _check_reading(self) -> None:
        """What the loops have read bit by bit is what the store holds."""
        kept, whole = read(self.yard, self.loops._read), read(self.yard)
        assert kept == whole
        assert list(kept.workloads) == list(whole.workloads)
        assert list(kept.open) == list(whole.open)
        self._check_what_is_kept(kept)

    def _check_what_is_kept(self, reading: Reading) -> None:
        """The fleet as it was put together bit by bit, and the looks that were left out, are as if all was done anew."""
        yard, now_us = self.yard, self.clock.now_us()
        with yard.store.read() as c:
            asked = (c, yard.roster.nodes, reading.leases, reading.workloads, yard.book.on_demand_nano)
            assert self.loops._view.take(*asked) == take_snapshot(*asked)
            kept = self.loops._view.running
            standing = (c, yard, reading.leases, reading.workloads, now_us)
            assert take_standing(*standing, kept) == take_standing(*standing)
        observations, _ = yard.engine.observe()
        world = replace(self.loops._look(self.loops._now(), observations), proofs_due=False)
        assert decide(world, self.loops._rest(world)) == decide(world)

    def running_names(self) -> set[str]:
        return {name for name, seen in self.runtime.observe().items() if seen.state is not UnitState.EXITED}

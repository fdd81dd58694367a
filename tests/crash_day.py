"""A scripted day of a yard that can be killed with -9 at any of its writes and engine calls, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gpuyard.control import commands, paying
from gpuyard.control.launching import Launch
from gpuyard.control.offering import SliceWish
from gpuyard.model.leases import PurchaseOption
from gpuyard.model.workloads import RestartPolicy, Workload, WorkloadKind
from gpuyard.store import workloads
from gpuyard.store.database import Store
from hand_driven_yard import HandYard, KeptRuntime

SECOND = 1_000_000


class Trip:
    """Counts the places where the process could die. Dies at one of them, or keeps what a death there would leave."""

    def __init__(self, root: Path, at: int | None = None, keep: frozenset[int] = frozenset()) -> None:
        self.root, self.at, self.keep = root, at, keep
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.count in self.keep:
            # The files as they are now, and no lock: all that a killed process leaves.
            shutil.copytree(self.root, left_at(self.root, self.count))

    def install(self) -> None:
        """Around every transaction (before it, before its commit, after it) and every call that changes a unit."""
        write, trip = Store.write, self

        @contextmanager
        def tripping(store: Store) -> Iterator[object]:
            trip()
            with write(store) as c:
                yield c
                trip()
            trip()

        Store.write = tripping  # type: ignore[method-assign, assignment]
        for name in ("start", "stop", "forget", "remove_disk"):
            setattr(KeptRuntime, name, self._around(getattr(KeptRuntime, name)))

    def _around(self, call: Callable[..., None]) -> Callable[..., None]:
        def tripping(*arguments: object) -> None:
            self()
            call(*arguments)
            self()

        return tripping


class Day:
    """The script. Each step is what a client or the world does; one that was cut short is done again, as clients do."""

    def __init__(self, root: Path) -> None:
        self.hand = HandYard(root, kept=True)
        self.steps: list[Callable[[], None]] = [
            lambda: self._launch("train", WorkloadKind.JOB, ("sleep", "100"), restart=RestartPolicy.NEVER),
            lambda: self._launch("box", WorkloadKind.INSTANCE, ()),
            lambda: self._launch("serve", WorkloadKind.SERVICE, ("serve",), replicas=2),
            self._settle,
            self._top_up,
            lambda: self._pass_time(70),
            lambda: self._command(commands.stop, "box"),
            self._settle,
            lambda: self._pass_time(10),
            self._kill_a_replica,
            self._settle,
            *self._reclaim(),
            lambda: self._pass_time(5),
            lambda: self._command(commands.start, "box"),
            self._settle,
            lambda: self._command(commands.reboot, "box"),
            lambda: self._command(commands.reboot, "serve"),
            self._settle,
            lambda: self._pass_time(40),  # the job ends by itself
            lambda: self._command(commands.remove, "train"),
            self._settle,
            lambda: self._command(commands.stop, "serve"),
            self._settle,
            lambda: self._command(commands.remove, "serve"),
            lambda: self._command(commands.remove, "box"),
            lambda: self._command(commands.remove, "cheap"),
            lambda: self._command(commands.remove, "urgent"),
            self._settle,
        ]
        self.progress = root / "progress.json"

    def run(self) -> None:
        """From where the last process got to, to the end."""
        done = json.loads(self.progress.read_text()) if self.progress.exists() else 0
        for number in range(done, len(self.steps)):
            self.steps[number]()
            partial = self.progress.with_suffix(".partial")
            partial.write_text(json.dumps(number + 1))
            partial.replace(self.progress)

    def _launch(self, name: str, kind: WorkloadKind, command: tuple[str, ...], **more: object) -> None:
        tenant = self.hand.tenant("alice", credit_nano=10**9)
        slices = more.pop("slices", SliceWish(offer="rtx4090-quarter"))
        wish = Launch(kind, slices, name=name, command=command, **more)  # type: ignore[arg-type]
        self.hand.launch(tenant, wish, key=f"key-{name}")

    def _reclaim(self) -> list[Callable[[], None]]:
        """A gang of spot takes what is free; something urgent has it go, and it comes back."""
        return [
            lambda: self._launch(
                "cheap", WorkloadKind.JOB, ("sleep", "2000"), replicas=2, option=PurchaseOption.SPOT,
                slices=SliceWish(offer="rtx4090-half"),
            ),
            self._settle,
            lambda: self._pass_time(700, 350),
            lambda: self._launch("urgent", WorkloadKind.JOB, ("sleep", "30"), slices=SliceWish(offer="rtx4090-full")),
            self._settle,
            lambda: self._pass_time(140, 35),
        ]  # fmt: skip

    def _top_up(self) -> None:
        """Told again by a client that does not know whether it was heard: it counts once."""
        paying.top_up(self.hand.yard, self.hand.tenant("alice"), 5 * 10**9, "tester", key="noon")

    def workload(self, name: str) -> Workload | None:
        with self.hand.yard.store.read() as c:
            return workloads.find(c, "tn-alice", name)

    def _command(self, command: commands.Command, name: str) -> None:
        workload = self.workload(name)
        if workload is not None:  # gone where a removal was done and not noted
            command(self.hand.yard, workload.id, "tester")

    def _settle(self) -> None:
        self.hand.settle()

    def _pass_time(self, seconds: int, step: int = 5) -> None:
        """Second by second, with a look each: where it was cut short is told by the clock itself."""
        mark = self.progress.with_name("until.json")
        until = json.loads(mark.read_text()) if mark.exists() else self.hand.clock.at_us + seconds * SECOND
        mark.write_text(json.dumps(until))
        while self.hand.clock.at_us < until:
            self.hand.clock.advance(step * SECOND)
            self.hand.settle()
        mark.unlink()

    def _kill_a_replica(self) -> None:
        serving = sorted(name for name, unit in self.hand.runtime.live().items() if unit.command == ("serve",))
        if len(serving) == 2 and not any(name.endswith("-2") for name in self.hand.runtime.started):
            self.hand.runtime.crash(serving[0])
            self.hand.runtime.keep()


def left_at(root: Path, place: int) -> Path:
    """Where the copy of the folder is that a death at this place would leave."""
    return root.with_name(f"{root.name}-{place}")


def run(root: str, kill_at: int | None = None, keep: frozenset[int] = frozenset()) -> None:
    """One process of the day. Where it lives to the end it writes down how many places there were."""
    trip = Trip(Path(root), kill_at, keep)
    trip.install()
    Day(Path(root)).run()
    Path(root, "places.json").write_text(json.dumps(trip.count))

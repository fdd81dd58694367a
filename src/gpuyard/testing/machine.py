"""An emulated machine: NVIDIA cards that exist only in a file, behind a driver that is ours.

The file is shared with every process that runs with `Machine.env()`: it opens the emulator's `libcuda.so.1` and
`libnvidia-ml.so.1` instead of a driver's. Kernels compute nothing; one named `k_<ns>` takes so long, and the processes
that are busy on a card share it evenly, or in turns.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import shutil
import struct
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from gpuyard.catalog import cards as catalog_cards
from gpuyard.catalog import mig
from gpuyard.catalog.cards import CardModel
from gpuyard.model.units import MIB
from gpuyard.slicing.building import MPS_CONTROL, built
from gpuyard.slicing.layout import Struct, layout
from gpuyard.testing.specs import EmulatedCard, parse

ANY_CARD: Final = 0xFFFFFFFF
FOREVER: Final = 0xFFFFFFFF
CUDA_LOST: Final = 719  # what every call answers after an Xid that took the card down
DRIVER: Final = "580.95.05"
LIMITING_DRIVER: Final = "615.71.09"
_VERSION: Final = re.compile(r"\d{1,4}(\.\d{1,4}){0,3}")
_LIMITS_FROM: Final = 615  # the first driver with memory limits by cgroup
_LIVES_FROM: Final = 1 << 40  # each process locks the byte of its slot beyond this offset


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process has on one card."""

    pid: int
    used_bytes: int
    contexts: int
    busy_ns: int


@dataclass(frozen=True, slots=True)
class CardState:
    """A card now. `busy_ns` is right up to the last call that any process made to the driver."""

    used_bytes: int
    peak_bytes: int
    total_bytes: int
    refused: int
    busy_ns: int
    processes: tuple[ProcessUse, ...]


class Machine:
    """A machine with these cards. Used as a context manager, or closed with `close`.

    clock: "real" sleeps as long as kernels take; on "virtual" time jumps to the next thing that happens as soon as all
        processes wait, so that an hour of work takes as long as its driver calls.
    processes: on the virtual clock, time stands still until so many processes have called `cuInit`.
    context_bytes: what each CUDA context takes of a card.
    turn_ns: 0 for even sharing at every moment; else busy processes take turns of so long.
    call_ns: what a driver call costs on the virtual clock.
    queue_depth: launches that a stream takes before the next one waits, at most 1024.
    root: the folder that holds the file; without it, one that is removed at the end.
    file: instead, a file that stays, for programs that outlive this object. One with the same cards is gone on with.
    driver_version: from 615 on, the driver limits device memory by cgroup: see `groups`.

    Raises ValueError for what is out of range, and YardError `native_unavailable` without a compiler.
    """

    def __init__(
        self,
        cards: str | Sequence[EmulatedCard] = "1xRTX4090",
        *,
        clock: Literal["real", "virtual"] = "real",
        processes: int = 1,
        context_bytes: int = 400 * MIB,
        memory_bytes: int | None = None,
        turn_ns: int = 0,
        call_ns: int = 2000,
        queue_depth: int = 1024,
        cuda_version: int = 13000,
        driver_version: str = DRIVER,
        root: Path | None = None,
        file: Path | None = None,
    ) -> None:
        self.cards: tuple[EmulatedCard, ...] = parse(cards) if isinstance(cards, str) else tuple(cards)
        if not 1 <= len(self.cards) <= layout().constants["MAX_CARDS"]:
            raise ValueError(f"cards: a machine has 1 to {layout().constants['MAX_CARDS']}, not {len(self.cards)}")
        if not 1 <= queue_depth <= 1024:
            raise ValueError(f"queue_depth: 1 to 1024, not {queue_depth}")
        self.turn_ns = turn_ns
        self._libraries = built() / "emulator"
        self._own_root = root is None and file is None
        self._root = root or (Path(tempfile.mkdtemp(prefix="gpuyard-emulator-")) if file is None else file.parent)
        self._stays = file is not None
        self.path = file or self._root / f"machine-{uuid.uuid4().hex[:12]}"
        self._shape: Struct = layout().structs["emulator_file"]
        if _VERSION.fullmatch(driver_version) is None:
            raise ValueError(f"driver_version: digits and points such as {DRIVER}, not {driver_version[:40]!r}")
        limits = int(driver_version.partition(".")[0]) >= _LIMITS_FROM
        # Where `dmem.max` of the kernel's cgroup /a/b lies, at a/b: the kernel has none for cards that are not there.
        self.groups: Path | None = self.path.with_name(f"{self.path.name}.groups") if limits else None
        if self.groups is not None:
            self.groups.mkdir(exist_ok=True, parents=True)
        driver = {"driver_version": driver_version, "group_root": str(self.groups or "")}
        if self._stays and self._goes_on():
            for name, value in driver.items():
                self._shape.write(self._map, name, value)
            return
        self.path.unlink(missing_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, self._shape.size)
        self._map = mmap.mmap(self._file, self._shape.size)
        header: dict[str, int | str] = {
            "version": layout().constants["LAYOUT_VERSION"],
            "size": self._shape.size,
            "virtual_clock": int(clock == "virtual"),
            "card_count": len(self.cards),
            "cuda_version": cuda_version,
            "expected": processes,
            "queue_depth": queue_depth,
            "call_ns": call_ns,
            "turn_ns": turn_ns,
            "virtual_ns": 1_000_000_000,
            **driver,
        }
        for name, value in header.items():
            self._shape.write(self._map, name, value)
        for index, card in enumerate(self.cards):
            self._write_card(index, card, memory_bytes or card.memory_bytes, context_bytes)
        self._shape.write(self._map, "magic", layout().constants["EMULATOR_MAGIC"])

    def _goes_on(self) -> bool:
        """Opens the file that is there, if it is whole and of the same cards."""
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        if os.fstat(handle).st_size != self._shape.size:
            os.close(handle)
            return False
        self._file, self._map = handle, mmap.mmap(handle, self._shape.size)
        card = layout().structs["emulator_card"]
        there = [
            card.read(self._map, "uuid", base=self._shape.at("cards", index))
            for index in range(min(self._shape.read(self._map, "card_count"), layout().constants["MAX_CARDS"]))
        ]
        modes = [
            bool(card.read(self._map, "mig_mode", base=self._shape.at("cards", index))) for index in range(len(there))
        ]
        known = self._shape.read(self._map, "magic") == layout().constants["EMULATOR_MAGIC"]
        same_version = self._shape.read(self._map, "version") == layout().constants["LAYOUT_VERSION"]
        wanted = [uuid.UUID(one.uuid.removeprefix("GPU-")).bytes for one in self.cards]
        if known and same_version and there == wanted and modes == [one.mig for one in self.cards]:
            return True
        self._map.close()
        os.close(handle)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the machine's file. Processes that still run on it keep theirs until they end."""
        if self._map.closed:
            return
        self._map.close()
        os.close(self._file)
        if not self._stays:
            self.path.unlink(missing_ok=True)
            if self.groups is not None:
                shutil.rmtree(self.groups, ignore_errors=True)
        if self._own_root:
            shutil.rmtree(self._root, ignore_errors=True)

    def env(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables that put a process on this machine, on top of `base`, or of this process's own."""
        variables = dict(os.environ if base is None else base)
        before = variables.get("LD_LIBRARY_PATH")
        variables["LD_LIBRARY_PATH"] = f"{self._libraries}:{before}" if before else str(self._libraries)
        variables["GPUYARD_EMULATOR"] = str(self.path)
        variables["PATH"] = f"{self._libraries}:{variables.get('PATH', os.defpath)}"  # nvidia-cuda-mps-control
        return variables

    @property
    def libraries(self) -> Path:
        """The folder with the emulator's `libcuda.so.1` and `libnvidia-ml.so.1`."""
        return self._libraries

    @property
    def mps_control(self) -> Path:
        """The program that starts MPS daemons for this machine's cards and commands them."""
        return self._libraries / MPS_CONTROL

    @property
    def now_ns(self) -> int:
        """The virtual clock."""
        return self._shape.read(self._map, "virtual_ns")

    def card(self, index: int) -> CardState:
        """A card as it is now, without what dead processes have not given back yet."""
        shape, base = self._at("cards", index, "emulator_card")
        lanes = layout().structs["emulator_lane"]
        uses: list[ProcessUse] = []
        for number in range(self._shape.read(self._map, "lane_high")):
            at = self._shape.at("lanes", number)
            owner = lanes.read(self._map, "process", base=at)
            if owner and lanes.read(self._map, "card", base=at) == index and self._lives(owner - 1):
                values = (int(lanes.read(self._map, name, base=at)) for name in ("used", "contexts", "done_ns"))
                uses.append(ProcessUse(self._pid(owner - 1), *values))
        return CardState(
            used_bytes=sum(use.used_bytes for use in uses),
            peak_bytes=shape.read(self._map, "peak", base=base),
            total_bytes=shape.read(self._map, "total", base=base),
            refused=shape.read(self._map, "refused", base=base),
            busy_ns=shape.read(self._map, "busy_ns", base=base),
            processes=tuple(uses),
        )

    def expect(self, processes: int) -> None:
        """The virtual clock stands still until so many more processes have called `cuInit`."""
        self._shape.write(self._map, "expected", self._shape.read(self._map, "arrived") + processes)

    def inject(
        self,
        function: str,
        result: int = 0,
        *,
        card: int = ANY_CARD,
        skip: int = 0,
        times: int = 1,
        delay_ns: int = 0,
    ) -> int:
        """A fault in a CUDA or NVML function (`*`: in all): after `skip` more, calls answer `result` and are late.

        The answer is for `hits` and `withdraw`. Raises ValueError where there are too many.
        """
        shape = layout().structs["emulator_injection"]
        for number in range(layout().constants["EMULATOR_INJECTIONS"]):
            at = self._shape.at("injections", number)
            if shape.read(self._map, "in_use", base=at):
                continue
            values = {"card": card, "result": result, "skip": skip, "times": times, "delay_ns": delay_ns, "hits": 0}
            shape.write(self._map, "function", function, base=at)
            for name, value in values.items():
                shape.write(self._map, name, value, base=at)
            shape.write(self._map, "in_use", 1, base=at)
            count = max(self._shape.read(self._map, "injection_count"), number + 1)
            self._shape.write(self._map, "injection_count", count)
            return number
        raise ValueError("more faults than a machine keeps; withdraw some")

    def hits(self, fault: int) -> int:
        """How many calls a fault has met."""
        shape, base = self._at("injections", fault, "emulator_injection")
        return shape.read(self._map, "hits", base=base)

    def withdraw(self, fault: int) -> None:
        """Ends a fault."""
        shape, base = self._at("injections", fault, "emulator_injection")
        shape.write(self._map, "in_use", 0, base=base)

    def lose(self, card: int, result: int = CUDA_LOST) -> None:
        """The card is lost, as after an Xid: all that is called on it fails. 0 brings it back."""
        self._set(card, "lost", result)

    def unplug(self, card: int) -> None:
        """The card is gone: processes that begin now do not see it, those that hold it get errors."""
        self._set(card, "unplugged", 1)

    def plug(self, card: int) -> None:
        """The card is back."""
        self._set(card, "unplugged", 0)

    def _at(self, field: str, index: int, struct_name: str) -> tuple[Struct, int]:
        return layout().structs[struct_name], self._shape.at(field, index)

    def _set(self, card: int, name: str, value: int) -> None:
        if not 0 <= card < len(self.cards):
            raise IndexError(f"card {card}")
        shape, base = self._at("cards", card, "emulator_card")
        shape.write(self._map, name, value, base=base)

    def _pid(self, slot: int) -> int:
        shape, base = self._at("processes", slot, "emulator_process")
        return shape.read(self._map, "pid", base=base)

    def _lives(self, slot: int) -> bool:
        # struct flock: type, whence, start, length, pid (which the kernel wants to be 0)
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _LIVES_FROM + slot, 1, 0)
        answer = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked)
        return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK

    def _write_card(self, index: int, card: EmulatedCard, memory_bytes: int, context_bytes: int) -> None:
        shape, base = self._at("cards", index, "emulator_card")
        values: dict[str, Any] = {
            "name": card.name,
            "uuid": uuid.UUID(card.uuid.removeprefix("GPU-")).bytes,
            "total": memory_bytes,
            "context_bytes": context_bytes,
            "l2_bytes": card.l2_bytes,
            "pci_bus": card.pci_bus,
            "pci_device_id": card.pci_id,
            "major": card.capability[0],
            "minor": card.capability[1],
            "multiprocessors": card.multiprocessors,
            "power_limit_mw": card.power_limit_mw,
            "boost_mhz": card.boost_mhz,
            "memory_mhz": card.memory_mhz,
            "bus_width_bits": card.bus_width_bits,
            "pcie_generation": card.pcie_generation,
            "pcie_lanes": card.pcie_lanes,
            "consumer": int(card.consumer),
            "mig_mode": int(card.mig),
            "ecc_mode": int(not card.consumer),
        }
        for name, value in values.items():
            shape.write(self._map, name, value, base=base)
        self._write_profiles(catalog_cards.find(card.model), shape, base)

    def _write_profiles(self, model: CardModel, shape: Struct, base: int) -> None:
        kind = layout().structs["emulator_profile"]
        rows = mig.load() if model.mig_instances is not None else ()
        for number, row in enumerate(rows):
            at = shape.at("profiles", number, base)
            values: dict[str, Any] = {
                "index": row.index,
                "id": row.id,
                "slices": row.slices,
                "most": row.most,
                "size": row.size,
                "places": row.places,
                "step": row.step,
                "multiprocessors": row.multiprocessors(model),
                "copy_engines": row.copy_engines,
                "decoders": row.decoders,
                "jpegs": row.jpegs,
                "ofas": row.ofas,
                "memory_mib": row.memory_mib(model),
                "name": row.name(model),
            }
            for name, value in values.items():
                kind.write(self._map, name, value, base=at)
        shape.write(self._map, "mig_profiles", len(rows), base=base)

"""The yard's eye on a slice's ledger: who holds how much, and giving back what the dead held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpuyard.slicing.layout import layout
from gpuyard.slicing.shared_files import read_shared, write_shared


@dataclass(frozen=True, slots=True)
class Holder:
    """A process of the slice. `used_bytes` by the card's place in the slice file; `pid` as its own namespace counts."""

    pid: int
    start_time: int
    pid_namespace: int
    used_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a slice holds, by card. `peak_bytes` since it was cut; `refused` counts allocations over the limit."""

    used_bytes: tuple[int, ...]
    peak_bytes: tuple[int, ...]
    refused: tuple[int, ...]
    holders: tuple[Holder, ...]


def start_time_of(pid: int) -> int | None:
    """When the process started, in the kernel's ticks; None where it is gone, or a zombie, which holds nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def namespace_of(pid: int | str = "self") -> int | None:
    """The process's pid namespace, by the number that the ledger keeps; None where it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


def inner_pid_of(pid: int) -> int | None:
    """The pid as the process's own namespace counts; None where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), pid)


class Living:
    """The processes of this moment, read once and only where somebody asks."""

    def __init__(self) -> None:
        self._here = namespace_of()
        self._elsewhere: dict[tuple[int | None, int | None], set[int | None]] | None = None

    def has(self, holder: Holder) -> bool:
        """Whether the process that took this slot still runs, in whichever pid namespace it lives.

        A namespace that we may not look at could be the holder's: what may live is not taken for dead.
        """
        if holder.pid_namespace == self._here:
            return start_time_of(holder.pid) == holder.start_time
        spaces = self._all().get((holder.pid, holder.start_time), set())
        return holder.pid_namespace in spaces or None in spaces

    def has_namespace(self, namespace: int) -> bool:
        """Whether anybody may live in that pid namespace."""
        return namespace == self._here or any(namespace in spaces or None in spaces for spaces in self._all().values())

    def _all(self) -> Mapping[tuple[int | None, int | None], set[int | None]]:
        if self._elsewhere is None:
            self._elsewhere = {}
            for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
                process = (inner_pid_of(pid), start_time_of(pid))
                self._elsewhere.setdefault(process, set()).add(namespace_of(pid))
        return self._elsewhere


def usage(path: Path) -> Usage:
    """What the ledger says now of the living. Raises YardError `shared_file_broken`."""
    cards, living = range(layout().constants["MAX_CARDS"]), Living()
    shape, content = layout().structs["ledger"], read_shared(path, "ledger", "LEDGER_MAGIC")
    peak, refused = (tuple(shape.read(content, name, card) for card in cards) for name in ("peak", "refused"))
    holders = tuple(holder for _, holder in _holders(content) if living.has(holder))
    return Usage(tuple(sum(h.used_bytes[card] for h in holders) for card in cards), peak, refused, holders)


def reap(path: Path) -> tuple[Holder, ...]:
    """Gives back what the dead held in pid namespaces in which nobody lives any more, and says who they were.

    Everywhere else the processes of the slice do that themselves, under its lock; here they cannot see who is dead,
    and so nobody else writes those slots. Raises YardError `shared_file_broken`, or OSError.
    """
    slot, living = layout().structs["ledger_slot"], Living()
    found = _holders(read_shared(path, "ledger", "LEDGER_MAGIC"))
    dead = [(base, holder) for base, holder in found if not living.has_namespace(holder.pid_namespace)]
    for base, _ in dead:
        write_shared(path, base + 4, bytes(slot.size - 4))
        write_shared(path, base, bytes(4))  # the pid, and with that the slot is free
    return tuple(holder for _, holder in dead)


def _holders(content: bytes) -> list[tuple[int, Holder]]:
    shape, slot = layout().structs["ledger"], layout().structs["ledger_slot"]
    cards = range(layout().constants["MAX_CARDS"])
    found: list[tuple[int, Holder]] = []
    for index in range(min(shape.read(content, "slots_high"), layout().constants["LEDGER_SLOTS"])):
        base = shape.at("slots", index)
        pid = slot.read(content, "pid", base=base)
        if pid:
            used = tuple(slot.read(content, "used", card, base) for card in cards)
            start, space = (slot.read(content, name, base=base) for name in ("start_time", "pid_namespace"))
            found.append((base, Holder(pid, start, space, used)))
    return found

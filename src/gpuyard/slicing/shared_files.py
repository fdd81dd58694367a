"""The files that a slice's processes share: its limits, its ledger, and the clocks of the cards it is cut from."""

from __future__ import annotations

import ctypes
import mmap
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.slicing.layout import layout

_ROBUST: Final = 1  # PTHREAD_MUTEX_ROBUST
_SHARED: Final = 1  # PTHREAD_PROCESS_SHARED
_EOWNERDEAD: Final = 130
_MOST_MEMORY_BYTES: Final = 1 << 50
_LONGEST_TURN_NS: Final = 10**9


class ComputeMode(StrEnum):
    """Whether a slice may have more compute than its share while nobody else wants it."""

    CAP = "cap"
    BORROW = "borrow"


@dataclass(frozen=True, slots=True)
class SliceCard:
    """One card of a slice. `context_bytes` is what a context takes there; `turn_ns` how long the driver lets one of
    several busy programs run (0: all at once); `clock` is None at full compute. `multiprocessors`: how many of them MPS
    lets a program of the slice see at most, 0 where MPS does not hold it; `clock` is then the slice's own, on which its
    programs share the time of those."""

    uuid: str  # as NVML writes it, GPU-01234567-...
    memory_bytes: int
    compute_ppm: int
    context_bytes: int = 0
    mode: ComputeMode = ComputeMode.CAP
    clock: Path | None = None
    turn_ns: int = 0
    multiprocessors: int = 0
    mps_ppm: int = 0  # the share of the card that those are


@dataclass(frozen=True, slots=True)
class SliceLimits:
    """All that the shim reads. `strict` refuses driver functions that are newer than the shim."""

    slice_id: str
    cards: Sequence[SliceCard]
    ledger: Path
    real_cuda: Path
    real_nvml: Path | None
    strict: bool = True

    def check(self) -> None:
        """Raises YardError `slice_refused` for limits that the shim would refuse, so that none is written."""
        most = layout().constants["MAX_CARDS"]
        if not 1 <= len(self.cards) <= most:
            raise YardError("slice_refused", slice=self.slice_id, reason=f"{len(self.cards)} cards (1..{most})")
        if len({card.uuid for card in self.cards}) != len(self.cards):
            raise YardError("slice_refused", slice=self.slice_id, reason="the same card twice")
        for card in self.cards:
            self._check_card(card)

    def _check_card(self, card: SliceCard) -> None:
        reason = None
        if not 0 < card.memory_bytes < _MOST_MEMORY_BYTES:
            reason = f"memory {card.memory_bytes} B"
        elif not 0 <= card.context_bytes < card.memory_bytes:
            reason = f"context {card.context_bytes} B of {card.memory_bytes} B"
        elif not 0 <= card.turn_ns <= _LONGEST_TURN_NS:
            reason = f"turn {card.turn_ns} ns"
        elif not 0 < card.compute_ppm <= SHARE_WHOLE_PPM:
            reason = f"compute {card.compute_ppm} ppm"
        elif card.clock is None and (card.compute_ppm < SHARE_WHOLE_PPM or card.multiprocessors):
            reason = "no clock"
        if reason is not None:
            raise YardError("slice_refused", slice=self.slice_id, reason=f"{card.uuid}: {reason}")


def card_uuid_bytes(text: str) -> bytes:
    """The 16 bytes that the driver calls a card by. Raises YardError `slice_refused` for what is no UUID."""
    try:
        return uuid.UUID(text.removeprefix("GPU-")).bytes
    except ValueError:
        raise YardError("slice_refused", slice="--", reason=f"card UUID {text[:60]!r}") from None


def encode(limits: SliceLimits) -> bytes:
    """The slice file's bytes. Raises YardError `slice_refused` for limits that cannot be."""
    limits.check()
    shape, constants = layout().structs["slice_file"], layout().constants
    card_shape = layout().structs["slice_card"]
    buffer = bytearray(shape.size)
    try:
        for name, value in (
            ("magic", constants["SLICE_MAGIC"]),
            ("version", constants["LAYOUT_VERSION"]),
            ("size", shape.size),
            ("slice_id", limits.slice_id),
            ("card_count", len(limits.cards)),
            ("strict", int(limits.strict)),
            ("ledger_path", str(limits.ledger)),
            ("real_cuda", str(limits.real_cuda)),
            ("real_nvml", str(limits.real_nvml or "")),
        ):
            shape.write(buffer, name, value)
        for index, card in enumerate(limits.cards):
            base = shape.at("cards", index)
            card_shape.write(buffer, "uuid", card_uuid_bytes(card.uuid), base=base)
            card_shape.write(buffer, "memory_bytes", card.memory_bytes, base=base)
            card_shape.write(buffer, "context_bytes", card.context_bytes, base=base)
            card_shape.write(buffer, "turn_ns", card.turn_ns, base=base)
            card_shape.write(buffer, "compute_ppm", card.compute_ppm, base=base)
            card_shape.write(buffer, "multiprocessors", card.multiprocessors, base=base)
            card_shape.write(buffer, "mps_ppm", card.mps_ppm, base=base)
            card_shape.write(buffer, "mode", constants[f"MODE_{card.mode.value.upper()}"], base=base)
            card_shape.write(buffer, "clock_path", str(card.clock or ""), base=base)
    except ValueError as error:
        raise YardError("slice_refused", slice=limits.slice_id, reason=str(error)) from error
    shape.write(buffer, "checksum", _fnv(buffer[: shape.at("checksum")]))
    return bytes(buffer)


def write_slice_file(path: Path, limits: SliceLimits) -> None:
    """Writes the limits whole or not at all, readable by all and writable by nobody."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(handle, "wb") as file:
        file.write(encode(limits))
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o444)  # whatever the umask was
    partial.rename(path)


def is_slice_file(path: Path) -> bool:
    """Whether it is one of this version, by its head. Raises OSError."""
    shape, content = layout().structs["slice_file"], path.read_bytes()
    if len(content) != shape.size or shape.read(content, "magic") != layout().constants["SLICE_MAGIC"]:
        return False
    return shape.read(content, "version") == layout().constants["LAYOUT_VERSION"]


def cards_of(path: Path) -> tuple[SliceCard, ...]:
    """The cards that a slice file of ours names; none where it is not one of this version. Raises OSError."""
    shape, one = layout().structs["slice_file"], layout().structs["slice_card"]
    if not is_slice_file(path):
        return ()
    content, cards = path.read_bytes(), list[SliceCard]()
    for index in range(shape.read(content, "card_count")):
        base = shape.at("cards", index)
        text = f"GPU-{uuid.UUID(bytes=one.read(content, 'uuid', base=base))}"
        names = ("memory_bytes", "compute_ppm", "multiprocessors", "mps_ppm")
        memory, compute, multiprocessors, share = (one.read(content, name, base=base) for name in names)
        cards.append(SliceCard(text, memory, compute, multiprocessors=multiprocessors, mps_ppm=share))
    return tuple(cards)


def create_ledger(path: Path, mode: int = 0o666) -> None:
    """An empty ledger; a whole one that is there already is kept. `mode`: every process of the slice writes it."""
    _create(path, "ledger", layout().constants["LEDGER_MAGIC"], mode)


def create_clock(path: Path, mode: int = 0o666) -> None:
    """A card's clock, at zero; one that is there already is kept."""
    _create(path, "card_clock", layout().constants["CLOCK_MAGIC"], mode)


def forget_tenant(clock: Path, slice_id: str) -> None:
    """Takes a slice whose processes are gone off a card's clock, so that its place is free. Unknown: nothing.

    Nobody else writes that place meanwhile, and it is freed by one word: no lock is needed. Raises YardError
    `shared_file_broken`.
    """
    shape, tenant = layout().structs["card_clock"], layout().structs["clock_tenant"]
    content = read_shared(clock, "card_clock", "CLOCK_MAGIC")
    for index in range(layout().constants["CLOCK_TENANTS"]):
        base = shape.at("tenants", index)
        if tenant.read(content, "in_use", base=base) and tenant.read(content, "slice_id", base=base) == slice_id:
            write_shared(clock, base + tenant.at("in_use"), bytes(4))


def restore_ledger(path: Path) -> None:
    """Makes a ledger whole again that a tenant has spoilt, in place, because processes have it mapped: its size, its
    head and its mutex. What processes hold stays noted as far as it was left.

    Raises OSError where there is none to restore.
    """
    shape = layout().structs["ledger"]
    head = bytearray(shape.at("generation"))
    for name, value in (("version", layout().constants["LAYOUT_VERSION"]), ("size", shape.size)):
        shape.write(head, name, value)
    with mmap.mmap(-1, len(head)) as scratch:
        _make_mutex(scratch, shape.at("mutex"))
        head[shape.at("mutex") :] = scratch[shape.at("mutex") :]
    if path.stat(follow_symlinks=False).st_size != shape.size:
        os.truncate(path, shape.size)
    magic, high = layout().constants["LEDGER_MAGIC"], layout().constants["LEDGER_SLOTS"]
    write_shared(path, shape.at("slots_high"), high.to_bytes(8, "little"))
    write_shared(path, 8, bytes(head[8:]))
    write_shared(path, 0, magic.to_bytes(8, "little"))


def _create(path: Path, name: str, magic: int, mode: int) -> None:
    if path.exists():
        return
    shape = layout().structs[name]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(handle, 0, shape.size)  # a full disk is met here, not inside a tenant's process
        with mmap.mmap(handle, shape.size) as view:
            shape.write(view, "magic", magic)
            shape.write(view, "version", layout().constants["LAYOUT_VERSION"])
            shape.write(view, "size", shape.size)
            _make_mutex(view, shape.at("mutex"))
        os.fchmod(handle, mode)
        os.link(partial, path)
    except FileExistsError:
        pass  # somebody else made it: theirs is as good
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)


def read_shared(path: Path, name: str, magic: str) -> bytes:
    """A file that tenants write too, as it is now. Raises YardError `shared_file_broken` if it is not whole.

    It is never mapped: whoever cuts a mapped file off kills whoever looks at it. Nor does the yard take its lock: a
    tenant would choose what the C library writes where, in a process that may do everything.
    """
    shape = layout().structs[name]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            content = os.pread(handle, shape.size + 1, 0)
        finally:
            os.close(handle)
    except OSError as error:
        raise YardError("shared_file_broken", path=str(path), reason=error.strerror or "--") from error
    if len(content) != shape.size:
        raise YardError("shared_file_broken", path=str(path), reason="size")
    right = shape.read(content, "magic") == layout().constants[magic] and shape.read(content, "size") == shape.size
    if not right or shape.read(content, "version") != layout().constants["LAYOUT_VERSION"]:
        raise YardError("shared_file_broken", path=str(path), reason="version")
    return content


def write_shared(path: Path, at: int, raw: bytes) -> None:
    """Writes these bytes of a shared file. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(handle, raw, at)
    finally:
        os.close(handle)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _make_mutex(view: mmap.mmap, offset: int) -> None:
    libc = _libc()
    attributes = ctypes.create_string_buffer(64)
    libc.pthread_mutexattr_init(attributes)
    libc.pthread_mutexattr_setpshared(attributes, _SHARED)
    libc.pthread_mutexattr_setrobust(attributes, _ROBUST)
    place = (ctypes.c_char * 64).from_buffer(view, offset)
    error = libc.pthread_mutex_init(ctypes.byref(place), attributes)
    del place
    if error:
        raise OSError(error, os.strerror(error))


def _fnv(raw: bytes | bytearray) -> int:
    value = 0xCBF29CE484222325
    for byte in raw:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value

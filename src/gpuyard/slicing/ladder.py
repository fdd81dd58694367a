"""The guarantee ladder: who enforces a slice on a card, no higher than what is proven there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuyard.model.fleet import Card
from gpuyard.model.slices import Guarantee, SliceShape

# What a guarantee may leave unprotected; each is a text key below "guarantee.".
MEMORY: Final = "memory"  # others may use up the slice's memory
COMPUTE: Final = "compute"  # others may use up its compute
FAULTS: Final = "faults"  # a fault or reset of the card reaches everyone on it
DEVICE: Final = "device"  # a unit may open cards that are not its own
OUTSIDE: Final = "outside"  # programs that run outside the yard may open the card
BYPASS: Final = "bypass"  # a program that means to can go around the library that keeps it to its slice
MPS_BYPASS: Final = "mps_bypass"  # the same under MPS: what such a program may have is bounded, process by process
MPS_FAULTS: Final = "mps_faults"  # one program's fatal fault ends all programs of the card's MPS server
MPS_SHARED_MEMORY: Final = "mps_shared_memory"  # containers under MPS share a /dev/shm
KERNEL_COMPUTE: Final = "kernel_compute"  # memory is held by the driver; compute can be had past the library or MPS
KERNEL_FAULTS: Final = "kernel_faults"  # a fault or reset of the card, or under MPS of one program, reaches everyone
KERNEL_MANAGED: Final = "kernel_managed"  # managed memory is the library's to count, not the driver's
KERNEL_ROOT: Final = "kernel_root"  # a plain process runs as the yard's user, who may change limits
MIG_SHARED: Final = "mig_shared"  # power and the way to the card are shared, and so is the loss of the whole card
BANDWIDTH: Final = "bandwidth"  # memory bandwidth, cache and power are shared by all on the card

_SHARED: Final = (MEMORY, COMPUTE, FAULTS)


@dataclass(frozen=True, slots=True)
class GuaranteeVerdict:
    """The guarantee, why it is that one, and what it leaves open; the latter two as text keys below "guarantee."."""

    guarantee: Guarantee
    because: str
    not_protected: tuple[str, ...]


_SIMULATED: Final = GuaranteeVerdict(Guarantee.NONE, "simulated", (*_SHARED, DEVICE))
_FRACTION: Final = GuaranteeVerdict(Guarantee.NONE, "fraction_unenforced", (*_SHARED, DEVICE))
_FRACTION_CONTAINER: Final = GuaranteeVerdict(Guarantee.NONE, "fraction_unenforced", _SHARED)
_OPEN_DEVICES: Final = GuaranteeVerdict(Guarantee.NONE, "process_opens_any_card", (*_SHARED, DEVICE))
_SHIM: Final = GuaranteeVerdict(Guarantee.COOPERATIVE, "shim", (BYPASS, FAULTS, BANDWIDTH, DEVICE))
_EMULATED: Final = GuaranteeVerdict(Guarantee.COOPERATIVE, "shim_emulated", (BYPASS, FAULTS, BANDWIDTH, DEVICE))
_SHIM_CONTAINER: Final = GuaranteeVerdict(Guarantee.COOPERATIVE, "shim", (BYPASS, FAULTS, BANDWIDTH))
_MPS: Final = GuaranteeVerdict(Guarantee.MPS, "mps_held", (MPS_BYPASS, MPS_FAULTS, BANDWIDTH, DEVICE))
_MPS_EMULATED: Final = GuaranteeVerdict(Guarantee.MPS, "mps_emulated", _MPS.not_protected)
_MPS_CONTAINER: Final = GuaranteeVerdict(
    Guarantee.MPS, "mps_held", (MPS_BYPASS, MPS_FAULTS, BANDWIDTH, MPS_SHARED_MEMORY)
)
_KERNEL_OPEN: Final = (KERNEL_COMPUTE, KERNEL_FAULTS, KERNEL_MANAGED, BANDWIDTH)
_KERNEL_OUTSIDE: Final = (*_KERNEL_OPEN, KERNEL_ROOT, DEVICE)
_INSTANCE: Final = GuaranteeVerdict(Guarantee.KERNEL, "mig_held", (MIG_SHARED, DEVICE))
_INSTANCE_EMULATED: Final = GuaranteeVerdict(Guarantee.KERNEL, "mig_emulated", _INSTANCE.not_protected)
_NO_INSTANCE: Final = GuaranteeVerdict(Guarantee.NONE, "mig_not_held", (*_SHARED, DEVICE))
_NO_INSTANCE_CONTAINER: Final = GuaranteeVerdict(Guarantee.NONE, "mig_no_containers", _SHARED)
NOWHERE: Final[frozenset[str]] = frozenset()
_WHOLE: Final = GuaranteeVerdict(Guarantee.EXCLUSIVE, "whole_card_withheld", (OUTSIDE,))


def guarantee(
    card: Card,
    shape: SliceShape,
    runtime_kind: str,
    shim: frozenset[str] = NOWHERE,
    mps: frozenset[str] = NOWHERE,
    kernel: frozenset[str] = NOWHERE,
) -> GuaranteeVerdict:
    """Who enforces this shape on this card when `runtime_kind` (process, container, simulated) runs it.

    `shim` holds the cards (by UUID) on which our library was seen to keep units of this runtime to their slices, and of
    cards in MIG mode those on which an instance was seen to do so, `mps` those where NVIDIA's Multi-Process Service was
    seen to hold them to their multiprocessors besides, `kernel` those where the driver was seen to hold the memory of
    every program, with the library or without. A whole real card is exclusive only where the runtime withholds all
    other cards from every unit, as a container given one card by CDI
    is. Nothing else enforces fractions: memory and compute of a shared card are open to all on it.
    """
    if card.mig is not None:
        return _in_mig_mode(card, runtime_kind, card.uuid in shim)
    withheld = runtime_kind == "container"
    held = runtime_kind in ("process", "container") and card.uuid in shim
    whole = shape.is_whole(card.memory_bytes)
    if held and not whole and card.uuid in kernel:
        return _by_kernel(card, withheld, card.uuid in mps)
    if held and not whole and card.uuid in mps:
        return _MPS_CONTAINER if withheld else _MPS_EMULATED if card.simulated else _MPS
    if held and card.simulated:
        return _EMULATED
    if held and not (withheld and whole):
        return _SHIM_CONTAINER if withheld else _SHIM
    if card.simulated or runtime_kind == "simulated":
        return _SIMULATED
    if not whole:
        return _FRACTION_CONTAINER if withheld else _FRACTION
    return _WHOLE if withheld else _OPEN_DEVICES


def _in_mig_mode(card: Card, runtime_kind: str, held: bool) -> GuaranteeVerdict:
    """The hardware keeps an instance to its memory, its multiprocessors and its part of the caches, and its faults to
    itself. That is what the driver sets up: below a whole card, above all that works inside of programs."""
    if runtime_kind == "container":
        return _NO_INSTANCE_CONTAINER
    if not held:
        return _SIMULATED if card.simulated or runtime_kind == "simulated" else _NO_INSTANCE
    return _INSTANCE_EMULATED if card.simulated else _INSTANCE


def _by_kernel(card: Card, withheld: bool, under_mps: bool) -> GuaranteeVerdict:
    because = "kernel_emulated" if card.simulated else "kernel_mps" if under_mps else "kernel_held"
    inside = (*_KERNEL_OPEN, MPS_SHARED_MEMORY) if under_mps else _KERNEL_OPEN
    return GuaranteeVerdict(Guarantee.KERNEL, because, inside if withheld else _KERNEL_OUTSIDE)


def left_open(level: Guarantee, runtime_kind: str, instance: bool = False) -> tuple[str, ...]:
    """What a slice that was granted under this guarantee is not protected against where that runtime runs it.
    `instance`: a MIG instance backs it."""
    if instance and level is Guarantee.KERNEL:
        return _INSTANCE.not_protected
    verdicts = {
        Guarantee.EXCLUSIVE: (_WHOLE, _WHOLE),
        Guarantee.MPS: (_MPS, _MPS_CONTAINER),
        Guarantee.COOPERATIVE: (_SHIM, _SHIM_CONTAINER),
    }
    if level is Guarantee.KERNEL:
        return _KERNEL_OPEN if runtime_kind == "container" else _KERNEL_OUTSIDE
    outside, inside = verdicts.get(level, (_FRACTION, _FRACTION_CONTAINER))
    return (inside if runtime_kind == "container" else outside).not_protected


def enforced(level: Guarantee) -> bool:
    """Whether a slice of this guarantee is cut by the shim, alone or together with MPS or the driver's own limits."""
    return level in (Guarantee.COOPERATIVE, Guarantee.MPS, Guarantee.KERNEL)

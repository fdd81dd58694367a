"""MIG instances of a yard: tried on this machine's cards in MIG mode, and made for its units from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuyard.control.yard import Yard
    from gpuyard.hardware.probe import Finding
    from gpuyard.model.fleet import Card
    from gpuyard.model.mig import MigPlace
    from gpuyard.slicing.drivers import Driver
    from gpuyard.slicing.mig_keeper import MigKeeper


def try_mig(
    cards: Sequence[Card], driver: Driver, state: Path, boot_id: str
) -> tuple[MigKeeper | None, frozenset[str], tuple[Finding, ...]]:
    """Who makes instances on those of these cards that are in MIG mode, on which of them (by UUID) they were seen to
    hold, and what the doctor says of it. Nobody where there are none."""
    cut = [card.mig for card in cards if card.mig is not None]
    if not cut:
        return None, frozenset(), ()
    from gpuyard.hardware.probe import Finding
    from gpuyard.slicing.mig_keeper import MigKeeper
    from gpuyard.slicing.mig_trial import try_instances
    from gpuyard.slicing.trial import aside, reasons

    keeper = MigKeeper(state / "mig", driver, boot_id)
    told = try_instances(keeper, cut)
    held = frozenset(uuid for uuid, why in told.items() if why is None)
    detail = aside(reasons(told)) if held else reasons(told)
    return keeper, held, (Finding("mig", bool(held), {"cards": len(held), "detail": detail}),)


def cut_by_mig(yard: Yard, cards: Sequence[Card], driver: Driver, state: Path) -> None:
    """From now on the yard's processes get MIG instances of the cards on which these hold. Of the others in MIG mode
    nothing is leased."""
    from gpuyard.engines.process.runtime import ProcessRuntime

    keeper, held, findings = try_mig(cards, driver, state, yard.clock.boot_id)
    yard.engine.findings = (*yard.engine.findings, *findings)
    if keeper is None:
        return
    for runtime in yard.engine.runtimes.values():
        if isinstance(runtime, ProcessRuntime):
            runtime.cut_by_mig(keeper)
            yard.engine.shim_cards["process"] = yard.engine.shim_on("process") | held
    lost = frozenset(card.uuid for card in cards if card.mig is not None) - held
    yard.engine.mig_others = _Others(keeper, held, lost)


class _Others:
    """The instances that are not the yard's, as they were last seen; cards that nothing is leased of are full."""

    def __init__(self, keeper: MigKeeper, held: frozenset[str], lost: frozenset[str]) -> None:
        from gpuyard.control.instances import ALL_OF_IT

        self._keeper = keeper
        self._held = held
        self._full: Mapping[str, tuple[MigPlace, ...]] = dict.fromkeys(lost, (ALL_OF_IT,))
        self._seen: Mapping[str, tuple[MigPlace, ...]] = {}

    def __call__(self) -> Mapping[str, tuple[MigPlace, ...]]:
        with suppress(OSError):  # NVML is silent: the probe tells of that
            self._seen = self._keeper.others(self._held) if self._held else {}
        return {**self._seen, **self._full}

"""What keeps the programs of units to their slices: the library before the driver, or a MIG instance of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpuyard.engines.runtime import Unit
from gpuyard.model.errors import YardError
from gpuyard.model.slices import Guarantee
from gpuyard.slicing.ladder import enforced

if TYPE_CHECKING:
    from gpuyard.slicing.keeper import SliceKeeper
    from gpuyard.slicing.mig_keeper import MigKeeper


@dataclass(slots=True)
class Cutting:
    """Both are None until the yard has tried them on its cards."""

    slices: SliceKeeper | None = None
    instances: MigKeeper | None = None

    def forget_all_but(self, units: Collection[str]) -> None:
        """Gives back what nobody has any more."""
        if self.slices is not None:
            for name in self.slices.units(contained=False).difference(units):
                self.slices.release(name)
        if self.instances is not None:
            for name in self.instances.units().difference(units):
                self.instances.release(name)

    def kept(self, unit: Unit) -> Unit:
        """The unit with what its program needs to be kept to its slices.

        Raises YardError `engine_failed` where what its lease says can no longer be had here, `mig_place_taken`,
        `mig_unavailable`, and `mig_one_slice` for a unit with more than one instance.
        """
        if any(each.mig is not None and each.guarantee is not Guarantee.NONE for each in unit.slices):
            return self._in_an_instance(unit)
        cut = [each for each in unit.slices if enforced(each.guarantee)]
        if not cut:
            return unit
        if self.slices is None:
            reason = "the parts that enforce slices are not here any more"
            raise YardError("engine_failed", runtime="process", reason=reason)
        given = self.slices.for_process(unit.name, cut).environment
        return _overruled(unit, {**given, "CUDA_VISIBLE_DEVICES": ",".join(each.card_uuid for each in cut)})

    def _in_an_instance(self, unit: Unit) -> Unit:
        if self.instances is None:
            reason = "the parts that make MIG instances are not here any more"
            raise YardError("engine_failed", runtime="process", reason=reason)
        cut, *more = unit.slices
        if more:
            raise YardError("mig_one_slice", count=len(unit.slices), model=cut.card_uuid)
        return _overruled(unit, self.instances.hold(unit.name, cut))

    def reap(self, now_ns: int) -> None:
        """Gives back what programs held that died inside a unit that lives on."""
        if self.slices is not None:
            self.slices.reap_at(now_ns)

    def end(self, ended: Collection[str], known: Callable[[], Iterable[str]], now_ns: int) -> None:
        """Ends the slices of units that have ended: what a card was made to be for them is over with them. Those that
        are not even `known` were forgotten before their instance could be removed."""
        if self.slices is not None and ended:
            for name in self.slices.units(contained=False).intersection(ended):
                self.slices.release(name)
        if self.instances is not None and (held := self.instances.units()):
            self.instances.end(sorted(held.difference(known()) | held.intersection(ended)), now_ns)

    def release(self, name: str) -> None:
        """Gives back what one unit has."""
        if self.slices is not None:
            self.slices.release(name)
        if self.instances is not None:
            self.instances.release(name)


def _overruled(unit: Unit, mine: Mapping[str, str]) -> Unit:
    """The unit with these variables, whatever it says itself."""
    mine = dict(mine)
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD"):  # ours first; what the tenant wants besides stays
        both = [part for part in (mine.get(name), unit.environment.get(name)) if part]
        mine.update({name: ":".join(both)} if both else {})
    secrets = {name: value for name, value in unit.secrets.items() if name not in mine}
    return replace(unit, environment={**unit.environment, **mine}, secrets=secrets)

"""Slices of containers: what a unit asks its engine for, so that it is kept to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from gpuyard.engines.container.creation import slices_of
from gpuyard.engines.runtime import Unit
from gpuyard.model.errors import YardError
from gpuyard.slicing import cdi
from gpuyard.slicing.keeper import SliceKeeper


class ContainerSlices:
    """Cuts the slices of units and tells the engine of them, by a CDI spec for each unit."""

    def __init__(self, keeper: SliceKeeper, driver: cdi.DriverInside, folder: Path = cdi.FOLDERS[-1]) -> None:
        self.keeper = keeper
        self._driver = driver
        self._folder = folder

    def give(self, unit: Unit) -> Unit:
        """The unit with the variables it needs. Raises YardError `slice_refused`, or OSError where no spec can be
        written."""
        cut = slices_of(unit)
        given = self.keeper.for_container(unit.name, cut, self._driver)
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(each.card_uuid for each in cut)}
        environment = {**given.environment, **visible}
        cdi.write_spec(self._folder, unit.name, environment, given.mounts)
        # In the spec they overrule what the image and the tenant say; sessions inside see those of the unit alone.
        secrets = {name: value for name, value in unit.secrets.items() if name not in environment}
        return replace(unit, environment={**unit.environment, **environment}, secrets=secrets)

    def end(self, name: str) -> None:
        """Ends a unit's slices. An unknown one is no error."""
        cdi.spec_file(self._folder, name).unlink(missing_ok=True)
        self.keeper.release(name)

    def end_all_of(self, names: Iterable[str]) -> None:
        """Ends the slices of units that have ended; a unit of that name does not begin again."""
        for name in self.keeper.units(contained=True).intersection(names):
            self.end(name)

    def end_all_but(self, names: Collection[str]) -> None:
        """Ends the slices of containers that are none any more."""
        for name in self.keeper.units(contained=True) - set(names):
            self.end(name)


def given(slices: ContainerSlices | None, unit: Unit) -> Unit:
    """The unit with what keeps it to its slices; as it is where it has none that are enforced inside of it.

    Raises YardError `slice_refused` where it must be kept and nothing here can.
    """
    if not slices_of(unit):
        return unit
    if slices is None:
        raise YardError("slice_refused", slice=unit.name, reason="the parts that enforce slices are not here any more")
    return slices.give(unit)

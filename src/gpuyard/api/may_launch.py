"""Whether a caller may launch what it asks for: the same at every door."""

from __future__ import annotations

from contextlib import suppress

from gpuyard.access.policies.patterns import Values
from gpuyard.access.rules import Action
from gpuyard.api.asking import Asking, facts_of
from gpuyard.control.launching import Launch, prepare
from gpuyard.model.errors import YardError
from gpuyard.model.workloads import WorkloadSpec

VERB = "ec2:RunInstances"


def must_be_allowed(caller: Asking, tenant_id: str, wish: Launch) -> None:
    """Raises YardError `forbidden` or `denied_by_policy`."""
    caller.must(Action.LAUNCH, tenant_id, verb=VERB, facts=_wished(caller, wish))


def must_be_inside(caller: Asking, tenant_id: str, wish: Launch) -> None:
    """Raises YardError `outside_geography`, `outside_residency`. A launch that could never work is refused for that,
    and not here."""
    atlas = caller.yard.authority.atlas()
    if not atlas.classes and not atlas.residency:  # nowhere is anything fenced off: the launch need not be worked out
        return
    with suppress(_NotPreparedError):
        caller.must_be_inside(Action.LAUNCH, tenant_id, _spec(caller, wish), VERB)


def _wished(caller: Asking, wish: Launch) -> dict[str, Values]:
    """What policies may ask about a launch: the tags that are asked for, and what it would run on."""
    try:
        facts = facts_of(_spec(caller, wish))
    except _NotPreparedError:  # refused later for that, or answered with what it made before
        facts = {"ec2:InstanceType": wish.slices.offer or "custom"}
    tags: dict[str, Values] = {f"aws:RequestTag/{name}": value for name, value in wish.labels.items()}
    if tags:
        tags["aws:TagKeys"] = tuple(wish.labels)
    return {key: value for key, value in facts.items() if not key.startswith("aws:ResourceTag/")} | tags


class _NotPreparedError(Exception):
    """A launch that the yard refuses for what it asks for."""


def _spec(caller: Asking, wish: Launch) -> WorkloadSpec:
    try:
        return prepare(caller.yard, wish).spec
    except YardError as error:
        raise _NotPreparedError from error

"""The state machines: everything is reached, what is final stays, and nothing else is possible."""

from __future__ import annotations

import pytest

from gpuyard.model.errors import YardError
from gpuyard.model.states import (
    CARD,
    LEASE,
    MACHINES,
    NODE,
    WORKLOAD,
    CardState,
    LeaseState,
    NodeState,
    StateMachine,
    WorkloadState,
)

ENUMS = {NODE: NodeState, CARD: CardState, LEASE: LeaseState, WORKLOAD: WorkloadState}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.noun)
def test_every_state_of_a_noun_is_reached_from_its_first(machine: StateMachine) -> None:
    reached, before = {machine.initial}, set()
    while reached != before:
        before = set(reached)
        reached |= {target for source, _, target in machine.arrows if source in before}
    assert reached == set(ENUMS[machine]) == set(machine.states)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.noun)
def test_no_arrow_is_drawn_twice_and_none_leads_nowhere(machine: StateMachine) -> None:
    pairs = [(source, target) for source, _, target in machine.arrows]
    assert len(pairs) == len(set(pairs))
    assert all(source != target and why for source, why, target in machine.arrows)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.noun)
def test_what_the_table_does_not_hold_is_refused(machine: StateMachine) -> None:
    arrows = {(source, target) for source, _, target in machine.arrows}
    for source in machine.states:
        for target in machine.states:
            if (source, target) in arrows or source == target:
                machine.check(source, target)
            else:
                with pytest.raises(YardError) as refused:
                    machine.check(source, target)
                assert refused.value.code == "wrong_state"


def test_an_ended_lease_and_a_removed_workload_stay_so() -> None:
    assert LEASE.final == {LeaseState.ENDED}
    assert WORKLOAD.final == {WorkloadState.REMOVED}
    assert NODE.final == CARD.final == frozenset()


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.noun)
def test_the_drawing_shows_every_arrow(machine: StateMachine) -> None:
    drawn = machine.mermaid().splitlines()
    assert drawn[1].strip() == f"[*] --> {machine.initial}"
    for source, why, target in machine.arrows:
        assert f"    {source} --> {target}: {why}" in drawn

"""What a machine tells of itself, and of nothing else: that it is there, and which cards it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from gpuyard.access.machines import is_late
from gpuyard.control.machines.admitting import Admitted
from gpuyard.control.machines.gate import Gate
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.machines import Machine, MachineState
from gpuyard.store import events, machines

KEEP_EVERY_US = 60_000_000  # a heartbeat is written down this often, and at once where it says something new


def heartbeat(who: Admitted, clock_ahead_us: int, version: str) -> None:
    """The machine is there. `clock_ahead_us` is its clock before the yard's.

    Raises YardError `machine_refused`.
    """
    gate, machine = who.gate, who.machine
    now_us = gate.yard.clock.now_us()
    gate.heard_us[machine.id] = now_us
    kept_us = gate.kept_us.get(machine.id)
    fresh = kept_us is not None and now_us - kept_us < KEEP_EVERY_US
    if fresh and machine.late_since_us is None and machine.version == version:
        return
    told = {
        "heartbeat_us": now_us,
        "clock_ahead_us": clock_ahead_us,
        "version": version,
        "late_since_us": None,
    }
    with gate.yard.store.write(tells=False) as c:
        who.must_still_count(c)
        machines.tell(c, machine.id, told)
        if machine.late_since_us is not None:
            data = {"late_since_us": machine.late_since_us}
            events.append(c, [Event("machine.back", machine.name, now_us, None, machine.name, data)])
    gate.kept_us[machine.id] = now_us


def report(who: Admitted, inventory: Mapping[str, Any]) -> bool:
    """What it has, as it sees it; whether that is new. A card that another machine has, and told of, is refused.

    Raises YardError `machine_refused`, `card_of_another`.
    """
    gate, machine = who.gate, who.machine
    now_us = gate.yard.clock.now_us()
    text = json.dumps(inventory, sort_keys=True, ensure_ascii=False)
    cards = cards_of(machine)
    with gate.yard.store.write(tells=False) as c:
        who.must_still_count(c)
        others = [one for one in machines.listing(c) if one.id != machine.id]
        _must_be_its_own(gate, others, [str(card["uuid"]) for card in inventory["cards"]])
        machines.tell(c, machine.id, {"inventory": text, "inventory_us": now_us})
        before, now = {str(card["uuid"]) for card in cards}, {str(card["uuid"]) for card in inventory["cards"]}
        if before != now:
            data = {"new": sorted(now - before), "gone": sorted(before - now)}
            events.append(c, [Event("machine.cards", machine.name, now_us, None, machine.name, data)])
    return text != machine.inventory


def cards_of(machine: Machine) -> list[Mapping[str, Any]]:
    """The cards that a machine told of last."""
    return [] if machine.inventory is None else cast("list[Mapping[str, Any]]", json.loads(machine.inventory)["cards"])


def last_heard_us(gate: Gate | None, machine: Machine) -> int | None:
    """When its last heartbeat came; None where none ever did."""
    heard_us = None if gate is None else gate.heard_us.get(machine.id)
    return max((at for at in (heard_us, machine.heartbeat_us) if at is not None), default=None)


def lateness(yard: Yard, gate: Gate | None, machine: Machine) -> bool | None:
    """Whether its heartbeat is overdue; None where that cannot be told."""
    if machine.state is not MachineState.JOINED:
        return None
    since_us = None if gate is None else gate.since_us
    return is_late(last_heard_us(gate, machine), since_us, yard.clock.now_us())


def _must_be_its_own(gate: Gate, others: list[Machine], wanted: list[str]) -> None:
    """Raises YardError `card_of_another`. What a machine that is late or revoked told is no claim: cards are moved."""
    here = {card.uuid: node.name for node in gate.yard.roster.nodes for card in node.cards}
    for other in others:
        if lateness(gate.yard, gate, other) is False:
            here.update({str(card["uuid"]): other.name for card in cards_of(other)})
    for uuid in wanted:
        if uuid in here:
            raise YardError("card_of_another", card=uuid, machine=here[uuid])

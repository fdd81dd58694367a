"""Keeps the fleet in the store as the probes find it: cards that are gone are MISSING, not forgotten."""

from __future__ import annotations

from sqlalchemy import Connection

from gpuyard.control.roster import Roster
from gpuyard.control.yard import Yard
from gpuyard.hardware.confidential import find_confidential
from gpuyard.hardware.probe import Finding
from gpuyard.model.events import Event
from gpuyard.model.fleet import Card, Node
from gpuyard.model.states import CardState, NodeState
from gpuyard.store import events, fleet


def update_fleet(yard: Yard, now_us: int) -> None:
    """Probes and writes down what is different from the store; nothing where nothing is."""
    found: dict[str, Node] = {}
    findings: list[Finding] = []
    for probe in yard.probes:
        report = probe.probe()
        found.update({node.name: node for node in report.nodes})
        findings += report.findings
    yard.findings = (*findings, *yard.engine.findings, find_confidential())
    known = {node.name: node for node in yard.roster.nodes}
    if not known:
        with yard.store.read() as c:
            known = {node.name: node for node in fleet.nodes(c)}
    if not yard.roster.nodes:
        yard.roster = Roster.of(
            list(known.values()), yard.book, yard.engine.default, yard.engine.shim_on(yard.engine.default)
        )
    if all(_same(node, known.get(name)) for name, node in found.items()) and all(
        name in found or node.state is NodeState.LOST for name, node in known.items()
    ):
        return
    with yard.store.write() as c:
        told: list[Event] = []
        for name in sorted(known.keys() - found.keys()):
            told += _lose_node(c, known[name], now_us)
        for name in sorted(found):
            told += _keep_node(c, found[name], known.get(name), now_us)
        if told:
            events.append(c, told)
        fleet.advance(c, fleet.version(c))
        nodes = fleet.nodes(c)
    yard.roster = Roster.of(nodes, yard.book, yard.engine.default, yard.engine.shim_on(yard.engine.default))


def _same(node: Node, known: Node | None) -> bool:
    if known is None or known.state is NodeState.LOST:
        return False
    facts = (node.cpu_milli, node.memory_bytes, node.rack, node.region)
    if facts != (known.cpu_milli, known.memory_bytes, known.rack, known.region) or node.topology != known.topology:
        return False
    here = {card.uuid: card.memory_bytes for card in node.cards}
    there = {card.uuid: card.memory_bytes for card in known.cards if card.state is not CardState.MISSING}
    return here == there


def _lose_node(c: Connection, known: Node, now_us: int) -> list[Event]:
    if known.state is NodeState.LOST:
        return []
    fleet.set_node_state(c, known.name, NodeState.LOST)
    lost = [_mark(c, card, CardState.MISSING, now_us) for card in known.cards if card.state is not CardState.MISSING]
    return [Event("node.lost", known.name, now_us), *lost]


def _keep_node(c: Connection, node: Node, known: Node | None, now_us: int) -> list[Event]:
    told: list[Event] = []
    before = {card.uuid: card for card in known.cards} if known else {}
    fleet.save_node(c, node, now_us)
    if known is None:
        told.append(Event("node.found", node.name, now_us, data={"cards": len(node.cards)}))
    elif known.state is NodeState.LOST:
        fleet.set_node_state(c, node.name, NodeState.READY)
        told.append(Event("node.ready", node.name, now_us))
    here = {card.uuid for card in node.cards}
    for uuid, card in before.items():
        if uuid not in here and card.state is not CardState.MISSING:
            told.append(_mark(c, card, CardState.MISSING, now_us))
        elif uuid in here and card.state is CardState.MISSING:
            told.append(_mark(c, card, CardState.HEALTHY, now_us))
    return told


def _mark(c: Connection, card: Card, state: CardState, now_us: int) -> Event:
    fleet.set_card_state(c, card.uuid, state)
    return Event(f"card.{state}", card.uuid, now_us, data={"model": card.model, "node": card.node})

"""Keeps the fleet in the store as the probes find it: cards that are gone are MISSING, not forgotten."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from gpuyard.catalog.prices import PriceBook
from gpuyard.control import volumes
from gpuyard.control.clock import latest
from gpuyard.control.incidents import close_one, open_one
from gpuyard.control.instances import with_others
from gpuyard.control.roster import Roster
from gpuyard.control.yard import Yard
from gpuyard.hardware.confidential import find_confidential
from gpuyard.hardware.probe import Finding
from gpuyard.model.events import Event
from gpuyard.model.fleet import Card, Node
from gpuyard.model.incidents import Cause, Incident
from gpuyard.model.mig import MigProfile
from gpuyard.model.names import new_id
from gpuyard.model.states import CardState, NodeState
from gpuyard.model.units import format_price
from gpuyard.store import events, fleet, incidents

EVERY_US = 10_000_000
_YARD = "yard"  # who opens and closes what the probes say


def update_fleet(yard: Yard, now_us: int) -> None:
    """Probes and writes down what is different from the store; nothing where nothing is."""
    found: dict[str, Node] = {}
    findings: list[Finding] = []
    for probe in yard.probes:
        report = probe.probe()
        found.update({node.name: node for node in report.nodes})
        findings += report.findings
    yard.findings = (
        *findings,
        *yard.engine.findings,
        *unmetered(yard.book, yard.engine.runtimes),
        find_confidential(),
        *volumes.findings(yard),
    )
    known = {node.name: node for node in yard.roster.nodes}
    if not known:
        with yard.store.read() as c:
            known = {node.name: node for node in fleet.nodes(c)}
    if not yard.roster.nodes:
        yard.roster = _roster(yard, list(known.values()))
    others = yard.engine.mig_others()
    if others != yard.mig_others:
        yard.mig_others = others
        yard.roster = _roster(yard, [_alone(node) for node in yard.roster.nodes])
    if all(_same(node, known.get(name)) for name, node in found.items()) and all(
        name in found or node.state is NodeState.LOST for name, node in known.items()
    ):
        yard.fleet_seen_us = now_us
        return
    with yard.store.write() as c:
        times = Times(_well_until(c, yard, now_us), now_us)
        told: list[Event] = []
        for name in sorted(known.keys() - found.keys()):
            told += _lose_node(c, known[name], times)
        for name in sorted(found):
            told += _keep_node(c, found[name], known.get(name), times)
        if told:
            events.append(c, told)
        fleet.advance(c, fleet.version(c))
        nodes = fleet.nodes(c)
    yard.fleet_seen_us = now_us
    yard.roster = _roster(yard, nodes)


def offer_anew(yard: Yard) -> None:
    """The same fleet, with the guarantees that hold now."""
    yard.roster = _roster(yard, list(yard.roster.nodes))


def _roster(yard: Yard, nodes: list[Node]) -> Roster:
    kind = yard.engine.default
    engine = yard.engine
    if any(card.mig is not None for node in nodes for card in node.cards):
        held = frozenset[str]().union(*engine.shim_cards.values())
        nodes = with_others(nodes, yard.mig_others, held)
    return Roster.of(nodes, yard.book, kind, engine.shim_on(kind), engine.mps_on(kind), engine.kernel_on(kind))


def _same(node: Node, known: Node | None) -> bool:
    if known is None or known.state is NodeState.LOST:
        return False
    facts = (node.cpu_milli, node.memory_bytes, node.rack, node.region)
    if facts != (known.cpu_milli, known.memory_bytes, known.rack, known.region) or node.topology != known.topology:
        return False
    here = {card.uuid: (card.memory_bytes, _profiles(card)) for card in node.cards}
    there = {c.uuid: (c.memory_bytes, _profiles(c)) for c in known.cards if c.state is not CardState.MISSING}
    return here == there


def _profiles(card: Card) -> tuple[MigProfile, ...] | None:
    return None if card.mig is None else card.mig.profiles


def _alone(node: Node) -> Node:
    """The node with no instances of others on its cards."""
    cards = (card if card.mig is None else replace(card, mig=replace(card.mig, taken=())) for card in node.cards)
    return replace(node, cards=tuple(cards))


@dataclass(frozen=True, slots=True)
class Times:
    """When a probe last found everything that the store says is there, and now."""

    well_us: int
    now_us: int


def _well_until(c: Connection, yard: Yard, now_us: int) -> int:
    """A yard that was killed in between had probed at most one period before it last wrote down that it lives."""
    if yard.fleet_seen_us is not None:
        return yard.fleet_seen_us
    seen_us = latest(c)
    return now_us if seen_us is None else min(now_us, max(0, seen_us - EVERY_US))


def _lose_node(c: Connection, known: Node, times: Times) -> list[Event]:
    if known.state is NodeState.LOST:
        return []
    fleet.set_node_state(c, known.name, NodeState.LOST)
    _open(c, Cause.NODE_LOST, known.name, None, times)
    here = [card for card in known.cards if card.state is not CardState.MISSING]
    lost = [_mark(c, card, CardState.MISSING, times.now_us) for card in here]
    return [Event("node.lost", known.name, times.now_us), *lost]


def _keep_node(c: Connection, node: Node, known: Node | None, times: Times) -> list[Event]:
    told: list[Event] = []
    before = {card.uuid: card for card in known.cards} if known else {}
    fleet.save_node(c, node, times.now_us)
    back = known is not None and known.state is NodeState.LOST
    if known is None:
        told.append(Event("node.found", node.name, times.now_us, data={"cards": len(node.cards)}))
    elif back:
        fleet.set_node_state(c, node.name, NodeState.READY)
        _close(c, Cause.NODE_LOST, node.name, None, times.now_us)
        told.append(Event("node.ready", node.name, times.now_us))
    here = {card.uuid for card in node.cards}
    for uuid, card in before.items():
        if uuid not in here and card.state is not CardState.MISSING:
            _open(c, Cause.CARD_LOST, node.name, uuid, times)
            told.append(_mark(c, card, CardState.MISSING, times.now_us))
        elif uuid not in here and back:  # the node came back without it
            _open(c, Cause.CARD_LOST, node.name, uuid, Times(times.now_us, times.now_us))
        elif uuid in here and card.state is CardState.MISSING:
            _close(c, Cause.CARD_LOST, node.name, uuid, times.now_us)
            told.append(_mark(c, card, CardState.HEALTHY, times.now_us))
    return told


def _open(c: Connection, cause: Cause, node: str, uuid: str | None, times: Times) -> None:
    open_one(c, Incident(new_id("in", times.now_us), cause, node, uuid, None, "", times.now_us, _YARD, times.well_us))


def _close(c: Connection, cause: Cause, node: str, uuid: str | None, now_us: int) -> None:
    found = incidents.open_about(c, cause, node, uuid)
    if found is not None:
        close_one(c, found, now_us, _YARD, now_us)


def _mark(c: Connection, card: Card, state: CardState, now_us: int) -> Event:
    fleet.set_card_state(c, card.uuid, state)
    return Event(f"card.{state}", card.uuid, now_us, data={"model": card.model, "node": card.node})


def unmetered(book: PriceBook, runtimes: Collection[str]) -> list[Finding]:
    """What the book asks a price for and a runtime here cannot measure: its writer should know what earns nothing."""
    if not book.egress_per_gib_nano or "process" not in runtimes:
        return []
    return [Finding("unmetered_egress", False, {"price": format_price(book.egress_per_gib_nano)})]

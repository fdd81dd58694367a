from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gpuyard.catalog import offers, prices
from gpuyard.hardware.simulated import parse_spec, simulated_node
from gpuyard.model.errors import YardError
from gpuyard.model.fleet import Card, Node
from gpuyard.model.offers import Offer
from gpuyard.model.slices import FRACTIONS, Guarantee, SliceShape
from gpuyard.model.units import GIB, MIB
from gpuyard.texts import error_text


@dataclass(frozen=True)
class Verdict:
    guarantee: Guarantee = Guarantee.NONE
    not_protected: tuple[str, ...] = ()


def none_at_all(card: Card, shape: SliceShape) -> Verdict:
    return Verdict()


def a_node(name: str, spec: str, cpus: int, memory_gib: int) -> Node:
    return simulated_node(name, parse_spec(spec), cpus * 1000, memory_gib * GIB)


def make(*nodes: Node, guarantee_of: offers.GuaranteeOf = none_at_all) -> dict[str, Offer]:
    cards = [card for node in nodes for card in node.cards]
    return {offer.name: offer for offer in offers.make(cards, nodes, prices.load(), guarantee_of)}


def test_every_model_that_is_present_is_offered_in_every_named_fraction() -> None:
    made = make(a_node("a", "2xRTX4090,1xA100-40GB", 24, 192))
    assert set(made) == {f"{slug}-{fraction}" for slug in ("rtx4090", "a100-40gb") for fraction in FRACTIONS}
    quarter = made["rtx4090-quarter"]
    assert quarter.card_model == "RTX4090"
    assert quarter.shape == SliceShape(6 * GIB, 250_000)
    assert quarter.price_per_hour_nano == 150_000_000
    assert quarter.currency == "USD"


def test_a_node_full_of_slices_always_has_the_cpu_and_memory_for_them() -> None:
    nodes = (a_node("a", "3xRTX4090,2xH100", 7, 100), a_node("b", "8xRTX4090", 129, 33))
    for offer in make(*nodes).values():
        parts = FRACTIONS[offer.name.rpartition("-")[2]]
        for node in nodes:
            if all(card.model != offer.card_model for card in node.cards):
                continue
            assert offer.cpu_milli * parts * len(node.cards) <= node.cpu_milli
            assert offer.memory_bytes * parts * len(node.cards) <= node.memory_bytes


def test_cpu_and_memory_are_those_of_the_node_that_has_least_of_each() -> None:
    made = make(a_node("a", "2xRTX4090", 16, 512), a_node("b", "2xRTX4090", 64, 128))
    assert made["rtx4090-half"].cpu_milli == 16_000 // 2 // 2
    assert made["rtx4090-half"].memory_bytes == 128 * GIB // 2 // 2


def test_a_node_without_the_model_does_not_make_its_offers_smaller() -> None:
    assert make(a_node("a", "1xRTX4090", 16, 64), a_node("b", "1xL4", 1, 1))["rtx4090-full"].cpu_milli == 16_000


def test_a_card_that_is_missing_now_does_not_make_offers_that_will_not_fit_when_it_is_back() -> None:
    node = a_node("a", "2xRTX4090", 16, 64)
    (offer, *_) = offers.make(node.cards[:1], [node], prices.load(), none_at_all)
    assert offer.cpu_milli == 8_000


def test_the_smallest_card_of_a_model_sets_the_memory() -> None:
    node = a_node("a", "2xRTX4090", 16, 64)
    small = replace(node.cards[1], memory_bytes=24_564 * MIB)
    made = make(replace(node, cards=(node.cards[0], small)))
    assert made["rtx4090-full"].shape.memory_bytes == 24_564 * MIB
    assert made["rtx4090-full"].price_per_hour_nano == 600_000_000


def test_an_offer_promises_only_what_the_weakest_card_guarantees() -> None:
    node = a_node("a", "2xRTX4090", 16, 64)

    def verdict(card: Card, shape: SliceShape) -> Verdict:
        if card is node.cards[0]:
            return Verdict(Guarantee.EXCLUSIVE, ("outside",))
        return Verdict(Guarantee.MPS, ("faults", "outside"))

    offer = make(node, guarantee_of=verdict)["rtx4090-full"]
    assert offer.guarantee is Guarantee.MPS
    assert set(offer.not_protected) == {"outside", "faults"}


def test_a_model_without_a_price_is_not_for_rent(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('currency = "USD"\nstorage_per_gib_hour = "0"\n[cards.L4]\non_demand = "1"\n')
    node = a_node("a", "1xRTX4090,1xL4", 16, 64)
    made = offers.make(node.cards, [node], prices.load(path), none_at_all)
    assert {offer.card_model for offer in made} == {"L4"}


def test_cards_of_a_node_that_is_not_given_are_not_offered() -> None:
    assert offers.make(a_node("a", "1xL4", 16, 64).cards, [], prices.load(), none_at_all) == []


def test_the_shape_of_an_offers_name_is_the_shape_of_the_offer() -> None:
    node = a_node("a", "2xRTX4090,1xA100-40GB", 24, 192)
    for name, offer in make(node).items():
        found = offers.shape_of(name.upper(), node.cards)
        assert (found.card_model, found.shape) == (offer.card_model, offer.shape)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("rtx4090-third", "unknown_offer"),
        ("rtx4090", "unknown_offer"),
        ("-half", "unknown_offer"),
        ("", "unknown_offer"),
        ("x" * 1000, "unknown_offer"),
        ("rtx4o90-half", "unknown_offer"),
        ("h100-half", "no_card_of_model"),
        ("h100-pcie-half", "no_card_of_model"),
    ],
)
def test_a_name_that_is_no_offer_here_is_refused_with_what_there_is(name: str, code: str) -> None:
    with pytest.raises(YardError) as caught:
        offers.shape_of(name, a_node("a", "1xRTX4090", 16, 64).cards)
    assert caught.value.code == code
    for language in ("en", "zh"):
        assert "4090" in error_text(code, language, caught.value.params)

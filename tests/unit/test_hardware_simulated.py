from __future__ import annotations

import pytest

from gpuyard.hardware.simulated import MAX_CARDS, SimulatedProbe, parse_spec
from gpuyard.model.errors import YardError
from gpuyard.model.units import GIB
from gpuyard.texts import error_text


def counts(spec: str) -> list[tuple[str, int]]:
    return [(group.model.name, group.count) for group in parse_spec(spec)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("8xRTX4090", [("RTX4090", 8)]),
        ("8xRTX4090,2xH100", [("RTX4090", 8), ("H100", 2)]),
        (" 8 x rtx 4090 , 2X a100 ", [("RTX4090", 8), ("A100-80GB", 2)]),
        ("RTX4090", [("RTX4090", 1)]),
        ("1xL4,1xL4", [("L4", 1), ("L4", 1)]),
        (f"{MAX_CARDS}xL4", [("L4", MAX_CARDS)]),
    ],
)
def test_a_spec_names_models_and_how_many(spec: str, expected: list[tuple[str, int]]) -> None:
    assert counts(spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        *("", ",", "8x", "8xL4,", "0xL4", "-1xL4", "1e30xL4", "1.5xL4", "8*L4"),
        *("100001xL4", f"{MAX_CARDS}xL4,1xL4", "9" * 12 + "xL4", "9" * 400 + "xL4"),
    ],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_spec_that_describes_no_fleet_is_refused_with_an_example(spec: str, language: str) -> None:
    with pytest.raises(YardError) as caught:
        parse_spec(spec)
    assert caught.value.code == "fleet_spec_invalid"
    assert "8xRTX4090" in error_text(caught.value.code, language, caught.value.params)


@pytest.mark.parametrize(("spec", "nearest"), [("8xRTX4O90", "RTX4090"), ("1xL4,H2000", "H200"), ("2xL40", "L40S")])
def test_an_unknown_model_in_a_spec_is_answered_with_the_nearest(spec: str, nearest: str) -> None:
    with pytest.raises(YardError) as caught:
        parse_spec(spec)
    assert (caught.value.code, caught.value.params["nearest"]) == ("unknown_card_model", nearest)


def test_a_restart_finds_the_same_cards() -> None:
    first, second = (SimulatedProbe.from_spec("8xRTX4090,2xH100").probe() for _ in range(2))
    assert first.nodes == second.nodes


def test_cards_of_different_nodes_are_different_cards() -> None:
    reports = [SimulatedProbe.from_spec("4xL4", node).probe() for node in ("a", "b")]
    uuids = [card.uuid for report in reports for node in report.nodes for card in node.cards]
    assert len(set(uuids)) == 8


def test_a_card_more_at_the_end_leaves_the_others_as_they_were() -> None:
    few = SimulatedProbe.from_spec("2xL4").probe().nodes[0].cards
    more = SimulatedProbe.from_spec("3xL4").probe().nodes[0].cards
    assert [card.uuid for card in more[:2]] == [card.uuid for card in few]


@pytest.mark.parametrize(("spec", "cpus", "memory_gib"), [("1xL4", 16, 128), ("8xL4", 64, 512), ("10xL4", 80, 640)])
def test_a_simulated_node_grows_with_its_cards(spec: str, cpus: int, memory_gib: int) -> None:
    (node,) = SimulatedProbe.from_spec(spec).probe().nodes
    assert (node.cpu_milli, node.memory_bytes) == (cpus * 1000, memory_gib * GIB)
    assert node.simulated


def test_half_of_the_cards_are_at_each_socket() -> None:
    (node,) = SimulatedProbe.from_spec("8xL4").probe().nodes
    assert [card.numa_node for card in node.cards] == [0] * 4 + [1] * 4


def test_a_thousand_cards_have_a_thousand_addresses() -> None:
    (node,) = SimulatedProbe.from_spec("1000xRTX4090").probe().nodes
    assert len({card.pci_address for card in node.cards}) == 1000
    assert len({card.uuid for card in node.cards}) == 1000


@pytest.mark.parametrize("spec", ["1xH100:mig", "h100:MIG", " 1 x H100:mig "])
def test_cards_of_a_spec_may_be_in_mig_mode(spec: str) -> None:
    (group,) = parse_spec(spec)
    assert (group.model.name, group.count, group.mig) == ("H100", 1, True)
    (card,) = SimulatedProbe.from_spec(spec).probe().nodes[0].cards
    assert card.mig is not None
    assert "3g.40gb" in {profile.name for profile in card.mig.profiles}
    assert (
        card.uuid == SimulatedProbe.from_spec("1xH100").probe().nodes[0].cards[0].uuid
    )  # the same card, cut otherwise


def test_a_card_that_has_no_mig_cannot_be_in_that_mode() -> None:
    with pytest.raises(YardError) as refused:
        parse_spec("8xRTX4090:mig")
    assert refused.value.code == "mig_not_there"
    assert "RTX4090 has no MIG mode" in error_text("mig_not_there", "en", refused.value.params)

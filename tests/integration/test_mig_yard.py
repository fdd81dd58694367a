"""Leases of cards in MIG mode in a yard: what is offered, granted, billed, told and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpuyard.api.views import lease_view, offer_view
from gpuyard.api.why_view import why_view
from gpuyard.control.explaining import why
from gpuyard.control.instances import with_others
from gpuyard.control.launching import Launch
from gpuyard.control.offering import SliceWish, list_offers
from gpuyard.hardware.simulated import parse_spec, simulated_node
from gpuyard.model.errors import YardError
from gpuyard.model.leases import Lease
from gpuyard.model.mig import MigPlace
from gpuyard.model.units import MIB
from gpuyard.model.workloads import Desired, Workload, WorkloadKind
from gpuyard.scheduling.mig_places import room
from gpuyard.store import fleet, leases, workloads
from gpuyard.texts import error_text
from hand_driven_yard import HandYard

SMALL = 9728 * MIB


@pytest.fixture
def hand(tmp_path: Path) -> HandYard:
    return HandYard(tmp_path, "1xRTX4090,1xH100:mig")


def started(hand: HandYard, name: str, wish: SliceWish) -> tuple[Workload, Lease]:
    launch = Launch(WorkloadKind.INSTANCE, wish, name=name, command=("sleep", "99999"))
    made = hand.launch(hand.tenant("alice"), launch)
    hand.settle()
    with hand.yard.store.read() as c:
        return workloads.get(c, made.id) or made, leases.of_workload(c, made.id)[-1]


def ended(hand: HandYard, workload: Workload) -> None:
    with hand.yard.store.write() as c:
        workloads.set_desired(c, workload.id, Desired.REMOVE, hand.clock.now_us())
    hand.settle()


def free(hand: HandYard) -> dict[str, int]:
    with hand.yard.store.read() as c:
        return {offer.name: offer.available for offer in list_offers(hand.yard, c) if offer.card_model == "H100"}


def test_a_card_in_mig_mode_is_offered_by_its_profiles_with_what_they_have(hand: HandYard) -> None:
    with hand.yard.store.read() as c:
        offers = {offer.name: offer for offer in list_offers(hand.yard, c)}
    assert [name for name in offers if name.startswith("h100")] == [
        "h100-7g.80gb", "h100-4g.40gb", "h100-3g.40gb", "h100-2g.20gb", "h100-1g.20gb", "h100-1g.10gb"
    ]  # fmt: skip
    small, whole = offers["h100-1g.10gb"], offers["h100-7g.80gb"]
    assert (small.shape.memory_bytes, small.shape.compute_ppm, small.available) == (SMALL, 142_857, 7)
    assert small.price_per_hour_nano == whole.price_per_hour_nano * 142_857 // 1_000_000
    assert (small.cpu_milli, whole.cpu_milli) == (8000 * 142_857 // 1_000_000, 8000)
    assert offers["h100-1g.20gb"].price_per_hour_nano > small.price_per_hour_nano  # it has two slices of memory
    assert offer_view(small, "en")["memory_bytes"] == SMALL
    assert offers["rtx4090-quarter"].available == 4


def test_a_lease_has_an_instance_at_a_place_and_pays_for_it(hand: HandYard) -> None:
    workload, lease = started(hand, "one", SliceWish(offer="h100-1g.10gb"))
    (cut,) = lease.slices
    assert str(cut.mig) == "1g.10gb@6"
    assert (cut.shape.memory_bytes, cut.shape.compute_ppm) == (SMALL, 142_857)
    assert lease.terms is not None
    assert lease.terms.active_per_hour_nano == hand.yard.book.price_nano("H100", 142_857)
    assert lease_view(lease, "simulated", "en")["slices"][0]["instance"] == "1g.10gb@6"
    for language, word in (("en", "smallest"), ("zh", "最小")):
        said = "\n".join(why_view(why(hand.yard, workload), language)["lines"])
        assert "1g.10gb@6" in said
        assert word in said
    assert free(hand)["h100-1g.10gb"] == 6
    assert free(hand)["h100-7g.80gb"] == 0
    hand.kill()  # and another yard on the same store knows of the place
    assert free(hand)["h100-1g.10gb"] == 6
    ended(hand, workload)
    assert free(hand)["h100-7g.80gb"] == 1


@pytest.mark.parametrize(
    ("wish", "offer"),
    [
        (SliceWish(card_model="H100", memory_bytes=12 << 30), "h100-1g.20gb"),
        (SliceWish(card_model="H100", compute_ppm=250_000), "h100-2g.20gb"),
        (SliceWish(card_model="H100", memory_bytes=12 << 30, compute_ppm=400_000), "h100-3g.40gb"),
        (SliceWish(card_model="H100", compute_ppm=1_000_000), "h100-7g.80gb"),
    ],
)
def test_a_shape_of_ones_own_becomes_the_smallest_instance_that_has_it(
    hand: HandYard, wish: SliceWish, offer: str
) -> None:
    workload, lease = started(hand, "own", wish)
    assert workload.spec.slices.offer == offer
    assert lease.slices[0].mig is not None
    assert f"h100-{lease.slices[0].mig.profile}" == offer


def test_a_shape_for_any_model_may_be_an_instance_and_costs_what_was_asked_for(tmp_path: Path) -> None:
    hand = HandYard(tmp_path, "1xH100:mig")
    _, lease = started(hand, "any", SliceWish(memory_bytes=4 << 30, compute_ppm=100_000))
    assert lease.slices[0].shape.memory_bytes == SMALL
    assert lease.terms is not None
    assert lease.terms.active_per_hour_nano == hand.yard.book.price_nano("H100", 100_000)


@pytest.mark.parametrize(
    ("wish", "code", "words"),
    [
        (SliceWish(card_model="H100"), "mig_too_large", ("7g.80gb", "7g.80gb")),
        (SliceWish(offer="h100-1g.10gb", count=2), "mig_one_slice", ("2 slices of H100", "2 个切片")),
        (SliceWish(card_model="H100", compute_ppm=1, count=2), "mig_one_slice", ("2 slices of H100", "2 个切片")),
        (SliceWish(offer="h100-quarter"), "unknown_offer", ("h100-1g.10gb", "h100-1g.10gb")),
        (SliceWish(offer="h100-9g.90gb"), "unknown_offer", ("h100-1g.10gb", "h100-1g.10gb")),
    ],
)
def test_what_such_a_card_cannot_give_is_refused_at_once(
    hand: HandYard, wish: SliceWish, code: str, words: tuple[str, str]
) -> None:
    with pytest.raises(YardError) as refused:
        hand.launch(hand.tenant("alice"), Launch(WorkloadKind.INSTANCE, wish, name="no"))
    assert refused.value.code == code
    for language, word in zip(("en", "zh"), words, strict=True):
        assert word in error_text(code, language, refused.value.params)


def test_who_waits_for_a_place_is_told_so_and_gets_it_when_it_is_free(hand: HandYard) -> None:
    first, _ = started(hand, "first", SliceWish(offer="h100-4g.40gb"))
    second, lease = started(hand, "second", SliceWish(offer="h100-4g.40gb"))
    assert lease.state.value == "requested"
    for language, word in (("en", "no place for a MIG instance 4g.40gb"), ("zh", "没有位置再放一个 4g.40gb")):
        assert word in "\n".join(why_view(why(hand.yard, second), language)["lines"])
    ended(hand, first)
    with hand.yard.store.read() as c:
        assert str(leases.of_workload(c, second.id)[-1].slices[0].mig) == "4g.40gb@0"


def test_instances_that_others_made_take_their_place_from_leases(hand: HandYard) -> None:
    with hand.yard.store.read() as c:
        (card,) = (card for card in fleet.cards(c) if card.mig is not None)
    by_hand = {card.uuid: (MigPlace(9, 4, 4),)}
    hand.yard.engine.mig_others = lambda: by_hand
    hand.clock.advance(11_000_000)
    hand.settle()
    assert free(hand)["h100-3g.40gb"] == 1
    _, lease = started(hand, "beside", SliceWish(offer="h100-3g.40gb"))
    assert str(lease.slices[0].mig) == "3g.40gb@0"
    hand.yard.engine.mig_others = dict
    hand.clock.advance(11_000_000)
    hand.settle()
    assert free(hand)["h100-3g.40gb"] == 1


def test_a_gang_of_single_slices_is_on_instances_or_waits_whole(hand: HandYard) -> None:
    def gang(name: str, replicas: int) -> list[Lease]:
        wish = SliceWish(offer="h100-2g.20gb")
        launch = Launch(WorkloadKind.JOB, wish, name=name, command=("train",), replicas=replicas)
        made = hand.launch(hand.tenant("alice"), launch)
        hand.settle()
        with hand.yard.store.read() as c:
            return leases.of_workload(c, made.id)

    assert {str(lease.slices[0].mig) for lease in gang("three", 3)} == {"2g.20gb@0", "2g.20gb@2", "2g.20gb@4"}
    assert [lease.state.value for lease in gang("more", 2)] == ["requested", "requested"]


def test_a_lease_in_an_instance_is_not_moved(hand: HandYard) -> None:
    from gpuyard.control.movable import LABEL, is_movable

    wish = SliceWish(offer="h100-1g.10gb")
    launch = Launch(WorkloadKind.INSTANCE, wish, name="stays", command=("sleep", "99999"), labels={LABEL: "yes"})
    made = hand.launch(hand.tenant("alice"), launch)
    hand.settle()
    with hand.yard.store.read() as c:
        workload, lease = workloads.get(c, made.id), leases.of_workload(c, made.id)[-1]
    assert workload is not None
    assert not is_movable(lease, workload, [lease], {workload.id})


def test_nothing_is_leased_of_a_real_card_on_which_no_instance_was_tried() -> None:
    node = simulated_node("n", parse_spec("1xH100:mig"))
    real = replace(node, cards=tuple(replace(card, simulated=False) for card in node.cards))
    uuid = real.cards[0].uuid

    def left(held: frozenset[str]) -> int:
        (seen,) = with_others([real], {}, held)
        assert seen.cards[0].mig is not None
        return sum(room(seen.cards[0].mig).values())

    assert left(frozenset()) == 0
    assert left(frozenset({uuid})) > 0

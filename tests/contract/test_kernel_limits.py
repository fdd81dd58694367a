"""The driver's own memory limits, by cgroup, on an emulated driver that has them: what holds, and what happens when
somebody changes a limit, takes a group away or a program out of it. The groups are real: only limits are emulated."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuyard.engines.process import cgroup
from gpuyard.model.errors import YardError
from gpuyard.model.said import Said
from gpuyard.model.slices import Guarantee, Slice, SliceShape
from gpuyard.slicing.drivers import Driver
from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.kernel_limits import UNLIMITED, KernelLimits, cgroup_of, missing_for, pass_on
from gpuyard.slicing.kernel_trial import try_kernel
from gpuyard.testing.machine import LIMITING_DRIVER, Machine
from slices_in_hand import MIB, Shop, compile_tenant

LIMIT = 2048 * MIB
CONTEXT = 400 * MIB
QUARTER = 250_000
HALF_GIB = 512 * MIB
UNIT = "ls-1-1"  # a unit's name is its lease's and the attempt
MINE = {"GPUYARD_LEASE": "ls-1", "GPUYARD_ATTEMPT": "1"}

_MOUNT = cgroup.unified_mount()
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or _MOUNT is None or not os.access(_MOUNT, os.W_OK), reason="only root makes cgroups (v2)"
)
MOUNT = Path(_MOUNT or "/")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tenant(tmp_path_factory.mktemp("tenant"))


class LimitedShop(Shop):
    """Cuts slices whose memory the driver holds, and runs programs in their groups."""

    def __init__(self, machine: Machine, folder: Path, program: Path) -> None:
        super().__init__(machine, folder, program)
        self.units = MOUNT / f"gpuyard-test-{uuid.uuid4().hex[:8]}"
        self.enforce()

    def enforce(self) -> None:
        """As each yard does when it starts."""
        assert self.machine.groups is not None
        self.limits = KernelLimits(self.keeper.driver, self.units, MOUNT, self.machine.groups)
        self.keeper.hold_by_kernel(self.limits)

    def limited(self, name: str, memory_bytes: int = LIMIT) -> dict[str, str]:
        environment = self.cut(name, memory_bytes, QUARTER, level=Guarantee.KERNEL)
        return {**environment, **MINE, "CUDA_VISIBLE_DEVICES": self.machine.cards[0].uuid}

    def past(self, environment: dict[str, str]) -> dict[str, str]:
        """For a program with the driver's own library instead of ours."""
        return {**environment, **self.keeper.driver.bare(), "GPUYARD_SLICE": ""}

    def within(self, name: str, environment: dict[str, str], *words: object) -> subprocess.Popen[str]:
        command = self.limits.join(self.limits.group_of_unit(name), [str(self.program), *map(str, words)])
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.running.append(process)
        return process

    def said(self, name: str, environment: dict[str, str], *words: object) -> str:
        process = self.within(name, environment, *words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        return out

    def holder(self, name: str, environment: dict[str, str], held: int = HALF_GIB) -> subprocess.Popen[str]:
        """A program that holds so much until it is told to end."""
        process = self.within(name, environment, "hold", held)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def limit_file(self, name: str) -> Path:
        assert self.machine.groups is not None
        return self.machine.groups / self.units.name / name / "dmem.max"

    def close(self) -> None:
        super().close()
        for group in self.units.glob("*/"):
            self.limits.remove(f"/{group.relative_to(MOUNT)}")
        if self.units.exists():
            self.units.rmdir()


@pytest.fixture
def shop(program: Path, tmp_path: Path) -> Iterator[LimitedShop]:
    with Machine("2xRTX4090", driver_version=LIMITING_DRIVER) as machine:
        shop = LimitedShop(machine, tmp_path / "slices", program)
        yield shop
        shop.close()


def granted(text: str) -> int:
    return int(text.split("granted ")[1].split()[0])


def test_a_program_past_the_library_gets_no_more_than_its_slice_and_is_shown_no_more(shop: LimitedShop) -> None:
    past = shop.past(shop.limited(UNIT))
    assert granted(shop.said(UNIT, past, "fill", "plain", 256 * MIB)) == (LIMIT - CONTEXT) // (256 * MIB)
    assert f"total {LIMIT}" in shop.said(UNIT, past, "info")


def test_all_programs_of_a_slice_share_its_limit_and_a_neighbour_keeps_its_own(shop: LimitedShop) -> None:
    past, beside = shop.past(shop.limited(UNIT)), shop.past(shop.limited("ls-2-1"))
    shop.holder(UNIT, past, 1024 * MIB)
    # Two contexts and a gibibyte: what is left of two.
    assert granted(shop.said(UNIT, past, "fill", "plain", 64 * MIB)) == (LIMIT - 1024 * MIB - 2 * CONTEXT) // (64 * MIB)
    assert granted(shop.said("ls-2-1", beside, "fill", "plain", 256 * MIB)) == (LIMIT - CONTEXT) // (256 * MIB)


def test_what_a_killed_program_held_is_there_for_the_next_one_of_its_slice(shop: LimitedShop) -> None:
    past = shop.past(shop.limited(UNIT))
    shop.holder(UNIT, past, 1024 * MIB).kill()
    assert granted(shop.said(UNIT, past, "fill", "plain", 256 * MIB)) == (LIMIT - CONTEXT) // (256 * MIB)


def test_a_limit_holds_for_groups_below_it_too(shop: LimitedShop) -> None:
    past = shop.past(shop.limited(UNIT))
    inner = shop.units / UNIT / "inner"
    inner.mkdir()
    try:
        assert granted(shop.said(f"{UNIT}/inner", past, "fill", "plain", 256 * MIB)) == (LIMIT - CONTEXT) // (256 * MIB)
    finally:
        inner.rmdir()


def test_a_limit_that_somebody_changed_is_set_again_and_told_of_once(shop: LimitedShop) -> None:
    shop.holder(UNIT, shop.limited(UNIT))
    group, card = shop.limits.group_of_unit(UNIT), shop.machine.cards[0].uuid
    shop.limits.limit(group, {card: UNLIMITED})
    shop.keeper.strangers()
    assert shop.keeper.kernel is not None
    (change,) = shop.keeper.kernel.changes()
    assert (change.unit, change.card_uuid, change.pid, change.reason) == (UNIT, card, None, None)
    assert shop.limit_file(UNIT).read_text().split()[1] == str(LIMIT)
    shop.keeper.strangers()
    assert shop.keeper.kernel.changes() == ()


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_a_limit_that_vanished_is_set_again(shop: LimitedShop, gone: str) -> None:
    shop.holder(UNIT, shop.limited(UNIT))
    shop.limit_file(UNIT).unlink()
    if gone == "folder":
        for other in shop.limit_file(UNIT).parent.iterdir():
            other.unlink()
        shop.limit_file(UNIT).parent.rmdir()
    shop.keeper.strangers()
    assert shop.limit_file(UNIT).read_text().split()[1] == str(LIMIT)


def test_a_limit_that_cannot_be_set_again_is_told_of_once_and_again_when_it_can(shop: LimitedShop) -> None:
    shop.holder(UNIT, shop.limited(UNIT))
    assert shop.keeper.kernel is not None
    shop.limit_file(UNIT).unlink()
    refused = shop.machine.inject("nvmlDeviceSetMemoryLimits_v1", 999, times=1000)
    for _ in range(2):
        shop.keeper.strangers()
    (change,) = shop.keeper.kernel.changes()
    assert change.reason
    assert "Unknown" in change.reason
    shop.machine.withdraw(refused)
    shop.keeper.strangers()
    assert [each.reason for each in shop.keeper.kernel.changes()] == [None]


def test_a_program_that_left_its_group_is_put_back_and_told_of(shop: LimitedShop) -> None:
    holder = shop.holder(UNIT, shop.limited(UNIT))
    (MOUNT / "cgroup.procs").write_text(str(holder.pid))
    assert cgroup_of(holder.pid) == "/"
    shop.keeper.strangers()
    assert cgroup_of(holder.pid) == shop.limits.group_of_unit(UNIT)
    assert shop.keeper.kernel is not None
    assert [(each.pid, each.reason) for each in shop.keeper.kernel.changes()] == [(holder.pid, None)]


def test_a_group_that_was_taken_away_is_made_again_around_its_program(shop: LimitedShop) -> None:
    holder = shop.holder(UNIT, shop.limited(UNIT))
    (MOUNT / "cgroup.procs").write_text(str(holder.pid))
    shop.limits.remove(shop.limits.group_of_unit(UNIT))
    assert not (shop.units / UNIT).exists()
    shop.keeper.strangers()
    assert cgroup_of(holder.pid) == shop.limits.group_of_unit(UNIT)
    assert shop.limit_file(UNIT).read_text().split()[1] == str(LIMIT)


def test_the_group_of_a_unit_that_has_ended_is_not_made_again(shop: LimitedShop) -> None:
    shop.limited(UNIT)
    shop.limits.remove(shop.limits.group_of_unit(UNIT))
    shop.keeper.strangers()
    assert not (shop.units / UNIT).exists()
    shop.keeper.release(UNIT)
    assert not shop.limit_file(UNIT).parent.exists()


def test_limits_hold_on_when_the_yard_dies_and_the_next_one_looks_after_them(shop: LimitedShop) -> None:
    past = shop.past(shop.limited(UNIT))
    holder = shop.holder(UNIT, past)
    root, driver = shop.keeper._root, shop.keeper.driver
    del shop.keeper
    assert granted(shop.said(UNIT, past, "fill", "plain", 64 * MIB)) == (LIMIT - HALF_GIB - 2 * CONTEXT) // (64 * MIB)
    shop.keeper = SliceKeeper(root, driver)
    shop.enforce()
    assert holder.poll() is None
    shop.limit_file(UNIT).unlink()
    shop.keeper.strangers()
    assert shop.limit_file(UNIT).read_text().split()[1] == str(LIMIT)


def test_a_slice_that_the_driver_cannot_limit_is_refused_before_its_program_begins(shop: LimitedShop) -> None:
    shop.machine.inject("nvmlDeviceSetMemoryLimits_v1", 4, times=1000)
    with pytest.raises(YardError) as refusal:
        shop.limited(UNIT)
    assert refusal.value.code == "kernel_unavailable"
    assert UNIT not in shop.keeper.units()


def test_a_driver_that_says_another_limit_than_it_was_told_is_not_believed(
    shop: LimitedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, card = shop.limits.group_of_unit(UNIT), shop.machine.cards[0].uuid
    shop.limits.limit(group, {card: LIMIT})
    shop.machine.inject("nvmlDeviceGetMemoryLimits_v1", 3, times=1000)  # as on a card in MIG mode
    with pytest.raises(OSError, match="says that it is none"):
        shop.limits.limit(group, {card: LIMIT})


def test_the_trial_finds_that_limits_hold_and_leaves_nothing_behind(shop: LimitedShop) -> None:
    cards = [card.uuid for card in shop.machine.cards]
    assert try_kernel(shop.keeper, cards) == dict.fromkeys(cards)
    assert not list(shop.units.glob("*/"))
    assert shop.keeper.units() == frozenset()


def test_the_trial_finds_out_a_driver_that_takes_limits_and_does_not_hold_them(shop: LimitedShop) -> None:
    class Forgetful(KernelLimits):
        def limit(self, group: str, cards: object) -> None:
            super().limit(group, cards)  # type: ignore[arg-type]
            shop.limit_file(group.rpartition("/")[2]).unlink()

    assert shop.machine.groups is not None
    shop.keeper.hold_by_kernel(Forgetful(shop.keeper.driver, shop.units, MOUNT, shop.machine.groups))
    (why,) = try_kernel(shop.keeper, [shop.machine.cards[0].uuid]).values()
    assert isinstance(why, Said)
    assert why.key == "trial.got_more"


def test_the_trial_says_in_words_what_the_driver_lacks(program: Path, tmp_path: Path) -> None:
    with Machine("1xRTX4090") as machine:  # a driver of before
        shop = Shop(machine, tmp_path / "slices", program)
        assert missing_for(shop.keeper.driver, None, None) == Said("kernel_limits.old_driver")
        units = MOUNT / "gpuyard-test-old"
        shop.keeper.hold_by_kernel(KernelLimits(shop.keeper.driver, units, MOUNT, tmp_path))
        assert list(try_kernel(shop.keeper, [machine.cards[0].uuid]).values()) == [Said("kernel_limits.not_supported")]
        units.rmdir()
        shop.close()


@pytest.mark.parametrize(
    ("groups", "units", "mount", "lacking"),
    [
        (Path("/sys/fs/cgroup"), None, None, "kernel_limits.no_cgroup2"),
        (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified/a"), Path("/sys/fs/cgroup/unified"), "kernel_limits.no_cgroup2"),
        (Path("/sys/fs/cgroup"), None, Path("/sys/fs/cgroup"), "kernel_limits.no_groups"),
        (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/a"), Path("/sys/fs/cgroup"), None),
    ],
)  # fmt: skip
def test_what_a_machine_lacks_is_told_apart(
    groups: Path, units: Path | None, mount: Path | None, lacking: str | None
) -> None:
    driver = Driver(Path("libcuda.so.1"), None, groups=groups)
    found = missing_for(driver, units, mount)
    assert (found.key if isinstance(found, Said) else found) == lacking


def test_under_mps_too_the_driver_holds_memory(program: Path) -> None:
    import tempfile

    # The path of a socket may only be short: the folder of a test is not.
    with Machine("1xRTX4090", driver_version=LIMITING_DRIVER) as machine, tempfile.TemporaryDirectory() as folder:
        shop = LimitedShop(machine, Path(folder) / "slices", program)
        shop.keeper.kernel_under_mps = frozenset({machine.cards[0].uuid})
        past = shop.past(shop.limited(UNIT))
        past.pop("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")
        assert granted(shop.said(UNIT, past, "fill", "plain", 256 * MIB)) == (LIMIT - CONTEXT) // (256 * MIB)
        shop.holder(UNIT, past, 1024 * MIB)
        assert granted(shop.said(UNIT, past, "fill", "plain", 64 * MIB)) == (LIMIT - 1024 * MIB - 2 * CONTEXT) // (
            64 * MIB
        )
        assert try_kernel(shop.keeper, [machine.cards[0].uuid]) == {machine.cards[0].uuid: None}
        shop.close()


def test_only_root_sets_limits(shop: LimitedShop) -> None:
    group = shop.limits.group_of_unit(UNIT)
    card = shop.machine.cards[0].uuid
    shop.limits.limit(group, {card: LIMIT})
    shop.machine.path.chmod(0o666)
    code = (
        "import os, pynvml as n; n.nvmlInit(); c = n.nvmlDeviceGetHandleByIndex(0); os.setuid(65534)\n"
        f"try: n.nvmlDeviceSetMemoryLimits_v1(c, n.c_nvmlSetMemoryLimits_v1_t({shop.limits.folder(group)!r}.encode(), 0, 1))\n"
        "except n.NVMLError as e: print(e.value)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=shop.machine.env(), capture_output=True, text=True)
    assert done.stdout == "4\n", done.stderr


def test_a_slice_of_several_cards_is_limited_on_each(shop: LimitedShop) -> None:
    shape = SliceShape(LIMIT, QUARTER)
    both = [Slice(UNIT, card.uuid, shape, Guarantee.KERNEL) for card in shop.machine.cards]
    shop.keeper.for_process(UNIT, both)
    assert len(shop.limit_file(UNIT).read_text().splitlines()) == 2


def test_looking_after_limits_costs_no_look_at_nvml_of_its_own(shop: LimitedShop) -> None:
    shop.holder(UNIT, shop.limited(UNIT))
    calls = shop.machine.inject("nvmlDeviceGetCount_v2", 0, times=1000)
    shop.keeper.strangers()
    assert shop.machine.hits(calls) == 1


def test_the_trial_takes_no_memory_from_programs_that_run(shop: LimitedShop, program: Path) -> None:
    cards = [card.uuid for card in shop.machine.cards]
    shop.holder(UNIT, shop.limited(UNIT))  # of an earlier yard, and held
    bare = {**os.environ, **shop.keeper.driver.bare(), "CUDA_VISIBLE_DEVICES": cards[1]}
    outsider = shop.start(bare, "hold", HALF_GIB)
    assert outsider.stdout is not None
    outsider.stdout.readline()
    assert try_kernel(shop.keeper, cards) == {cards[0]: None, cards[1]: Said("trial.kernel_busy")}
    shop.limit_file(UNIT).unlink()
    refused = shop.machine.inject("nvmlDeviceSetMemoryLimits_v1", 999, times=1000)
    assert try_kernel(shop.keeper, cards[:1]) == {cards[0]: Said("trial.kernel_busy")}
    shop.machine.withdraw(refused)
    assert try_kernel(shop.keeper, cards[:1]) == {cards[0]: None}  # set again first


def test_nothing_is_claimed_on_a_card_whose_limit_is_lost_until_it_is_set_again(shop: LimitedShop) -> None:
    shop.holder(UNIT, shop.limited(UNIT))
    assert shop.keeper.kernel is not None
    shop.limit_file(UNIT).unlink()
    refused = shop.machine.inject("nvmlDeviceSetMemoryLimits_v1", 999, times=1000)
    shop.keeper.strangers()
    assert shop.keeper.kernel.lost_cards() == {shop.machine.cards[0].uuid}
    shop.machine.withdraw(refused)
    shop.keeper.strangers()
    assert shop.keeper.kernel.lost_cards() == frozenset()


def test_the_controller_is_passed_on_where_the_kernel_has_it_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    """A machine whose groups pass the kernel's controller on from one to the next: none here does."""
    units = tmp_path / "system.slice" / "gpuyard"
    units.mkdir(parents=True)
    for folder, has in ((tmp_path, "cpu dmem"), (units.parent, "cpu dmem memory"), (units, "cpu")):
        (folder / "cgroup.controllers").write_text(f"{has}\n")
        (folder / "cgroup.subtree_control").write_text("")
    pass_on(units, tmp_path)
    control = [folder / "cgroup.subtree_control" for folder in (tmp_path, units.parent, units)]
    assert [file.read_text() for file in control] == ["+dmem", "+dmem", ""]

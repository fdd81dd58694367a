"""Fail closed: a slice file or ledger that is not wholly right gives no CUDA at all, in one line, and no crash."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuyard.model.errors import YardError
from gpuyard.slicing.layout import layout
from gpuyard.slicing.shared_files import SliceCard, SliceLimits, encode
from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant

LIMIT = 2048 * MIB


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with Machine("1xRTX4090") as machine:
        shop = Shop(machine, folder / "slices", compile_tenant(folder))
        yield shop
        shop.close()


@pytest.fixture
def slice_file(shop: Shop, tmp_path: Path) -> Path:
    """A good slice file, to be spoilt."""
    shop.cut("a", LIMIT)
    copy = tmp_path / "slice"
    shutil.copy(shop.keeper._root / "a" / "slice", copy)
    return copy


def answer(shop: Shop, path: Path | str | None) -> tuple[str, str]:
    environment = {**shop.cut("a", LIMIT)}
    environment.pop("GPUYARD_SLICE")
    if path is not None:
        environment["GPUYARD_SLICE"] = str(path)
    process = shop.start(environment, "init")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, f"it crashed: {process.returncode} {err}"
    return out.strip(), err.strip()


def refused(shop: Shop, path: Path | str | None) -> str:
    out, err = answer(shop, path)
    assert out == "cuInit 800"
    assert len(err.splitlines()) == 1
    assert err.startswith("gpuyard: CUDA is refused here")
    return err


def spoil(path: Path, at: int, raw: bytes, checksum: bool = True) -> None:
    """Writes other bytes into a slice file, with a checksum that is right again, as one who forges it would."""
    from gpuyard.slicing.shared_files import _fnv

    content = bytearray(path.read_bytes())
    content[at : at + len(raw)] = raw
    shape = layout().structs["slice_file"]
    if checksum:
        shape.write(content, "checksum", _fnv(content[: shape.at("checksum")]))
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_good_slice_file_is_taken(shop: Shop, slice_file: Path) -> None:
    assert answer(shop, slice_file) == ("cuInit 0", "")


def test_without_the_variable_there_is_nothing(shop: Shop) -> None:
    refused(shop, None)
    refused(shop, "")
    refused(shop, "relative/slice")


def test_a_file_that_is_missing_a_folder_or_a_link_is_refused(shop: Shop, slice_file: Path, tmp_path: Path) -> None:
    refused(shop, tmp_path / "missing")
    refused(shop, tmp_path)
    link = tmp_path / "link"
    link.symlink_to(slice_file)
    refused(shop, link)


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o464])
def test_a_file_that_others_may_write_is_refused(shop: Shop, slice_file: Path, mode: int) -> None:
    slice_file.chmod(mode)
    assert "write" in refused(shop, slice_file)


def test_a_file_of_somebody_else_is_refused(shop: Shop, slice_file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away: run as root")
    os.chown(slice_file, 1234, 1234)
    assert "belongs" in refused(shop, slice_file)


@pytest.mark.parametrize("size", [0, 1, 100, 5599, 5601, 100_000])
def test_a_file_of_another_size_is_refused(shop: Shop, slice_file: Path, size: int) -> None:
    content = slice_file.read_bytes()
    slice_file.chmod(0o644)
    slice_file.write_bytes((content * 20)[:size])
    slice_file.chmod(0o444)
    refused(shop, slice_file)


CARD = layout().structs["slice_file"].at("cards")
WRONG = {
    "magic": (layout().structs["slice_file"].at("magic"), struct.pack("<Q", 1)),
    "version": (layout().structs["slice_file"].at("version"), struct.pack("<I", 99)),
    "no cards": (layout().structs["slice_file"].at("card_count"), struct.pack("<I", 0)),
    "too many cards": (layout().structs["slice_file"].at("card_count"), struct.pack("<I", 17)),
    "no memory": (CARD + layout().structs["slice_card"].at("memory_bytes"), struct.pack("<Q", 0)),
    "all memory": (CARD + layout().structs["slice_card"].at("memory_bytes"), struct.pack("<Q", 2**64 - 1)),
    "no compute": (CARD + layout().structs["slice_card"].at("compute_ppm"), struct.pack("<I", 0)),
    "too much compute": (CARD + layout().structs["slice_card"].at("compute_ppm"), struct.pack("<I", 1_000_001)),
    "an unknown mode": (CARD + layout().structs["slice_card"].at("mode"), struct.pack("<I", 7)),
    "a share without a clock": (CARD + layout().structs["slice_card"].at("compute_ppm"), struct.pack("<I", 500_000)),
    "a path without an end": (layout().structs["slice_file"].at("real_cuda"), b"/" * 256),
    "no driver": (layout().structs["slice_file"].at("real_cuda"), b"/nowhere/libcuda.so.1\0"),
    "no ledger": (layout().structs["slice_file"].at("ledger_path"), b"/nowhere/ledger\0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_limits_that_make_no_sense_are_refused_even_with_a_right_checksum(
    shop: Shop, slice_file: Path, what: str
) -> None:
    spoil(slice_file, *WRONG[what])
    refused(shop, slice_file)


def test_the_shim_is_not_taken_for_the_driver(shop: Shop, slice_file: Path) -> None:
    own = str(shop.keeper.libraries / "libcuda.so.1").encode() + b"\0"
    spoil(slice_file, layout().structs["slice_file"].at("real_cuda"), own)
    assert "shim itself" in refused(shop, slice_file)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=1, max_size=64), st.integers(0, 5591))
def test_any_flipped_bytes_are_refused_and_never_crash(shop: Shop, raw: bytes, at: int) -> None:
    path = shop.keeper._root / "fuzzed"
    path.unlink(missing_ok=True)
    shop.cut("a", LIMIT)
    shutil.copy(shop.keeper._root / "a" / "slice", path)
    before = path.read_bytes()
    spoil(path, at, raw[: 5592 - at], checksum=False)
    if path.read_bytes() != before:
        refused(shop, path)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=1, max_size=200), st.integers(0, 200_000))
def test_a_ledger_with_any_bytes_in_it_gives_no_more_than_the_limit_and_never_crashes(
    shop: Shop, raw: bytes, at: int
) -> None:
    environment = shop.cut("fuzz", LIMIT)
    ledger = shop.keeper._root / "fuzz" / "ledger"
    content = bytearray(ledger.read_bytes())
    mutex = range(layout().structs["ledger"].at("mutex"), layout().structs["ledger"].at("mutex") + 64)
    at %= len(content)
    content[at : at + len(raw)] = raw[: len(content) - at]
    if not set(mutex) & set(range(at, at + len(raw))):  # a mutex that says it is held by somebody is waited for
        ledger.write_bytes(content)
        process = shop.start(environment, "fill", "plain", 256 * MIB)
        out, err = process.communicate(timeout=60)
        assert process.returncode in {0, 2}, f"{process.returncode} {out} {err}"
        assert shop.machine.card(0).peak_bytes <= LIMIT
    shop.keeper.release("fuzz")


@pytest.mark.parametrize("seed", range(8))
def test_a_ledger_with_any_bytes_for_a_lock_gives_no_more_than_the_limit_and_never_crashes(
    shop: Shop, seed: int
) -> None:
    import random

    environment = shop.cut("fuzz", LIMIT)
    ledger = shop.keeper._root / "fuzz" / "ledger"
    content = bytearray(ledger.read_bytes())
    at = layout().structs["ledger"].at("mutex")
    if seed % 2:  # a good kind, and nonsense in all else
        kind = bytes(content[at + 16 : at + 20])
        content[at : at + 40] = random.Random(seed).randbytes(40)
        content[at + 16 : at + 20] = kind
    else:
        content[at : at + 40] = random.Random(seed).randbytes(40)
    ledger.write_bytes(content)
    process = shop.start(environment, "fill", "plain", 256 * MIB)
    out, err = process.communicate(timeout=60)
    assert process.returncode in {0, 2}, f"{process.returncode} {out} {err}"
    assert shop.machine.card(0).peak_bytes <= LIMIT
    shop.keeper.release("fuzz")


@pytest.mark.parametrize(
    "card",
    [
        SliceCard("GPU-nonsense", MIB, 10**6),
        SliceCard("GPU-11111111-1111-1111-1111-111111111111", 0, 10**6),
        SliceCard("GPU-11111111-1111-1111-1111-111111111111", -1, 10**6),
        SliceCard("GPU-11111111-1111-1111-1111-111111111111", 2**60, 10**6),
        SliceCard("GPU-11111111-1111-1111-1111-111111111111", MIB, 0),
        SliceCard("GPU-11111111-1111-1111-1111-111111111111", MIB, 10**6 + 1),
        SliceCard("GPU-11111111-1111-1111-1111-111111111111", MIB, 500_000),
        SliceCard("GPU-11111111-1111-1111-1111-111111111111", MIB, 10**6, context_bytes=MIB),
    ],
)
def test_limits_that_cannot_be_are_never_written(card: SliceCard, tmp_path: Path) -> None:
    limits = SliceLimits("a", [card], tmp_path / "ledger", Path("/driver"), None)
    with pytest.raises(YardError) as refusal:
        encode(limits)
    assert refusal.value.code == "slice_refused"


def test_a_path_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    card = SliceCard("GPU-11111111-1111-1111-1111-111111111111", MIB, 10**6)
    with pytest.raises(YardError):
        encode(SliceLimits("a", [card], Path("/" + "x" * 300), Path("/driver"), None))

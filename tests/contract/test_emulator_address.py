"""cuGetProcAddress of the emulated driver, asked as a real CUDA runtime asks: `cudart_13_queries.csv` holds its questions."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuyard.testing import Machine

pytest_plugins = ["gpuyard.testing.fixtures"]

QUERIES = Path(__file__).with_name("cudart_13_queries.csv")
PER_THREAD = 2

ASK = """
import ctypes, json, sys
driver = ctypes.CDLL("libcuda.so.1")
questions, symbols = json.load(sys.stdin)
def address(name):
    return ctypes.cast(getattr(driver, name), ctypes.c_void_p).value
known = {address(name): name for name in symbols}
answers = []
for name, version, flags in questions:
    found, status = ctypes.c_void_p(), ctypes.c_int(-1)
    result = driver.cuGetProcAddress_v2(name.encode(), ctypes.byref(found), version, ctypes.c_uint64(flags), ctypes.byref(status))
    answers.append([result, status.value, known.get(found.value)])
print(json.dumps([answers, len(known)]))
"""


def symbols() -> list[str]:
    from gpuyard.slicing.layout import NATIVE

    with (NATIVE / "names" / "cuda.csv").open(newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


def ask(machine: Machine, questions: list[tuple[str, int, int]]) -> list[list[Any]]:
    """The result, status and symbol for each question."""
    run = subprocess.run(
        [sys.executable, "-c", ASK], input=json.dumps([questions, symbols()]), env=machine.env(), text=True,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    answers, addresses = json.loads(run.stdout)
    assert addresses == len(symbols()), "two symbols share an address, so a shim could not tell them apart"
    return answers


def cudart() -> list[tuple[str, int, int]]:
    with QUERIES.open(newline="") as file:
        rows = [(row["name"], int(row["version"]), int(row["flags"])) for row in csv.DictReader(file)]
    return [row for row in rows if "VDPAU" not in row[0]]  # a video interface that is on no list of ours


def test_every_question_of_the_cuda_13_runtime_finds_a_symbol_of_that_name(
    fake_driver: Callable[..., Machine],
) -> None:
    questions = cudart()
    answers = ask(fake_driver(), questions)
    assert len(questions) > 400
    for (name, version, _), (result, status, symbol) in zip(questions, answers, strict=True):
        assert (result, status) == (0, 0), f"{name} of {version}"
        assert symbol is not None
        assert symbol.removesuffix("_ptsz").removesuffix("_ptds").split("_v")[0] == name


def test_the_runtime_gets_the_per_thread_variant_wherever_there_is_one(fake_driver: Callable[..., Machine]) -> None:
    questions = [(name, version, flags) for name, version, flags in cudart() if flags == PER_THREAD]
    answers = ask(fake_driver(), questions)
    assert len(questions) > 60
    assert [symbol for _, _, symbol in answers if not symbol.endswith(("_ptsz", "_ptds"))] == []


@pytest.mark.parametrize(
    ("name", "version", "flags", "symbol"),
    [
        ("cuMemAlloc", 2000, 0, "cuMemAlloc"),
        ("cuMemAlloc", 3020, 0, "cuMemAlloc_v2"),
        ("cuMemAlloc", 13000, PER_THREAD, "cuMemAlloc_v2"),
        ("cuMemcpyAsync", 4000, 0, "cuMemcpyAsync"),
        ("cuMemcpyAsync", 13000, PER_THREAD, "cuMemcpyAsync_ptsz"),
        ("cuMemcpy", 13000, PER_THREAD, "cuMemcpy_ptds"),
        ("cuMemcpyHtoD", 13000, PER_THREAD, "cuMemcpyHtoD_v2_ptds"),
        ("cuLaunchKernel", 13000, 1, "cuLaunchKernel"),
        ("cuLaunchKernel", 13000, PER_THREAD, "cuLaunchKernel_ptsz"),
        ("cuStreamGetCaptureInfo", 10010, 0, "cuStreamGetCaptureInfo"),
        ("cuStreamGetCaptureInfo", 11030, 0, "cuStreamGetCaptureInfo_v2"),
        ("cuStreamGetCaptureInfo", 12030, PER_THREAD, "cuStreamGetCaptureInfo_v3_ptsz"),
        ("cuCtxCreate", 3020, 0, "cuCtxCreate_v2"),
        ("cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2"),
        ("cuGetProcAddress", 11030, 0, "cuGetProcAddress"),
    ],
)
def test_version_and_flags_choose_the_variant(
    fake_driver: Callable[..., Machine], name: str, version: int, flags: int, symbol: str
) -> None:
    assert ask(fake_driver(), [(name, version, flags)]) == [[0, 0, symbol]]


def test_what_is_unknown_or_too_new_is_not_found(fake_driver: Callable[..., Machine]) -> None:
    questions = [("cuNobodyKnows", 13000, 0), ("cuMem", 13000, 0), ("cuMemAllocAsync", 10000, 0), ("cuInit", 13000, 7)]
    assert ask(fake_driver(), questions) == [[500, 1, None], [500, 1, None], [500, 2, None], [1, -1, None]]


def test_an_older_driver_lacks_what_came_later(fake_driver: Callable[..., Machine]) -> None:
    machine = fake_driver(cuda_version=11020)
    assert ask(machine, [("cuGetProcAddress", 13000, 0), ("cuMemAllocAsync", 13000, 0)]) == [
        [500, 1, None],
        [0, 0, "cuMemAllocAsync"],
    ]

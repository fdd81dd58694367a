"""Steps of the check that ask: what the driver answers, what a context takes, what a slice shows, what calls cost."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import platform
import shutil
import subprocess
from typing import Any

from bench_of_cards import HERE, MIB, Bench, cuda, has_torch, lines_of

from gpuyard.slicing.keeper import SliceKeeper
from gpuyard.slicing.layout import NATIVE
from gpuyard.slicing.trial import try_cards

Told = tuple[bool | None, dict[str, Any]]
GIB = 1 << 30


def machine(bench: Bench) -> Told:
    """Which card and driver this is"""
    nvml = bench.nvml
    return True, {
        "card": nvml.nvmlDeviceGetName(bench.card),
        "memory_bytes": bench.memory_bytes,
        "driver": nvml.nvmlSystemGetDriverVersion(),
        "cuda": nvml.nvmlSystemGetCudaDriverVersion(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "used_before_bytes": bench.used_bytes(),
    }


def addresses(bench: Bench) -> Told:
    """cuGetProcAddress gives the address that dlsym gives, so that an address can be swapped for ours"""
    del bench
    driver = cuda()
    same, other, lacking = [], [], []
    with (NATIVE / "names" / "cuda.csv").open() as file:
        classes = {row["name"]: row["class"] for row in csv.DictReader(file)}
    for name in classes:
        symbol = getattr(driver, name, None)
        if symbol is None:
            lacking.append(name)
            continue
        direct = ctypes.cast(symbol, ctypes.c_void_p).value
        base, flags = name, 0
        for suffix, flag in (("_ptsz", 2), ("_ptds", 2)):
            if base.endswith(suffix):
                base, flags = base.removesuffix(suffix), flag
        found = set()
        for asked in {base, base.split("_v")[0]}:
            for version in (2000, 3020, 10000, 10010, 4000, 6050, 7050, 11000, 11040, 12000, 12080, 13000):
                address = ctypes.c_void_p()
                if (
                    driver.cuGetProcAddress_v2(
                        asked.encode(), ctypes.byref(address), version, ctypes.c_uint64(flags), None
                    )
                    == 0
                ):
                    found.add(address.value)
        (same if direct in found else other).append(name)
    ours = [name for name in other if classes[name] != "pass"]
    told = {"same": len(same), "not the same, and ours": ours, "not the same, and passed on": len(other) - len(ours)}
    return not ours, {**told, "the driver lacks": len(lacking)}


def trial(bench: Bench) -> Told:
    """The yard's own trial: a program on a slice of the card tries to take more than it has"""
    told = try_cards(SliceKeeper(bench.folder / "trial", bench.driver), [bench.uuid])
    return set(told.values()) == {None}, {"why not": told[bench.uuid]}


def context_overhead(bench: Bench) -> Told:
    """What a context takes is less than what is charged for it"""
    program = (
        "import ctypes, sys; d = ctypes.CDLL('libcuda.so.1'); c = ctypes.c_void_p(); d.cuInit(0);"
        "print(d.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0), flush=True); sys.stdin.readline()"
    )
    before = bench.used_bytes()
    taken = []
    running = []
    for _ in range(3):
        process = bench.start(bench.bare(), "-c", program)
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        running.append(process)
        taken.append(bench.used_bytes() - before)
        before = bench.used_bytes()
    for process in running:
        process.communicate("\n", timeout=30)
    return max(taken) <= bench.driver.context_bytes, {
        "taken_mib": [round(t / MIB, 1) for t in taken],
        "charged_mib": bench.driver.context_bytes / MIB,
    }


def call_costs(bench: Bench) -> Told:
    """What calls cost bare, on a whole slice, and on a capped one"""
    kinds = {"bare": bench.bare(), "whole": bench.slice(20 * GIB), "capped": bench.slice(20 * GIB, 999_999)}
    told: dict[str, dict[str, float]] = {}
    for kind, environment in list(kinds.items()) * 3:  # in turns: a card does not stay the same for a second
        out = subprocess.run(
            [bench.calls, "500"], env=environment, check=True, capture_output=True, text=True, timeout=90
        )
        for line in out.stdout.splitlines():
            row = json.loads(line)
            before = told.setdefault(row["call"], {}).get(f"{kind}_ns", row["ns"])
            told[row["call"]][f"{kind}_ns"] = min(before, row["ns"])
    launch = told["launch"]
    return launch["whole_ns"] <= 1.05 * launch["bare_ns"] + 50, told


def ways_to_allocate(bench: Bench) -> Told:
    """However a program allocates, it gets no byte beyond its slice, as NVML sees it from outside"""
    limit = 4 * GIB
    program = HERE / "allocating.py"
    told: dict[str, Any] = {}
    held = True
    for way in ("plain", "async", "vmm", "pitch"):
        before = bench.used_bytes()
        process = bench.start(bench.slice(limit), program, way, 32 * MIB)
        assert process.stdout is not None
        row = json.loads(process.stdout.readline() or "{}")
        used = bench.used_bytes() - before
        lines_of(process, 30)
        told[way] = {"granted_mib": row["granted_bytes"] // MIB, "code": row["code"], "nvml_mib": used // MIB}
        held &= row["code"] == 2 and row["granted_bytes"] <= limit and used <= limit
    return held, told


def what_a_slice_shows(bench: Bench) -> Told:
    """In a slice NVML and nvidia-smi show its memory, not the card's"""
    environment = bench.slice(6 * GIB, 250_000)
    program = (
        "import pynvml, json; pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0);"
        "m = pynvml.nvmlDeviceGetMemoryInfo(h); print(json.dumps({'count': pynvml.nvmlDeviceGetCount(),"
        "'total': m.total, 'used': m.used, 'free': m.free,"
        "'processes': len(pynvml.nvmlDeviceGetComputeRunningProcesses(h))}))"
    )
    told: dict[str, Any] = dict(bench.python(environment, "-c", program)[-1])
    held = told["total"] == 6 * GIB and told["count"] == 1 and told["used"] + told["free"] <= told["total"]
    if shutil.which("nvidia-smi"):
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            env=environment, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        told["nvidia_smi"] = (done.stdout or done.stderr).strip()[:200]
        held &= told["nvidia_smi"] == str(6 * 1024)
    return held, told


def pytorch_under_a_limit(bench: Bench) -> Told:
    """PyTorch is refused at its slice's end, catches it, gives back, and computes on"""
    if not has_torch():
        return None, {"skipped": "PyTorch is not installed here: pip install torch"}
    limit = 6 * GIB
    before = bench.used_bytes()
    process = bench.start(bench.slice(limit), HERE / "torch_memory.py")
    assert process.stdout is not None
    process.stdout.readline()
    used = bench.used_bytes() - before
    told = lines_of(process, 60)[-1]
    told["nvml_bytes"] = used
    held = told["went_on"] and told["refused"] != "" and used <= limit and told["total_bytes"] == limit
    return held and told["granted_bytes"] > limit // 2, told


def exported_names(bench: Bench) -> Told:
    """Which names the driver's libraries export that ours do not: programs are told that there are none"""
    told: dict[str, Any] = {}
    for library, api, known_to in ((bench.driver.cuda, "cuda", "cu"), (bench.driver.nvml, "nvml", "nvml")):
        done = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True)
        exported = {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}
        with (NATIVE / "names" / f"{api}.csv").open() as file:
            ours = {row["name"] for row in csv.DictReader(file)}
        told[api] = sorted(name for name in exported if name.startswith(known_to) and name not in ours)
    return None, told


def cuda_bindings(bench: Bench) -> Told:
    """NVIDIA's own Python binding of the driver runs on a slice"""
    program = (
        "import json\nfrom cuda.bindings import driver as d\nd.cuInit(0)\n_, c = d.cuDevicePrimaryCtxRetain(0)\n"
        "d.cuCtxSetCurrent(c)\n_, free, total = d.cuMemGetInfo()\ne, p = d.cuMemAlloc(1 << 20)\n"
        "over, _ = d.cuMemAlloc(4 << 30)\nprint(json.dumps({'total': total, 'small': int(e), 'over': int(over)}))"
    )
    try:
        told = bench.python(bench.slice(2 * GIB), "-c", program)[-1]
    except RuntimeError as error:
        return (
            (None, {"skipped": "cuda-bindings is not installed here"})
            if "No module" in str(error)
            else (False, {"why": str(error)})
        )
    return told == {"total": 2 * GIB, "small": 0, "over": 2}, told


STEPS = (
    machine, addresses, trial, context_overhead, call_costs, ways_to_allocate, what_a_slice_shows, exported_names, cuda_bindings,
    pytorch_under_a_limit,
)  # fmt: skip

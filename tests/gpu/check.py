"""What only a real card can answer, in one run of less than ten minutes: `python3 tests/gpu/check.py --out FOLDER`.

Needs Linux, an NVIDIA driver, a C compiler and nvidia-ml-py; PyTorch where it is (its steps are skipped by name where it
is not). No network, and nothing installed: what it needs of gpuyard is standard library only. Each step has its own time,
and none leans on another; what was found is written after each step, to FOLDER/gpu-check.json and FOLDER/gpu-check.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]

import asking_the_card  # noqa: E402 - found by the line above
import sharing_the_card  # noqa: E402
from bench_of_cards import Bench  # noqa: E402

STEPS = (*asking_the_card.STEPS, *sharing_the_card.STEPS)


def main() -> int:
    """0 where every step that could run held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument(
        "--budget", type=float, default=480, help="seconds in all; steps that no longer fit are left out"
    )
    parser.add_argument("--split-seconds", type=float, default=60, help="how long two tenants share the card")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="only these")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + options.budget
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.split_seconds)
        for step in STEPS:
            name = step.__name__
            if options.steps and name not in options.steps:
                continue
            found.append(_run(name, step, bench, ends))
            print(json.dumps(found[-1]), flush=True)
            (options.out / "gpu-check.json").write_text(json.dumps(found, indent=1) + "\n")
            (options.out / "gpu-check.md").write_text(_page(found))
    return 1 if any(row["held"] is False for row in found) else 0


def _run(name: str, step: Any, bench: Bench, ends: float) -> dict[str, Any]:
    row: dict[str, Any] = {"step": name, "asks": " ".join((step.__doc__ or "").split())}
    begun = time.monotonic()
    if begun > ends:
        return {**row, "held": None, "seconds": 0.0, "told": {"left out": "the time for all steps was used up"}}
    try:
        held, told = step(bench)
    except Exception as error:
        held, told = (
            False,
            {"failed": f"{type(error).__name__}: {error}", "where": traceback.format_exc(limit=3)[-600:]},
        )
    return {**row, "held": held, "seconds": round(time.monotonic() - begun, 1), "told": told}


def _page(found: list[dict[str, Any]]) -> str:
    mark = {True: "yes", False: "**no**", None: "--"}
    lines = ["| step | held | what was seen |", "|---|---|---|"]
    for row in found:
        told = "; ".join(f"{key}: {value}" for key, value in row["told"].items()).replace("|", "/").replace("\n", " ")
        lines.append(f"| {row['step']}: {row['asks']} | {mark[row['held']]} | {told} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

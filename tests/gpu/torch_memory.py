"""PyTorch under a memory limit: takes 64 MiB at a time until it is refused, gives all back, and computes.

Prints one JSON object: what CUDA says the card has, what was granted, what NVML says this process held, and whether it
went on well afterwards.
"""

from __future__ import annotations

import json

import torch

STEP = 64 << 20


def main() -> None:
    free, total = torch.cuda.mem_get_info()
    held, refused = [], ""
    try:
        while len(held) < 4096:
            held.append(torch.empty(STEP, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError as error:
        refused = str(error).splitlines()[0][:200]
    granted = len(held) * STEP
    print(json.dumps({"step": "full", "granted_bytes": granted}), flush=True)
    input()  # whoever started this looks at NVML meanwhile, from outside
    held.clear()
    torch.cuda.empty_cache()
    x = torch.randn(1024, 1024, device="cuda")
    well = bool(torch.isfinite(x @ x).all())
    told = {"free_bytes": free, "total_bytes": total, "granted_bytes": granted, "refused": refused, "went_on": well}
    print(json.dumps(told), flush=True)


main()

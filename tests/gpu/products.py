"""Matrix products on a card for a while: `products.py SIZE graph|plain`.

Says when it is ready, is told BEGIN and END on its input - readings of this machine's monotonic clock, so that several of
these run at the same time - and prints how many products it did between the two.
"""

from __future__ import annotations

import json
import sys
import time

import torch

PER_GRAPH = 10
AHEAD = 8  # launches in the queue before it waits for one of them


def main() -> None:
    size, how = int(sys.argv[1]), sys.argv[2]
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    c = torch.empty_like(a)
    for _ in range(3):
        torch.mm(a, b, out=c)
    torch.cuda.synchronize()
    each = 1
    step = lambda: torch.mm(a, b, out=c)  # noqa: E731 - what one launch is
    if how == "graph":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(PER_GRAPH):
                torch.mm(a, b, out=c)
        step, each = graph.replay, PER_GRAPH
    torch.cuda.synchronize()
    print(json.dumps({"ready": True}), flush=True)
    begin, end = map(float, sys.stdin.readline().split())
    late = time.monotonic() > begin
    time.sleep(max(0.0, begin - time.monotonic()))
    done, waiting = 0, []
    while time.monotonic() < end:
        step()
        event = torch.cuda.Event()
        event.record()
        waiting.append(event)
        if len(waiting) >= AHEAD:
            waiting.pop(0).synchronize()
            done += each
    print(json.dumps({"products": done, "late": late, "seconds": end - begin}))


main()

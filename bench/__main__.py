"""`python -m bench [AREA ...] [--json]`: measures, prints a line per figure, exits 1 where a goal was missed."""

from __future__ import annotations

import argparse
import importlib
import sys

AREAS = (
    "start", "server", "launches", "slicing", "queue", "billing", "ledger", "scheduling", "dialects", "access",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"one or more of: {', '.join(AREAS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object per figure and line")
    options = parser.parse_args()
    if unknown := set(options.areas) - set(AREAS):
        parser.error(f"no such area: {', '.join(sorted(unknown))}; there are {', '.join(AREAS)}")
    well = True
    for area in options.areas or AREAS:
        for figure in importlib.import_module(f"bench.{area}").measure():
            print(figure.as_json() if options.json else figure.as_line(), flush=True)
            well &= figure.ok
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

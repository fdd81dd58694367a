"""Brings the name lists up to date with a driver API's header: `python collect.py cuda 13.5 path/to/cuda.h`.

The lists are committed and the headers are not. A name that a header brings for the first time is written with the
class `unclassified`, and nothing builds until somebody has read what it does and classified it. The class of a known
name stays.

The compiler's preprocessor reads the header, so the names are the linker's: with the version suffixes, the aliases of
older programs and the per-thread-stream variants (`_ptsz`, `_ptds`).
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
VARIANTS = (
    [],
    ["-D__CUDA_API_VERSION_INTERNAL"],
    ["-DCUDA_API_PER_THREAD_DEFAULT_STREAM"],
    ["-DNVML_NO_UNVERSIONED_FUNC_DEFS"],
)
PROTOTYPES = {
    "cuda": re.compile(r"\bCUresult\s+(cu[A-Z]\w*)\s*\("),
    "nvml": re.compile(r"\b(?:nvmlReturn_t|const char\s*\*)\s+(nvml[A-Z]\w*)\s*\("),
}
FOREIGN_HEADERS = ("GL/gl.h", "EGL/egl.h", "EGL/eglext.h", "vdpau/vdpau.h")
FIELDS: tuple[str, ...] = ("name", "since", "class")


def names_in(api: str, header: Path) -> set[str]:
    """Every function that the header declares, in any of the ways in which programs include it."""
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for foreign in FOREIGN_HEADERS:  # only their types are used, which a preprocessor does not ask for
            path = Path(folder, foreign)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        for variant in VARIANTS:
            command = ["cc", "-E", "-P", "-I", folder, "-I", str(header.parent), *variant, str(header)]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
            found.update(PROTOTYPES[api].findall(text))
    return found


def main(api: str, version: str, header: str) -> None:
    """Merges one header into the list of its API; `since` is the oldest version whose header had the name."""
    path = HERE / f"{api}.csv"
    known: dict[str, dict[str, str]] = {}
    if path.exists():
        with path.open(newline="") as file:
            known = {row["name"]: row for row in csv.DictReader(file)}
    for name in names_in(api, Path(header)):
        row = known.setdefault(name, {"name": name, "since": version, "class": "unclassified"})
        row["since"] = min(row["since"], version, key=lambda text: [int(part) for part in text.split(".")])
    with path.open("w", newline="") as file:
        rows: csv.DictWriter[str] = csv.DictWriter(file, FIELDS, lineterminator="\n")
        rows.writeheader()
        rows.writerows(known[name] for name in sorted(known))
    new = [name for name, row in known.items() if row["class"] == "unclassified"]
    print(f"{path.name}: {len(known)} names, {len(new)} of them to be classified")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The C that is written from tables: every function of a driver API with its class, and the signatures of those that
the shim calls or stands for.

Functions that differ only in their version or in how they treat streams share one body in the shim: the table says
which (`way`), and the C defines what that way does, once.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gpuyard.slicing.layout import NATIVE

PASSED_ON: Final = ("pass", "deny")  # classes that need no function of ours
_RESULT: Final = {"cuda": "CUresult", "nvml": "Result"}
_LAST_WORD: Final = re.compile(r"(\w+)$")


@dataclass(frozen=True, slots=True)
class Signature:
    """A function of the driver as C declares it. `way` names the body that it shares with others, and may be empty;
    `extra` is what that body needs to know of this one."""

    name: str
    way: str
    extra: str
    parameters: str

    @property
    def arguments(self) -> str:
        """The names of the parameters, to pass them on."""
        found = (_LAST_WORD.search(parameter) for parameter in self.parameters.split(", "))
        return ", ".join(match[1] for match in found if match and match[1] != "void")

    @property
    def is_per_thread(self) -> bool:
        """Whether its default stream is the calling thread's own."""
        return self.name.endswith("_ptsz")


def names(api: str) -> list[tuple[str, str]]:
    """Every function of the API with its class. Raises ValueError for one that nobody has classified."""
    with (NATIVE / "names" / f"{api}.csv").open(newline="") as file:
        rows = [(row["name"], row["class"]) for row in csv.DictReader(file)]
    unread = [name for name, kind in rows if kind == "unclassified"]
    if unread:
        raise ValueError(f"{api}.csv: {unread[0]} and {len(unread) - 1} more are unclassified")
    return rows


def signatures(api: str) -> list[Signature]:
    """Those that the shim calls or stands for."""
    with (NATIVE / "names" / f"{api}_calls.csv").open(newline="") as file:
        return [Signature(row["name"], row["way"], row["with"], row["parameters"]) for row in csv.DictReader(file)]


def table(listed: Sequence[tuple[str, str]]) -> str:
    """A header: each name's place in `gy_real`, the names and whether they are denied, and which of them are ours."""
    lines = ["#pragma once", "enum {"]
    lines += [f"    I_{name} = {index}," for index, (name, _) in enumerate(listed)]
    lines += [f"    GY_NAMES = {len(listed)}", "};"]
    lines += _each("HOOK", [name for name, kind in listed if kind not in PASSED_ON])
    lines += _each("NAME", [f"{name}, {int(kind == 'deny')}" for name, kind in listed])
    return "\n".join([*lines, ""])


def calls(api: str, declared: Sequence[Signature]) -> str:
    """A header: prototypes, and for each way a list of X(name, per thread, extra, (parameters), arguments...)."""
    lines = ["#pragma once"]
    lines += [f"{_RESULT[api]} {each.name}({each.parameters});" for each in declared]
    for way in sorted({each.way for each in declared if each.way}):
        rows = [
            f"{each.name}, {str(each.is_per_thread).lower()}, {each.extra}, ({each.parameters}), {each.arguments}"
            for each in declared
            if each.way == way
        ]
        lines += _each(way.upper(), rows)
    return "\n".join([*lines, ""])


def hooks(api: str, listed: Sequence[tuple[str, str]], declared: Sequence[Signature]) -> str:
    """A source file: what programs call where a function is ours. None of ours is reached where the shim refused.

    Launches have a way of their own, in `building`. Raises KeyError for a name that is ours and has no signature.
    """
    known = {each.name: each for each in declared}
    lines = [f'#include "{api}_shim.h"']
    for name, kind in listed:
        if kind not in (*PASSED_ON, "launch"):
            parameters, arguments = known[name].parameters, known[name].arguments
            lines += [f"int gy_ours_{name}({parameters});"]
            lines += [f"EXPORT int {name}({parameters}) {{ ENTER(); return gy_ours_{name}({arguments}); }}"]
    return "\n".join([*lines, ""])


def _each(what: str, rows: Sequence[str]) -> list[str]:
    return [f"#define GY_EACH_{what}(X) \\", *(f"    X({row}) \\" for row in rows), ""]

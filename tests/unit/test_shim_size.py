"""The shim stays small enough to be read in one sitting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpuyard.slicing.layout import NATIVE

SHIM = NATIVE / "shim"
# A comment, or a text: what looks like the beginning of a comment in a text is none.
COMMENT_OR_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|/\*.*?\*/|//[^\n]*', re.DOTALL)


def lines_of_code(*files: Path) -> int:
    """Lines with something on them that is no comment: braces, includes and declarations count like all else. What is
    written from tables (trampolines, prototypes, the functions that only differ in their version) is in no file here."""
    total = 0
    for file in files:
        code = COMMENT_OR_TEXT.sub(lambda match: match[0] if match[0].startswith('"') else "", file.read_text())
        total += sum(bool(line.strip()) for line in code.splitlines())
    return total


def test_comments_and_empty_lines_do_not_count_and_all_else_does(tmp_path: Path) -> None:
    file = tmp_path / "file.c"
    file.write_text('/* one\n * two */\n\n#include "x.h" /* three */\nchar *s = "/* a text */"; // four\n// five\n}\n')
    assert lines_of_code(file) == 3


@pytest.mark.parametrize(("library", "most"), [("cuda", 1500), ("nvml", 100)])
def test_a_library_of_the_shim_has_no_more_lines_than_this(library: str, most: int) -> None:
    """`libcuda.so.1` with all that both libraries share; what `libnvidia-ml.so.1` adds to that."""
    files = sorted(SHIM.glob(f"{library}*.[ch]"))
    if library == "cuda":
        files += sorted({*SHIM.glob("*.[ch]")} - {*SHIM.glob("cuda*")} - {*SHIM.glob("nvml*")})
    assert lines_of_code(*files) <= most


def test_every_file_of_the_shim_is_counted_for_one_of_them() -> None:
    assert {file.name.partition("_")[0].partition(".")[0] for file in SHIM.iterdir()} == {
        "common",
        "cuda",
        "nvml",
        "shim",
    }

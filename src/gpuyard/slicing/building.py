"""Builds the native parts: two shims that stand before the driver's libraries, and the emulator that stands in for
them.

A wheel carries them built. In a checkout they are built on first use with the C compiler at hand, into a folder named
by the content of everything that goes in, so that a change builds anew and two at once do not meet.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuyard.model.errors import YardError
from gpuyard.slicing import entry_points
from gpuyard.slicing.layout import NATIVE, layout

CARRIED: Final = NATIVE / "lib"
GLIBC: Final = "2.17"  # manylinux2014: what the oldest CUDA images have
_FLAGS: Final = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-strict-aliasing",
)
_JUMPS: Final = {
    "x86_64": "    jmp *gy_real+{at}(%rip)",
    "aarch64": "    adrp x16, gy_real+{at}\n    ldr x16, [x16, #:lo12:gy_real+{at}]\n    br x16",
}

_GATE: Final = {
    "x86_64": "    cmpb $0, gy_direct(%rip)\n    je gy_gated_{name}",
    "aarch64": "    adrp x16, gy_direct\n    ldrb w16, [x16, #:lo12:gy_direct]\n    cbz w16, gy_gated_{name}",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One shared library: which sources, which API, and under which name the dynamic linker knows it."""

    folder: str
    api: str
    soname: str

    @property
    def path(self) -> str:
        """Where it lies below the folder that `built` returns."""
        return f"{self.folder}/{self.soname}"


TARGETS: Final = (
    Target("shim", "cuda", "libcuda.so.1"),
    Target("shim", "nvml", "libnvidia-ml.so.1"),
    Target("emulator", "cuda", "libcuda.so.1"),
    Target("emulator", "nvml", "libnvidia-ml.so.1"),
)


PROBE: Final = "gpuyard-verify"  # beside the shim's libraries: a program that tries what a slice holds
MPS_CONTROL: Final = "nvidia-cuda-mps-control"  # beside the emulator's: what the driver's program of that name is


def built() -> Path:
    """The folder with all libraries. Raises YardError `native_unavailable` where none came and none can be built."""
    if all((CARRIED / target.path).exists() for target in TARGETS[:2]):
        return CARRIED
    folder = _cache() / f"native-{_content_hash()}"
    if folder.exists():
        return folder
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise YardError("native_unavailable", reason="cc: apt-get install gcc libc6-dev")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        build(partial, (compiler,), platform.machine())
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        if not folder.exists():  # somebody else was quicker where it does
            raise
    except subprocess.CalledProcessError as error:
        raise YardError("native_unavailable", reason=error.stderr.strip()[-400:]) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def build(out: Path, compiler: Sequence[str], machine: str) -> None:
    """Builds every target below `out`. Raises subprocess.CalledProcessError with what the compiler said."""
    generated = out / "generated"
    generated.mkdir(parents=True)
    (generated / "layout.h").write_text(layout().header())
    for target in TARGETS:
        _build_target(target, out, generated, compiler, machine)
    _build_probe(out / TARGETS[0].folder / PROBE, compiler)
    _build_mps_control(out / "emulator" / MPS_CONTROL, generated, compiler)
    shutil.rmtree(generated)


def _build_target(target: Target, out: Path, generated: Path, compiler: Sequence[str], machine: str) -> None:
    names = entry_points.names(target.api)
    own = generated / f"{target.folder}_{target.api}"
    own.mkdir()
    if target.folder == "shim":
        (own / "names.h").write_text(entry_points.table(names))
        signatures = entry_points.signatures(target.api)
        (own / "calls.h").write_text(entry_points.calls(target.api, signatures))
        (own / "hooks.c").write_text(entry_points.hooks(target.api, names, signatures))
        (own / "trampolines.S").write_text(_trampolines(names, machine))
    else:
        (own / "stubs.c").write_text(_stubs(target.api, names))
    common = "device" if target.folder == "emulator" else "common"
    folder = NATIVE / target.folder
    sources = [*sorted(folder.glob(f"{target.api}*.c")), *sorted(folder.glob(f"{common}*.c"))]
    sources += sorted(own.glob("*.[cS]"))
    library = out / target.path
    library.parent.mkdir(exist_ok=True)
    subprocess.run(  # noqa: S603 - a compiler that was found on this machine, and files of this package
        [*compiler, *_FLAGS, f"-I{generated}", f"-I{own}", f"-I{folder}", "-shared", f"-Wl,-soname,{target.soname}",
         "-Wl,-z,now", "-Wl,--build-id=none", *map(str, sources), "-o", str(library), "-lpthread", "-ldl", "-lrt"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip


def _build_probe(out: Path, compiler: Sequence[str]) -> None:
    source = NATIVE / "probe" / "verify.c"
    subprocess.run(  # noqa: S603 - as above
        [*compiler, "-std=gnu11", "-O2", "-Wall", str(source), "-o", str(out), "-ldl"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip


def _build_mps_control(out: Path, generated: Path, compiler: Sequence[str]) -> None:
    folder = NATIVE / "emulator"
    sources = [*sorted(folder.glob("mps_*.c")), *sorted(folder.glob("device*.c"))]
    subprocess.run(  # noqa: S603 - as above
        [*compiler, *_FLAGS, f"-I{generated}", f"-I{folder}", *map(str, sources), "-o", str(out), "-lpthread", "-lrt"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip


def _trampolines(names: Sequence[tuple[str, str]], machine: str) -> str:
    """One jump through the table per name that is passed on. Before the table is filled, each jumps to its loader."""
    jump = _JUMPS[machine]
    lines = [".text"]
    for index, (name, kind) in enumerate(names):
        if kind in ("pass", "deny", "launch"):
            lines += [f".globl {name}", f".type {name}, %function", f"{name}:"]
            lines += [_GATE[machine].format(name=name)] if kind == "launch" else []
            lines += [jump.format(at=8 * index), f".size {name}, .-{name}"]
    lines += [_LAZY[machine].replace("NAMES", str(len(names))), _REAL.replace("NAMES", str(len(names)))]
    return "\n".join([*lines, '.section .note.GNU-stack,"",%progbits', ""])


# Each stub is 16 bytes: it says which function was called, keeps the arguments, has the table filled, and calls again.
_LAZY: Final = {
    "x86_64": """
.balign 16
gy_lazy_stubs:
.set n, 0
.rept NAMES
    .balign 16
    movl $n, %eax
    jmp gy_lazy_common
    .set n, n + 1
.endr
gy_lazy_common:
    push %rbp
    mov %rsp, %rbp
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %r8
    push %r9
    push %rax
    sub $136, %rsp
    and $-16, %rsp
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    call gy_fill
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    lea -56(%rbp), %rsp
    pop %rax
    pop %r9
    pop %r8
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    pop %rbp
    lea gy_real(%rip), %r11
    jmp *(%r11,%rax,8)
""",
    "aarch64": """
.balign 16
gy_lazy_stubs:
.set n, 0
.rept NAMES
    .balign 16
    mov w17, #n
    b gy_lazy_common
    .set n, n + 1
.endr
gy_lazy_common:
    stp x29, x30, [sp, #-160]!
    mov x29, sp
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    stp x8, x17, [sp, #80]
    stp q0, q1, [sp, #96]
    stp q2, q3, [sp, #128]
    bl gy_fill
    ldp q2, q3, [sp, #128]
    ldp q0, q1, [sp, #96]
    ldp x8, x17, [sp, #80]
    ldp x6, x7, [sp, #64]
    ldp x4, x5, [sp, #48]
    ldp x2, x3, [sp, #32]
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #160
    adrp x16, gy_real
    add x16, x16, :lo12:gy_real
    ldr x16, [x16, x17, lsl #3]
    br x16
""",
}

_REAL: Final = """
.section .data
.balign 8
.globl gy_real
.hidden gy_real
gy_real:
.set n, 0
.rept NAMES
    .quad gy_lazy_stubs + 16 * n
    .set n, n + 1
.endr
"""


def _stubs(api: str, names: Sequence[tuple[str, str]]) -> str:
    """What the emulator does not know answers that it is not supported, as a driver does."""
    answer = {"cuda": 801, "nvml": 3}[api]
    lines = ['#define WEAK __attribute__((weak, visibility("default")))']
    lines += [f"#define STUB(name) WEAK int name(void) {{ return {answer}; }}"]
    lines += [f"STUB({name})" for name, _ in names]
    return "\n".join([*lines, ""])


def _content_hash() -> str:
    digest = hashlib.sha256(platform.machine().encode())
    writers = (Path(__file__), Path(entry_points.__file__))
    for path in [*writers, *sorted(p for p in NATIVE.rglob("*") if p.is_file() and CARRIED not in p.parents)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpuyard"


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3] if len(sys.argv) > 3 else platform.machine())

"""Programs of another C library than glibc: they run on, and CUDA is refused to them in one line. NVIDIA's driver itself
needs glibc, so there is nothing to give them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gpuyard.testing import Machine
from slices_in_hand import MIB, Shop, compile_tenant

pytestmark = pytest.mark.skipif(
    shutil.which("musl-gcc") is None and not os.environ.get("CI"),  # there it is installed, and a missing one fails
    reason="musl-gcc not found: apt-get install musl-tools",
)

WANTS_CUDA = """
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    int (*init)(unsigned) = driver ? (int (*)(unsigned))dlsym(driver, "cuInit") : 0;
    if (!init) return printf("none: %s\\n", dlerror()), 0;
    printf("cuInit %d\\n", init(0));
    return 0;
}
"""
WANTS_NOTHING = '#include <stdio.h>\nint main(void) { puts("fine"); return 0; }\n'


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Machine("1xRTX4090") as machine:
        shop = Shop(machine, tmp_path / "slices", compile_tenant(tmp_path))
        yield shop
        shop.close()


def run(folder: Path, source: str, environment: Mapping[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "musl.c").write_text(source)
    program = folder / "musl"
    subprocess.run(["musl-gcc", *flags, "-o", program, folder / "musl.c"], check=True)
    return subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60)


def test_a_program_that_finds_the_library_by_its_path_is_refused_cuda_in_one_line(shop: Shop, tmp_path: Path) -> None:
    done = run(tmp_path, WANTS_CUDA, shop.cut("a", 1024 * MIB))
    assert (done.returncode, done.stdout) == (0, "cuInit 800\n")  # not permitted
    assert done.stderr.count("\n") == 1
    assert "CUDA is refused here" in done.stderr
    assert "its driver library cannot be loaded" in done.stderr


@pytest.mark.parametrize("flags", [(), ("-static",)])
def test_a_program_without_cuda_runs_on_where_the_library_is_preloaded(
    shop: Shop, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    shop.keeper.preload = True
    environment = shop.cut("a", 1024 * MIB)
    assert "LD_PRELOAD" in environment
    done = run(tmp_path, WANTS_NOTHING, environment, *flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_preloaded_library_gives_it_no_cuda_either(shop: Shop, tmp_path: Path) -> None:
    shop.keeper.preload = True
    done = run(tmp_path, WANTS_CUDA, shop.cut("a", 1024 * MIB))
    assert done.returncode == 0
    assert "cuInit 0" not in done.stdout
    assert "refused here" in done.stderr or done.stdout.startswith("none: ")

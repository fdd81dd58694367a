"""`gpuyard emulate -- CMD`, as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COUNT = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(1)))"
SPIN = """
import time, ctypes as c
cuda, context, module, function = c.CDLL("libcuda.so.1"), c.c_void_p(), c.c_void_p(), c.c_void_p()
assert not cuda.cuInit(0) and not cuda.cuDevicePrimaryCtxRetain(c.byref(context), 0) and not cuda.cuCtxSetCurrent(context)
assert not cuda.cuModuleLoadData(c.byref(module), b"x")
assert not cuda.cuModuleGetFunction(c.byref(function), module, b"k_30000000000")
assert not cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, None, None)
begun = time.monotonic()
assert not cuda.cuCtxSynchronize()
print(time.monotonic() - begun < 20)
"""


def emulate(*words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("gpuyard")
    return subprocess.run([program, "emulate", *words], capture_output=True, text=True, timeout=60, check=False)


def test_a_program_finds_the_cards_that_were_asked_for() -> None:
    done = emulate("--cards", "1xRTX4090,1xH100", "--", sys.executable, "-c", COUNT)
    assert (done.returncode, "H100" in done.stdout) == (0, True), done.stderr


def test_the_driver_has_the_version_that_was_asked_for() -> None:
    ask = "import pynvml as n; n.nvmlInit(); print(n.nvmlSystemGetDriverVersion())"
    assert emulate("--driver", "615.71.09", "--", sys.executable, "-c", ask).stdout == "615.71.09\n"
    refused = emulate("--driver", "new", "--", "true")
    assert (refused.returncode, "digits and points" in refused.stderr) == (2, True)


@pytest.mark.parametrize(("command", "code"), [(("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -9 $$"), 137)])
def test_its_exit_code_is_the_programs(command: tuple[str, ...], code: int) -> None:
    assert emulate("--", *command).returncode == code


def test_half_a_minute_of_work_is_over_at_once_on_the_virtual_clock() -> None:
    done = emulate("--virtual", "--", sys.executable, "-c", SPIN)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


@pytest.mark.parametrize(
    "words", [("--cards", "nonsense", "--", "true"), ("--", "/no/such/program"), ("--cards", "1xMI300X", "--", "true")]
)
def test_what_cannot_be_emulated_is_said_in_one_line(words: tuple[str, ...]) -> None:
    done = emulate(*words)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr

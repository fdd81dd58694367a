"""The emulator's nvidia-cuda-mps-control and its clients, as the driver's behave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuyard.testing import Machine

pytest_plugins = ["gpuyard.testing.fixtures"]

Control = Callable[..., subprocess.CompletedProcess[str]]
CLIENT = """
import ctypes, json
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
cuda, say = ctypes.CDLL("libcuda.so.1"), {}
count, value, context, pointer = c_int(), c_int(), c_void_p(), c_uint64()
say["init"] = cuda.cuInit(0)
cuda.cuDeviceGetCount(byref(count)); say["devices"] = count.value
for name, which in (("multiprocessors", 16), ("client", 133)):
    cuda.cuDeviceGetAttribute(byref(value), which, 0); say[name] = value.value
say["context"] = cuda.cuDevicePrimaryCtxRetain(byref(context), 0)
cuda.cuCtxSetCurrent(context)
say["gib"] = 0
while say["context"] == 0 and say["gib"] < 20 and cuda.cuMemAlloc_v2(byref(pointer), c_size_t(1 << 30)) == 0: say["gib"] += 1
print(json.dumps(say))
"""


@pytest.fixture
def machine(fake_driver: Callable[..., Machine]) -> Machine:
    return fake_driver("2xRTX4090", context_bytes=0)


@pytest.fixture
def environment(machine: Machine, tmp_path: Path) -> dict[str, str]:
    return {**machine.env(), "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "pipes"), "CUDA_VISIBLE_DEVICES": "0"}


@pytest.fixture
def control(environment: dict[str, str]) -> Iterator[Control]:
    def command(said: str = "", *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nvidia-cuda-mps-control", *words], env=environment, input=said, capture_output=True, text=True, timeout=30
        )

    yield command
    command("quit\n")


def client(environment: dict[str, str], **more: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], env={**environment, **more}, capture_output=True, text=True, timeout=30
    )
    return json.loads(done.stdout)


def test_without_a_daemon_commands_say_so_and_programs_run_as_without_mps(
    control: Control, environment: dict[str, str]
) -> None:
    told = control("get_server_list\n")
    assert (told.returncode, told.stdout) == (1, "Cannot find MPS control daemon process\n")
    seen = client(environment)
    assert (seen["init"], seen["client"], seen["multiprocessors"], seen["gib"]) == (0, 0, 128, 20)


def test_one_daemon_a_directory_and_its_commands(control: Control, environment: dict[str, str]) -> None:
    assert control("", "-d").returncode == 0
    assert control("", "-d").returncode == 1
    assert control("get_server_list\nget_default_active_thread_percentage\n").stdout == "100.0\n"
    control("set_default_active_thread_percentage 12.5\nset_default_device_pinned_mem_limit 0 2G\n")
    told = control("get_default_active_thread_percentage\nget_default_device_pinned_mem_limit 0\n").stdout
    assert told == "12.5\n2048M\n"
    control(f"start_server -uid {os.geteuid()}\n")
    server = control("get_server_list\n").stdout.strip()
    assert server.isdecimal()
    assert control(f"get_active_thread_percentage {server}\n").stdout == "12.5\n"
    assert "Unrecognized" in control("make coffee\n").stdout
    assert "not found" in control("get_client_list 1\n").stdout
    seen = client(environment)
    assert (seen["devices"], seen["client"], seen["multiprocessors"], seen["gib"]) == (1, 1, 16, 2)
    control("quit\n")
    assert control("get_server_list\n").returncode == 1
    assert client(environment)["client"] == 0


def test_a_client_can_have_less_than_its_server_allows_and_not_more(
    control: Control, environment: dict[str, str]
) -> None:
    control("", "-d")
    control("set_default_active_thread_percentage 50\nset_default_device_pinned_mem_limit 0 4G\n")
    share, memory = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
    less = client(environment, **{share: "25", memory: "0=1G"})
    assert (less["multiprocessors"], less["gib"]) == (32, 1)
    more = client(environment, **{share: "100", memory: "0=20G"})
    assert (more["multiprocessors"], more["gib"]) == (64, 4)


def test_a_client_that_names_a_device_too_many_has_no_memory_limit_as_with_the_real_one(
    control: Control, environment: dict[str, str]
) -> None:
    control("", "-d")
    control("set_default_device_pinned_mem_limit 0 4G\n")
    assert client(environment, CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="0=1G,1=1G")["gib"] == 20


def test_an_exclusive_card_is_its_servers_and_a_prohibited_one_nobodys(
    control: Control, environment: dict[str, str]
) -> None:
    control("", "-d")
    control(f"start_server -uid {os.geteuid()}\n")
    alone = {name: value for name, value in environment.items() if name != "CUDA_MPS_PIPE_DIRECTORY"}
    found = []
    for mode in (0, 3, 2):
        program = (
            f"import pynvml as n; n.nvmlInit(); n.nvmlDeviceSetComputeMode(n.nvmlDeviceGetHandleByIndex(0), {mode})"
        )
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        found.append((client(environment)["context"], client(alone)["context"]))
    assert found == [(0, 0), (0, 46), (46, 46)]

"""CDI specs: NVIDIA's as they are read, ours as engines read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuyard.slicing.cdi import BindMount, Library, device_name, driver_inside, spec_file, write_spec

NVIDIA = """
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0}]
- name: GPU-01234567-0123-0123-0123-0123456789ab
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0}]
- name: all
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  hooks: [{hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache]}]
  mounts:
  - hostPath: /run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.615.71.09
    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.615.71.09
    options: [ro, nosuid, nodev, bind]
  - hostPath: /run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.615.71.09
    containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.615.71.09
  - hostPath: /run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcudadebugger.so.615.71.09
    containerPath: /usr/lib/x86_64-linux-gnu/libcudadebugger.so.615.71.09
"""


def test_nvidia_s_spec_says_where_the_driver_lies_inside_and_which_cards_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(NVIDIA)
    found = driver_inside([tmp_path / "missing", tmp_path])
    assert found is not None
    inside = Path("/usr/lib/x86_64-linux-gnu")
    here = Path("/run/nvidia/driver/usr/lib/x86_64-linux-gnu")
    assert found.cuda == Library(here / "libcuda.so.615.71.09", inside / "libcuda.so.615.71.09")
    assert found.nvml == Library(here / "libnvidia-ml.so.615.71.09", inside / "libnvidia-ml.so.615.71.09")
    assert found.cards == {"GPU-01234567-0123-0123-0123-0123456789ab"}


def test_a_spec_without_the_driver_or_that_cannot_be_read_holds_nobody_to_a_slice(tmp_path: Path) -> None:
    assert driver_inside([tmp_path]) is None
    (tmp_path / "a.yaml").write_text(NVIDIA.replace("libcuda.so.", "libother.so."))
    (tmp_path / "b.yaml").write_text("kind: [nvidia.com/gpu")
    (tmp_path / "c.json").write_text("[]")
    (tmp_path / "d.yaml").write_text(NVIDIA.replace("nvidia.com/gpu", "another.com/gpu"))
    assert driver_inside([tmp_path]) is None


def test_a_later_folder_hides_a_spec_of_the_same_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, version in ((first, "1"), (second, "2")):
        folder.mkdir()
        (folder / "nvidia.yaml").write_text(NVIDIA.replace("615.71.09", version))
    found = driver_inside([first, second])
    assert found is not None
    assert found.cuda.inside.name == "libcuda.so.2"


def test_a_unit_s_spec_is_one_device_with_its_mounts(tmp_path: Path) -> None:
    mounts = (BindMount(Path("/state/ledger"), Path("/run/gpuyard/ledger"), False),)
    write_spec(tmp_path, "ls-1-1", {"GPUYARD_SLICE": "/run/gpuyard/slice"}, mounts)
    spec = json.loads(spec_file(tmp_path, "ls-1-1").read_text())
    (device,) = spec["devices"]
    assert device_name("ls-1-1") == f"{spec['kind']}={device['name']}"
    (mount,) = device["containerEdits"]["mounts"]
    assert (mount["hostPath"], mount["containerPath"]) == ("/state/ledger", "/run/gpuyard/ledger")
    assert "rw" in mount["options"]
    assert device["containerEdits"]["env"] == ["GPUYARD_SLICE=/run/gpuyard/slice"]
    assert driver_inside([tmp_path]) is None  # it is not taken for the driver's


@pytest.mark.parametrize("text", ["", "null", "kind: nvidia.com/gpu", "kind: nvidia.com/gpu\ndevices: [{name: GPU-1}]"])
def test_a_spec_with_nothing_in_it_is_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "nvidia.yaml").write_text(text)
    assert driver_inside([tmp_path]) is None

"""MIG through the real nvidia-ml-py on the emulated driver: what is planned is what the driver takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from gpuyard.testing import Machine

pytest_plugins = ["gpuyard.testing.fixtures"]

Make = Callable[..., Machine]
PROGRAM = """
import json, pynvml as n
from gpuyard.hardware import mig_nvidia as mig
from gpuyard.model.slices import SliceShape
from gpuyard.scheduling.mig_places import plan, room
n.nvmlInit()
card = n.nvmlDeviceGetHandleByIndex(0)
say = []
{script}
print(json.dumps(say))
"""


def run(machine: Machine, script: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(script=script)], env=machine.env(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("spec", "third"), [("1xA100-40GB", "3g.20gb"), ("1xH100", "3g.40gb")])
def test_profiles_are_read_with_their_places_and_a_plan_is_what_the_driver_makes(
    fake_driver: Make, spec: str, third: str
) -> None:
    script = """
told = mig.read(n, card)
say += [told.enabled, sorted(p.name for p in told.profiles if p.compute_slices == 3), len(told.taken)]
n.nvmlDeviceSetMigMode(card, 1)
told = mig.read(n, card)
third = next(p for p in told.profiles if p.compute_slices == 3)
small = next(p for p in told.profiles if p.compute_slices == 1)
shapes = [SliceShape(small.memory_bytes, 142857), SliceShape(third.memory_bytes, 428571), SliceShape(small.memory_bytes, 1)]
places = plan(told, shapes)
made = [mig.make(n, card, place) for place in places]
after = mig.read(n, card)
say += [after.enabled, sorted((p.profile_id, p.start) for p in after.taken) == sorted((p.profile_id, p.start) for p in places)]
left = room(after)
say.append(all(n.nvmlDeviceGetGpuInstanceRemainingCapacity(card, p.id) >= left[p.name] for p in after.profiles))
for place in places: mig.remove(n, card, place)
mig.remove(n, card, places[0])
say.append(len(mig.read(n, card).taken))
"""
    assert run(fake_driver(spec), script) == [False, [third], 0, True, True, True, 0]


def test_a_card_without_mig_has_no_such_side(fake_driver: Make) -> None:
    assert run(fake_driver("1xRTX4090"), "say.append(mig.read(n, card))") == [None]


def test_the_doctor_names_the_profiles_of_a_card(fake_driver: Make) -> None:
    script = """
from gpuyard.hardware.nvidia import NvidiaProbe
from gpuyard.texts import text
told = {f.name: f for f in NvidiaProbe().probe().findings}["mig_profiles"]
say.append(text("doctor.mig_profiles.ok", "en", **told.params))
"""
    (sentence,) = run(fake_driver("1xH100"), script)
    assert "1g.10gb, 2g.20gb, 3g.40gb" in str(sentence)
    assert "-mig 1` turns that on" in str(sentence)
    (sentence,) = run(fake_driver("1xH100:mig"), script.replace("mig_profiles", "mig_mode"))
    assert "1g.10gb, 2g.20gb, 3g.40gb" in str(sentence)
    assert "0 are there" in str(sentence)
    assert "-mig 0` turns that off" in str(sentence)

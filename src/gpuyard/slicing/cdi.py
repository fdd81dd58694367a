"""CDI: how container engines are told of devices. NVIDIA's specs say where the driver lies inside a container; ours put
the shim in its place there.

Edits apply in the order in which devices are asked for, and a later mount takes an earlier one's place: so a unit asks
for its cards first and for its slice after them. https://github.com/cncf-tags/container-device-interface
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
KIND: Final = "gpuyard.dev/slice"
_VERSION: Final = "0.5.0"  # the newest that Podman 4.3 takes
_CARDS: Final = "nvidia.com/gpu"
_PREFIX: Final = "gpuyard-slice-"


@dataclass(frozen=True, slots=True)
class BindMount:
    """A path of this machine that a container sees at `target`."""

    source: Path
    target: Path
    read_only: bool


@dataclass(frozen=True, slots=True)
class Library:
    """A library of the driver: where it lies here, and where an engine puts it in a container."""

    here: Path
    inside: Path


@dataclass(frozen=True, slots=True)
class DriverInside:
    """What containers get of the driver. `cards`: the UUIDs that can be asked for."""

    cuda: Library
    nvml: Library | None
    cards: frozenset[str]


def device_name(unit: str) -> str:
    """What a container asks for to be kept to the slices of that unit."""
    return f"{KIND}={unit}"


def driver_inside(folders: Sequence[Path] = FOLDERS) -> DriverInside | None:
    """What NVIDIA's specs on this machine say; None where there is none, or none that brings the CUDA driver."""
    libraries: dict[str, Library] = {}
    cards: set[str] = set()
    for spec in _specs(folders):
        if spec.get("kind") != _CARDS:
            continue
        devices: list[Mapping[str, Any]] = spec.get("devices") or []
        cards |= {str(device.get("name")) for device in devices}
        for edits in (spec, *devices):
            for mount in (edits.get("containerEdits") or {}).get("mounts") or []:
                inside = Path(mount["containerPath"])
                stem, dot, _ = inside.name.partition(".so.")
                if dot and stem in {"libcuda", "libnvidia-ml"}:
                    libraries.setdefault(stem, Library(Path(mount["hostPath"]), inside))
    cuda = libraries.get("libcuda")
    if cuda is None:
        return None
    return DriverInside(
        cuda, libraries.get("libnvidia-ml"), frozenset(card for card in cards if card.startswith("GPU-"))
    )


def _specs(folders: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    """Every spec that can be read, in the engines' order: a file of a later folder hides one of the same name."""
    import yaml

    files = {file.name: file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())}
    for file in files.values():
        if file.suffix not in {".json", ".yaml", ".yml"} or file.name.startswith(_PREFIX):
            continue
        try:
            text = file.read_text()
            spec: object = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        except (OSError, ValueError, yaml.YAMLError):
            continue  # the engine skips it too
        if isinstance(spec, dict):
            yield cast("Mapping[str, Any]", spec)


def spec_file(folder: Path, unit: str) -> Path:
    """Where a unit's spec lies."""
    return folder / f"{_PREFIX}{unit}.json"


def write_spec(folder: Path, unit: str, environment: Mapping[str, str], mounts: Sequence[BindMount]) -> None:
    """Tells the engines of this machine of a unit's slice. Raises OSError where this user may not."""
    edits = {
        "env": [f"{name}={value}" for name, value in environment.items()],
        "mounts": [
            {
                "hostPath": str(mount.source),
                "containerPath": str(mount.target),
                "options": ["bind", "nosuid", "nodev", "ro" if mount.read_only else "rw"],
            }
            for mount in mounts
        ],
    }
    devices = [{"name": unit, "containerEdits": edits}]
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{_PREFIX}{unit}.partial"
    partial.write_text(json.dumps({"cdiVersion": _VERSION, "kind": KIND, "devices": devices}))
    partial.chmod(0o644)
    partial.replace(spec_file(folder, unit))


def may_write(folder: Path) -> bool:
    """Whether this user may tell the engines of devices, and be believed by a program that runs as root inside."""
    return os.geteuid() == 0 and (not folder.exists() or os.access(folder, os.W_OK))

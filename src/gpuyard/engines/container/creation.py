"""What a container is made with, and how each engine wants it said.

Podman's compatible API cannot name CDI devices before 5.x, its own API can since 4.1; so Podman is asked in its own
words and Docker in Docker's (which needs Docker >= 25 with CDI on, the default from 28.3).
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from gpuyard.engines.runtime import Unit
from gpuyard.model.errors import YardError
from gpuyard.model.slices import Slice
from gpuyard.slicing.cdi import device_name
from gpuyard.slicing.ladder import enforced

WORKSPACE: Final = "/workspace"
LABEL_YARD: Final = "gpuyard.yard"
LABEL_UNIT: Final = "gpuyard.unit"
LABEL_DISK: Final = "gpuyard.disk"
LABEL_TENANT: Final = "gpuyard.tenant"
LABEL_PORTS: Final = "gpuyard.ports"
LABEL_BOOT: Final = "gpuyard.boot"
LABEL_ASKED: Final = "gpuyard.asked_ns"
LABEL_SHARE: Final = "gpuyard.share_ppm"

# What package managers and servers of ordinary images do as root inside: own files, change user, bind port 80.
CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
SCRATCH: Final = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - paths inside the container, on memory of its own
PIDS: Final = 4096
_NOFILE: Final = 65536
_NPROC: Final = 32768  # podman lowers its own limit to this (kernel.pid_max), and nobody may give more than he has
LOG_BYTES: Final = 64 << 20
_RESERVED: Final = ("/proc", "/sys", "/dev", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/usr")


@dataclass(frozen=True, slots=True)
class Means:
    """What this engine on this machine has turned out to be able to do."""

    init: bool = True
    host_network: bool = False
    small_limits: bool = False  # ulimits that even the most confined engine may set


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of the host at a path of the container."""

    source: str
    target: str
    read_only: bool = False
    shared: bool = False  # between units: the SELinux label must be too


def mount_target(path: str) -> str:
    """The absolute path of a mount: a relative one lies below the disk.

    Raises YardError `mount_refused` for what would hide the disk or a part of the system.
    """
    pure = PurePosixPath(path)
    if ".." in pure.parts or ":" in path or "\0" in path:
        raise YardError("mount_refused", path=path, reason="it must not contain '..' or ':'")
    target = str(pure if pure.is_absolute() else PurePosixPath(WORKSPACE) / pure)
    if target in ("/", WORKSPACE) or any(target == top or target.startswith(f"{top}/") for top in _RESERVED):
        raise YardError("mount_refused", path=path, reason=f"{target} belongs to the system or to the disk")
    return target


def working_directory(unit: Unit) -> str:
    """Where the command starts: on the disk, unless an absolute path of the image is asked for."""
    return str(PurePosixPath(WORKSPACE) / (unit.working_directory or ""))


def environment(unit: Unit, host_ports: Mapping[int, int]) -> dict[str, str]:
    """Everything the unit sees. The home is on the disk, because nothing else of the image is writable or kept. `PORT`
    and `PORT_<declared>` say where to listen, as in the process runtime: on the declared port, unless the network
    is the host's."""
    found = {"TZ": "UTC", "HOME": WORKSPACE, "PYTHONUNBUFFERED": "1", **unit.environment, **unit.secrets}
    if unit.ports:
        found["PORT"] = str(host_ports.get(unit.ports[0], unit.ports[0]))
        found.update((f"PORT_{declared}", str(host_ports.get(declared, declared))) for declared in unit.ports)
    return found


def slices_of(unit: Unit) -> list[Slice]:
    """Those slices that a library inside of the unit keeps it to."""
    return [cut for cut in unit.slices if enforced(cut.guarantee)]


def devices(unit: Unit) -> list[str]:
    """CDI names of the cards (the NVIDIA toolkit lists each card under its UUID too), and after them, because what
    comes later wins, of what keeps the unit to its slices of them."""
    cards = set() if unit.simulated_cards else {f"nvidia.com/gpu={cut.card_uuid}" for cut in unit.slices}
    return [*sorted(cards), *([device_name(unit.name)] if slices_of(unit) else [])]


def limits(means: Means) -> dict[str, int]:
    """Ulimits by name. Always said: an engine's defaults may be more than it is allowed to give."""
    if means.small_limits:
        return {"nofile": 1024, "nproc": 1024}
    return {
        "nofile": _at_most(resource.RLIMIT_NOFILE, _NOFILE),
        "nproc": _at_most(resource.RLIMIT_NPROC, _NPROC),
    }


def _at_most(kind: int, wanted: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def podman_body(
    unit: Unit, labels: Mapping[str, str], binds: list[Bind], means: Means, host_ports: Mapping[int, int]
) -> dict[str, Any]:
    """The body of Podman's own create call."""
    mounts: list[dict[str, Any]] = [
        {
            "type": "bind",
            "source": bind.source,
            "destination": bind.target,
            "options": ["rbind", "ro" if bind.read_only else "rw", "nosuid", "nodev", "z" if bind.shared else "Z"],
        }
        for bind in binds
    ]
    mounts += [
        {"type": "tmpfs", "destination": path, "options": ["rw", "nosuid", "nodev", "mode=1777"]} for path in SCRATCH
    ]
    body: dict[str, Any] = {
        "name": unit.name,
        "image": unit.image,
        "env": environment(unit, host_ports),
        "labels": dict(labels),
        "work_dir": working_directory(unit),
        "mounts": mounts,
        "read_only_filesystem": True,
        "cap_drop": ["all"],
        "cap_add": list(CAPABILITIES),
        "no_new_privileges": True,
        "r_limits": [{"type": name, "soft": value, "hard": value} for name, value in limits(means).items()],
        "resource_limits": {
            "memory": {"limit": unit.memory_bytes, "swap": unit.memory_bytes},
            "cpu": {"quota": unit.cpu_milli * 100, "period": 100_000},
            "pids": {"limit": PIDS},
        },
        "shm_size": unit.memory_bytes // 2,
        "init": means.init,
        "restart_policy": "no",
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "devices": [{"path": name} for name in devices(unit)],
    }
    if unit.command:
        body["command"] = list(unit.command)
    if means.host_network:
        body["netns"] = {"nsmode": "host"}
    else:
        body["portmappings"] = [
            {"container_port": port, "host_ip": "127.0.0.1", "protocol": "tcp"} for port in unit.ports
        ]
    return body


def docker_body(
    unit: Unit, labels: Mapping[str, str], binds: list[Bind], means: Means, host_ports: Mapping[int, int]
) -> dict[str, Any]:
    """The body of Docker's create call."""
    published = () if means.host_network else unit.ports
    host: dict[str, Any] = {
        "Binds": [
            f"{bind.source}:{bind.target}:{'ro' if bind.read_only else 'rw'},{'z' if bind.shared else 'Z'}"
            for bind in binds
        ],
        "Tmpfs": dict.fromkeys(SCRATCH, "rw,nosuid,nodev,exec,mode=1777"),
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": ["no-new-privileges"],
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in limits(means).items()],
        "Memory": unit.memory_bytes,
        "MemorySwap": unit.memory_bytes,
        "NanoCpus": unit.cpu_milli * 1_000_000,
        "PidsLimit": PIDS,
        "ShmSize": unit.memory_bytes // 2,
        "Init": means.init,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(LOG_BYTES)}},
        "PortBindings": {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}] for port in published},
    }
    if means.host_network:
        host["NetworkMode"] = "host"
    if names := devices(unit):
        host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": names}]
    body: dict[str, Any] = {
        "Image": unit.image,
        "Env": [f"{name}={value}" for name, value in environment(unit, host_ports).items()],
        "Labels": dict(labels),
        "WorkingDir": working_directory(unit),
        "ExposedPorts": {f"{port}/tcp": {} for port in published},
        "HostConfig": host,
    }
    if unit.command:
        body["Cmd"] = list(unit.command)
    return body

"""From what an engine says of a container to what is known of a unit.

Engines stamp wall time. It is turned into monotonic time once, when first seen, and held between the moments at which
this process itself saw the unit not yet run, run, and not run any more: a step of the wall clock moves it no further.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gpuyard.engines.container.creation import (
    LABEL_ASKED,
    LABEL_BOOT,
    LABEL_DISK,
    LABEL_PORTS,
    LABEL_SHARE,
    LABEL_TENANT,
    LABEL_UNIT,
)
from gpuyard.engines.container.oom import kernel_killed
from gpuyard.engines.container.records import UnitRecord
from gpuyard.engines.container.traffic import own_pid
from gpuyard.model.times import Clock

_SIGNALS = range(129, 129 + 64)
# Podman's end is the time stamp of a file, which runs some milliseconds behind the clock that stamps the start.
_COARSE_NS = 100_000_000
NOT_YET = frozenset({"created", "configured", "initialized"})
RUNNING = frozenset({"running", "paused", "stopping", "restarting"})


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on all clocks that matter here."""

    boot_id: str
    monotonic_ns: int
    wall_ns: int
    booted_wall_ns: int

    @classmethod
    def now(cls, clock: Clock) -> Instant:
        """Now."""
        wall_ns = time.time_ns()
        booted_ns = wall_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return cls(clock.boot_id, clock.monotonic_ns(), wall_ns, booted_ns)

    def monotonic_of(self, wall_ns: int) -> int:
        """The monotonic time of a wall time of this boot, as the wall clock stands now."""
        return self.monotonic_ns - (self.wall_ns - wall_ns)


def wall_ns(text: str | None) -> int | None:
    """Nanoseconds (exact to a microsecond) from an engine's stamp; None for its zero time."""
    if not text or text.startswith("0001-"):
        return None
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def adopted(container: Mapping[str, Any]) -> UnitRecord:
    """The record of a container that was made by this yard and whose record is lost."""
    labels: Mapping[str, str] = container["Config"]["Labels"]
    return UnitRecord(
        name=labels[LABEL_UNIT],
        disk=labels[LABEL_DISK],
        tenant_id=labels[LABEL_TENANT],
        boot_id=labels[LABEL_BOOT],
        asked_ns=int(labels[LABEL_ASKED]),
        ports=_allocated(labels.get(LABEL_PORTS, "")),
        share_ppm=int(labels[LABEL_SHARE]) if LABEL_SHARE in labels else None,
    )


def saw_running(record: UnitRecord, container: Mapping[str, Any], now: Instant) -> None:
    """It runs, so it does in this boot. Fills in when it started and where its ports are."""
    if record.boot_id != now.boot_id:
        record.boot_id, record.asked_ns, record.seen_ns = now.boot_id, 0, None
        record.stop_asked, record.stop_deadline_ns = False, None
    started_wall_ns = wall_ns(container["State"].get("StartedAt"))
    started_ns = now.monotonic_ns if started_wall_ns is None else now.monotonic_of(started_wall_ns)
    record.started_ns = max(record.asked_ns, min(started_ns, now.monotonic_ns))
    record.seen_ns = max(record.seen_ns or 0, record.started_ns)
    record.ports = {**record.ports, **_published(container)}
    record.pid = own_pid(container)


def saw_ended(record: UnitRecord, container: Mapping[str, Any], now: Instant) -> None:
    """It has ended, or never ran: writes down when and how, for good."""
    state = container["State"]
    started_ns, finished_ns = wall_ns(state.get("StartedAt")), wall_ns(state.get("FinishedAt"))
    ran = record.started_ns is not None or started_ns is not None
    if not ran:
        reason = "stopped" if record.stop_asked else "start_failed"
        record.reason, record.detail = reason, str(state.get("Error") or "") or None
        return
    this_boot = record.boot_id == now.boot_id
    if record.started_ns is None:
        guess_ns = now.monotonic_of(started_ns) if this_boot and started_ns is not None else record.asked_ns
        record.started_ns = max(record.asked_ns, min(guess_ns, now.monotonic_ns) if this_boot else guess_ns)
    earliest_ns = max(record.started_ns, record.seen_ns or 0)
    if finished_ns is None or started_ns is None or finished_ns < started_ns - _COARSE_NS:
        _lost(record, earliest_ns)
    elif this_boot:
        record.ended_ns = max(earliest_ns, min(now.monotonic_of(finished_ns), now.monotonic_ns))
        _ended_with(record, container)
    elif finished_ns < now.booted_wall_ns:
        record.ended_ns = max(earliest_ns, record.started_ns + (finished_ns - started_ns))
        _ended_with(record, container)
    else:
        _lost(record, earliest_ns)  # stamped by an engine that found it dead after the boot


def saw_nothing(record: UnitRecord) -> None:
    """Somebody removed the container of a unit that ran: it is proven to the last time it was seen."""
    record.ended_ns, record.recorded, record.reason = record.seen_ns or record.started_ns, False, "vanished"


def _lost(record: UnitRecord, seen_ns: int) -> None:
    record.ended_ns, record.recorded, record.reason = seen_ns, False, "supervisor_lost"


def _ended_with(record: UnitRecord, container: Mapping[str, Any]) -> None:
    state, container_id = container["State"], str(container["Id"])
    code = int(state.get("ExitCode") or 0)
    record.exit_code, record.recorded = code, True
    if state.get("OOMKilled") or (code == 137 and not record.stop_asked and kernel_killed(container_id)):
        record.reason = "out_of_memory"
    elif record.stop_asked:
        record.reason = "stopped"
    else:
        record.reason = "killed" if code in _SIGNALS else "exited"


def _allocated(label: str) -> dict[str, tuple[str, int]]:
    """Host ports that were given out by the yard itself: `8080:40123,...`, without a number where the engine chose."""
    pairs = (pair.partition(":") for pair in label.split(",") if pair)
    return {declared: ("127.0.0.1", int(number)) for declared, _, number in pairs if number}


def _published(container: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    ports: Mapping[str, Any] = (container.get("NetworkSettings") or {}).get("Ports") or {}
    found: dict[str, tuple[str, int]] = {}
    for declared, bindings in ports.items():
        for binding in bindings or ():
            if binding.get("HostPort"):
                found[declared.partition("/")[0]] = (binding.get("HostIp") or "127.0.0.1", int(binding["HostPort"]))
    return found

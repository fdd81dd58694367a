"""The kernel's counters of network interfaces: proc_pid_net(5), `dev`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SENT: Final = 8  # the place of `bytes transmitted` after the interface's name
_TO_ITSELF: Final = "lo"
PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of whole frames."""

    received: int
    sent: int


def traffic_of(pid: int | str, loopback: bool = False, proc: Path = PROC) -> Traffic | None:
    """Through all interfaces that this process (or `self`) has, the one to itself only where that is asked for; None
    where the process is gone."""
    try:
        lines = (proc / str(pid) / "net" / "dev").read_text().splitlines()[2:]
    except OSError:
        return None
    received = sent = 0
    for line in lines:
        name, _, rest = line.partition(":")
        counters = rest.split()
        if (loopback or name.strip() != _TO_ITSELF) and len(counters) > _SENT:
            received += int(counters[0])
            sent += int(counters[_SENT])
    return Traffic(received, sent)

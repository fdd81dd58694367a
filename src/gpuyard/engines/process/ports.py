"""Free loopback ports for the ports that units declare."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection, Sequence
from typing import Final

from gpuyard.model.errors import YardError

HOST: Final = "127.0.0.1"
# Below Linux's ephemeral ports (32768 and up), so that no outgoing connection takes one before its unit listens.
FIRST: Final = 20000
LAST: Final = 32767


def allocate(declared: Sequence[int], taken: Collection[int]) -> dict[int, int]:
    """A host port for each declared port, none of them in use or in `taken`.

    Raises YardError `engine_failed` where no port is left.
    """
    chosen: dict[int, int] = {}
    count = LAST - FIRST + 1
    offset = secrets.randbelow(count)
    candidates = (FIRST + (offset + step) % count for step in range(count))
    for port in declared:
        chosen[port] = next((free for free in candidates if free not in taken and _is_free(free)), 0)
        if not chosen[port]:
            raise YardError("engine_failed", runtime="process", reason=f"no port from {FIRST} to {LAST} is free")
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True

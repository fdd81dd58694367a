"""Whether the kernel ended a container for its memory, asked of the kernel itself.

Podman 4.3 on version 1 cgroups loses this: its monitor writes the sign into whatever folder it was started in. The
kernel names the cgroup, whose name holds the container's id, and only the kernel can write such a line.
"""

from __future__ import annotations

import os


def kernel_killed(container_id: str) -> bool:
    """True where the kernel's log says so; False where it does not, or may not be read."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    sign = container_id.encode()
    try:
        while True:
            try:
                line = os.read(log, 8192)
            except BrokenPipeError:
                continue  # lines were overwritten while being read; the next read goes on behind them
            if not line:
                return False
            if b"oom-kill:" in line and sign in line.partition(b"task_memcg=")[2]:
                return True
    except OSError:
        return False  # read to the end
    finally:
        os.close(log)

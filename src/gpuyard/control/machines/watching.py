"""Looks after the port for machines: authorities and certificates that are due, and machines that have gone quiet."""

from __future__ import annotations

import logging
import threading

from gpuyard.control.machines.gate import Gate
from gpuyard.control.machines.reporting import last_heard_us, lateness
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.store import events, machines

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


def notice_the_late(gate: Gate) -> None:
    """Writes down which machines are late, once each time. Raises YardError where the store refuses."""
    now_us = gate.yard.clock.now_us()
    with gate.yard.store.read() as c:
        quiet = [one for one in machines.listing(c) if one.late_since_us is None and lateness(gate.yard, gate, one)]
    if not quiet:
        return
    with gate.yard.store.write(tells=False) as c:
        for machine in quiet:
            if not lateness(gate.yard, gate, machine):  # it called meanwhile
                continue
            heard_us = last_heard_us(gate, machine)
            if machines.tell(c, machine.id, {"late_since_us": now_us, "heartbeat_us": heard_us}):
                data = {"heartbeat_us": heard_us}
                events.append(c, [Event("machine.late", machine.name, now_us, None, "yard", data)])


def look(gate: Gate) -> None:
    """One look at everything. Raises YardError."""
    if gate.authorities.refresh(gate.wall()):
        log.info("machine_authorities_renewed")
    notice_the_late(gate)


def watch(gate: Gate, stop: threading.Event) -> None:
    """Looks until told to stop. What fails is told of and tried again."""
    trouble: str | None = None
    while not stop.wait(LOOK_EVERY_S):
        try:
            look(gate)
            trouble = None
        except YardError as error:
            if error.code != trouble:
                log.warning("machines_not_looked_after", extra={"params": dict(error.params)})
            trouble = error.code
        except Exception:  # whatever it is: without this loop, certificates would end unrenewed
            log.exception("machines_not_looked_after")

"""Looks after the daemons of cards under MPS, and tells of those that died: their programs may have ended with them."""

from __future__ import annotations

import logging

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.store import events

log = logging.getLogger(__name__)


def look_after_mps(yard: Yard, now_us: int) -> None:
    """Has dead daemons started again and appends an event for each: `mps.restarted`, or `mps.lost` where that did not
    work and the card is shut until it does."""
    try:
        found = yard.engine.watch_mps()
    except (OSError, YardError) as error:
        log.warning("mps_not_seen", extra={"reason": str(error)})
        return
    if not found:
        return
    with yard.store.write() as c:
        told = [
            Event("mps.restarted", each.card_uuid, now_us, None, data={"card": each.card_uuid})
            if each.reason is None
            else Event("mps.lost", each.card_uuid, now_us, None, data={"card": each.card_uuid, "reason": each.reason})
            for each in found
        ]
        events.append(c, told)

"""What the loops do about money, each at its own pace. All of it looks at what is and may be cut short anywhere."""

from __future__ import annotations

from collections.abc import Mapping

from gpuyard.control.budget_watch import watch_budgets
from gpuyard.control.credit import watch_credit
from gpuyard.control.energy_watch import read_energy
from gpuyard.control.idle_watch import IdleWatch
from gpuyard.control.reconciling import reconcile
from gpuyard.control.settling import settle_due, settle_running
from gpuyard.control.yard import Yard
from gpuyard.engines.runtime import Observation, UnitState
from gpuyard.store import reconciliation

POST_EVERY_US = 1_000_000
CREDIT_EVERY_US = 5_000_000
EXTEND_EVERY_US = 30_000_000
BUDGETS_EVERY_US = 60_000_000  # and energy counters
RECONCILE_EVERY_US = 3600_000_000
IDLE_EVERY_US = 20_000_000


class MoneyWatch:
    """Posts, extends holds, and watches wallets and budgets of one yard."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._idle = IdleWatch(yard)
        self._noted: frozenset[str] = frozenset()
        self._posted_at = -1  # the store's generation: where nothing was written there is nothing to post
        self._next_us: dict[int, int] = {}  # by pace

    def note_units(self, observations: Mapping[str, Observation]) -> None:
        """Keeps the node's own word of how long units ran, before their records are forgotten."""
        ended = {
            name: ((seen.proven_ns - seen.started_ns) // 1000, seen.share_ppm)
            for name, seen in observations.items()
            if seen.state is UnitState.EXITED and seen.started_ns is not None and seen.proven_ns is not None
        }
        new = {name: ran for name, ran in ended.items() if name not in self._noted}
        if new:
            with self._yard.store.write() as c:
                reconciliation.note_units(c, new)
        self._noted = frozenset(ended)

    def look(self, now_us: int) -> None:
        """Does what is due."""
        if self._is_due(POST_EVERY_US, now_us) and self._posted_at != self._yard.store.generation:
            settle_due(self._yard, now_us)
            self._posted_at = self._yard.store.generation
        if self._is_due(EXTEND_EVERY_US, now_us):
            settle_running(self._yard, now_us)
        if self._is_due(CREDIT_EVERY_US, now_us):
            watch_credit(self._yard, now_us)
        if self._is_due(BUDGETS_EVERY_US, now_us):
            watch_budgets(self._yard, now_us)
            read_energy(self._yard, now_us)
        if self._is_due(IDLE_EVERY_US, now_us):
            self._idle.look(now_us)
        if self._is_due(RECONCILE_EVERY_US, now_us):
            reconcile(self._yard, now_us, everything=False)

    def _is_due(self, every_us: int, now_us: int) -> bool:
        if now_us < self._next_us.get(every_us, 0):
            return False
        self._next_us[every_us] = now_us + every_us
        return True

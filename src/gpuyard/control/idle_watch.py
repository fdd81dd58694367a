"""Instances that nobody uses: warned of, then paused (stopped, the disk kept), as their tenant's policy says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from gpuyard.billing.idle import IdlePolicy, Reading, Signal, is_idle, saved_nano
from gpuyard.control.stopping import stop_these
from gpuyard.control.yard import Yard
from gpuyard.hardware.activity import CardActivity
from gpuyard.model.events import Event
from gpuyard.model.leases import Lease
from gpuyard.model.states import LeaseState
from gpuyard.model.units import SECOND_US
from gpuyard.model.workloads import Desired, Workload, WorkloadKind
from gpuyard.store import events, idle, leases, workloads
from gpuyard.store.idle import Spell


def policy_of(c: Connection, tenant_id: str) -> IdlePolicy | None:
    """A tenant's policy, where it has one."""
    found = idle.policies(c, tenant_id)
    return _policy(found[0]) if found else None


def _policy(row: idle.PolicyRow) -> IdlePolicy:
    return IdlePolicy(row[0], tuple(Signal(name) for name in row[1]), row[2], row[3])


class IdleWatch:
    """Looks at instances of tenants that have a policy. What it remembers is only the last reading of each unit: after
    a restart, signals that are changes are absent for one look, and nothing is idle for want of them."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._before: dict[str, Reading] = {}

    def look(self, now_us: int) -> None:
        """One look at all of them."""
        with self._yard.store.read() as c:
            policies = {row[0]: _policy(row) for row in idle.policies(c)}
            spells = idle.spells(c)
            if not policies and not spells:
                return
            known = {w.id: w for w in workloads.unsettled(c) if w.spec.kind is WorkloadKind.INSTANCE}
            active = [x for x in leases.open_leases(c) if x.workload_id in known and x.state is LeaseState.ACTIVE]
        self._resume(spells, known, now_us)
        cards = self._yard.card_activity() if policies else {}
        readings: dict[str, Reading] = {}
        for lease in active:
            workload = known[lease.workload_id]
            policy = policies.get(lease.tenant_id)
            if policy is None or workload.desired is not Desired.RUN:
                continue
            reading = self._read(lease, workload, cards, now_us)
            readings[lease.unit_name] = reading
            if workload.cpu_only:  # then the CPU is what it works with
                policy = replace(policy, signals=(*policy.signals, Signal.CPU))
            if is_idle(policy, self._before.get(lease.unit_name), reading):
                self._go_on(policy, workload, lease, spells.get(workload.id), now_us)
            elif (spell := spells.get(workload.id)) is not None and spell.paused_us is None:
                self._over(spell)
        self._before = readings

    def _read(self, lease: Lease, workload: Workload, cards: Mapping[str, CardActivity], now_us: int) -> Reading:
        done = self._yard.engine.activity(workload.runtime, lease.unit_name)
        seen = [cards.get(cut.card_uuid) for cut in lease.slices]
        all_of = [each for each in seen if each is not None]
        # What holds no card uses none: that is known, and not absent.
        complete = len(all_of) == len(seen) and (bool(seen) or workload.cpu_only)
        return Reading(
            at_us=now_us,
            card_busy_ppm=max((each.busy_ppm for each in all_of), default=0) if complete else None,
            card_memory_bytes=sum(each.memory_bytes for each in all_of) if complete else None,
            terminals=self._yard.terminals[lease.unit_name],
            network_bytes=done.network_bytes,
            cpu_us=done.cpu_us,
        )

    def _go_on(self, policy: IdlePolicy, workload: Workload, lease: Lease, spell: Spell | None, now_us: int) -> None:
        if spell is None or spell.since_us < 0:
            terms = lease.terms
            price = terms.active_per_hour_nano - terms.stopped_per_hour_nano if terms is not None else 0
            saved = spell.saved_nano if spell is not None else 0
            spell = Spell(workload.id, workload.tenant_id, now_us, None, None, max(0, price), saved)
            with self._yard.store.write() as c:
                idle.keep(c, spell)
        quiet_us = now_us - spell.since_us
        data = {"name": workload.name, "quiet_seconds": quiet_us // SECOND_US}
        if quiet_us >= policy.pause_us and spell.paused_us is None:
            told = Event("workload.idle_paused", workload.id, now_us, workload.tenant_id, data=data)
            if stop_these(self._yard, [workload], "idle", now_us, (told,)):
                with self._yard.store.write() as c:
                    idle.keep(c, replace(spell, paused_us=now_us))
        elif quiet_us >= policy.warn_us and spell.warned_us is None:
            with self._yard.store.write() as c:
                idle.keep(c, replace(spell, warned_us=now_us))
                events.append(c, [Event("workload.idle", workload.id, now_us, workload.tenant_id, data=data)])

    def _over(self, spell: Spell) -> None:
        """It is used again. What earlier pauses saved stays written down."""
        if spell.since_us < 0:
            return
        with self._yard.store.write() as c:
            if spell.saved_nano:
                idle.keep(c, replace(spell, since_us=-1, warned_us=None))
            else:
                idle.end(c, spell.workload_id)

    def _resume(self, spells: dict[str, Spell], known: Mapping[str, Workload], now_us: int) -> None:
        """Pauses that ended: started again, or removed."""
        for spell in list(spells.values()):
            if spell.paused_us is None:
                continue
            workload = known.get(spell.workload_id)
            if workload is not None and workload.desired is Desired.STOP:
                continue
            saved = spell.saved_nano + saved_nano(spell.price_per_hour_nano, spell.paused_us, now_us)
            after = replace(spell, since_us=-1, warned_us=None, paused_us=None, saved_nano=saved)
            spells[spell.workload_id] = after
            with self._yard.store.write() as c:
                idle.keep(c, after)
                data = {"saved_nano": saved}
                told = Event("workload.idle_ended", spell.workload_id, now_us, spell.tenant_id, data=data)
                events.append(c, [told])

"""The yard: what the loops and the API work on together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpuyard.access.callers import KnownKey
from gpuyard.access.rate_limits import RateLimits
from gpuyard.billing.settling import WalletTerms
from gpuyard.catalog.price_history import PriceHistory
from gpuyard.catalog.prices import PriceBook
from gpuyard.catalog.taxes import NO_TAX, TaxTable
from gpuyard.control import rate_limits
from gpuyard.control.auditing import Auditor
from gpuyard.control.authority import Authority
from gpuyard.control.outgoing import Outgoing
from gpuyard.control.roster import Roster
from gpuyard.control.sealing import Sealer
from gpuyard.control.token_uses import TokenUses
from gpuyard.engines.local import LocalEngine
from gpuyard.engines.runtime import Observation
from gpuyard.hardware.activity import CardActivity
from gpuyard.hardware.probe import Finding, Probe
from gpuyard.model.mig import MigPlace
from gpuyard.model.tenants import Identity
from gpuyard.model.times import Clock
from gpuyard.scheduling.cycle import Waiting
from gpuyard.scheduling.engine import EngineMaker
from gpuyard.scheduling.plan import Scheduler
from gpuyard.scheduling.queue import QueuePolicy
from gpuyard.scheduling.reclaim import ReclaimPolicy
from gpuyard.scheduling.relocating import MovePolicy
from gpuyard.store.database import Store


@dataclass(slots=True)
class Yard:
    """Everything that `main.py` composes. The adapters are fixed; `seen` is what the loops saw last."""

    id: str
    store: Store
    engine: LocalEngine
    scheduler: Scheduler
    clock: Clock
    book: PriceBook
    probes: tuple[Probe, ...]
    sealer: Sealer
    outgoing: Outgoing = field(default_factory=Outgoing)
    seen: Mapping[str, Observation] = field(default_factory=dict[str, Observation])
    seen_version: int = 0  # changes whenever a unit or an address of `seen` is new or gone
    roster: Roster = field(default_factory=Roster)
    simulated_cards: bool = False
    mig_others: Mapping[str, tuple[MigPlace, ...]] = field(default_factory=dict[str, tuple[MigPlace, ...]])  # not ours
    end_escaped: bool = False  # whether programs that go around their slice are ended, or only told of
    findings: tuple[Finding, ...] = ()
    fleet_seen_us: int | None = None  # when the probes last looked at the fleet; None: not since this yard began
    identities: dict[str, Identity] = field(default_factory=dict[str, Identity])  # token digest -> who; see api.asking
    access_keys: dict[str, KnownKey] = field(default_factory=dict[str, KnownKey])  # in force; see control.access_keys
    token_uses: TokenUses = field(default_factory=TokenUses)
    wake: threading.Event = field(default_factory=threading.Event)
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    reclaim: ReclaimPolicy = field(default_factory=ReclaimPolicy)
    moves: MovePolicy = field(default_factory=MovePolicy)
    make_engine: EngineMaker | None = None  # what moves are tried on; None: nothing is moved
    use_target_ppm: int = 750_000  # how much of the pool should be leased; shown beside what is
    spot_prices: Mapping[str, int] = field(default_factory=dict[str, int])  # by offer, the price in force
    waiting: Waiting = field(default_factory=Waiting)  # the queue as the last plan left it
    arrived: frozenset[str] = frozenset()  # leases that waited at the last look: the scheduler was told of them
    waiting_generation: int = 0  # changes with every tenant's share
    prices: PriceHistory | None = None  # every version of the book; None: `book` alone, for ever
    taxes: TaxTable = NO_TAX
    wallet_terms: WalletTerms = field(default_factory=WalletTerms)
    terminals: Counter[str] = field(default_factory=Counter[str])  # sessions that are open now, by unit
    card_activity: Callable[[], Mapping[str, CardActivity]] = dict  # by UUID; none where it cannot be read
    card_energy: Callable[[], Mapping[str, int]] = dict  # millijoules by UUID, ever growing; none where nothing tells
    stripe_secret: str | None = None  # what Stripe signs its calls with; None: such calls are refused
    trouble: str | None = None  # why the last pass of the loops could not be finished
    authority: Authority = field(init=False)
    rates: RateLimits = field(init=False)

    def __post_init__(self) -> None:
        with self.store.read() as c:
            self.rates = rate_limits.load(c)
        self.authority = Authority(self.store, Auditor(self.store, self.clock, self.sealer, f"gpuyard/{self.id}"))

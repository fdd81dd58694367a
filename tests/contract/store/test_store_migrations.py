"""What a yard of an older version had is there after it was brought up to date, on every database."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from gpuyard.billing.ledger import faults
from gpuyard.store import charges, egress, ledger, meters, schema, tables, tenants
from gpuyard.store.database import Store

_INTERVAL = (
    "INSERT INTO intervals (lease_id, sequence, tenant_id, workload_id, workload_name, offer, state, run, start_us, "
    "node, boot_id, monotonic_start_ns, price_per_hour_nano, currency, minimum_us, end_us, monotonic_end_ns, proof) "
    "VALUES ('ls-1', 1, 't-a', 'wl-1', 'w', 'o', 'active', 1, 0, 'n1', 'b', 0, 7, 'USD', 0, 9, 9, 'observed')"
)


def test_credit_moves_into_the_ledger_and_what_was_used_before_is_posted(empty_url: str) -> None:
    _at(empty_url, "0004")
    store_of_old = [
        "INSERT INTO tenants (id, name, credit_nano, currency, created_us) VALUES ('t-a', 'a', 5000, 'USD', 1)",
        "INSERT INTO tenants (id, name, credit_nano, currency, created_us) VALUES ('t-b', 'b', NULL, 'USD', 2)",
        "INSERT INTO tenants (id, name, credit_nano, currency, created_us) VALUES ('t-c', 'c', -30, 'EUR', 3)",
        "INSERT INTO tenants (id, name, credit_nano, currency, created_us) VALUES ('t-d', 'd', 0, 'USD', 4)",
        _INTERVAL,
    ]
    _say(empty_url, store_of_old)
    store = Store.open(empty_url)
    with store.read() as c:
        found = {tenant.id: tenant.credit_nano for tenant in tenants.listing(c)}
        balances = ledger.balances(c)
        assert found == {"t-a": 5000, "t-b": None, "t-c": -30, "t-d": 0}
        assert (balances["wallet:t-a:USD"], balances["cash:t-a:USD"]) == (5000, -5000)
        assert (balances["wallet:t-c:EUR"], balances["cash:t-c:EUR"]) == (-30, 30)
        assert faults(ledger.every(c), balances) == []
        assert charges.due(c, 9) == ["ls-1"]
        (interval,) = meters.intervals(c)
        assert (interval.lease_id, interval.card_uuids) == ("ls-1", ())  # which cards, nobody had written down
    with store.write() as c:  # and the ledger goes on from there
        tenants.add_credit(c, "t-a", 100, 5)
    with store.read() as c:
        assert tenants.find(c, "t-a").credit_nano == 5100  # type: ignore[union-attr]
        assert faults(ledger.every(c), ledger.balances(c)) == []
    store.close()


def test_what_runs_while_a_yard_is_brought_up_to_date_is_on_the_cards_that_it_holds(empty_url: str) -> None:
    _at(empty_url, "0009")
    metered = "lease_id, tenant_id, workload_id, workload_name, offer, state, run, start_us, node, boot_id, "
    metered += "monotonic_start_ns, price_per_hour_nano, currency, minimum_us, proven_us, proven_ns"
    slices = "INSERT INTO slices (lease_id, card_uuid, memory_bytes, compute_ppm, guarantee) VALUES "
    _say(
        empty_url,
        [
            f"INSERT INTO meters ({metered}) VALUES ('ls-1', 't', 'w', 'w', 'o', 'active', 1, 0, 'n', 'b', 0, 7, 'USD', 0, 0, 0)",
            f"INSERT INTO meters ({metered}) VALUES ('ls-2', 't', 'w', 'w', 'o', 'stopped', 1, 0, NULL, 'b', 0, 7, 'USD', 0, 0, 0)",
            f"{slices} ('ls-1', 'GPU-b', 1, 1, 'none'), ('ls-1', 'GPU-a', 1, 1, 'none')",
        ],
    )
    store = Store.open(empty_url)
    with store.read() as c:
        found = meters.open_meters(c)
    assert {lease: meter.card_uuids for lease, meter in found.items()} == {"ls-1": ("GPU-a", "GPU-b"), "ls-2": ()}
    store.close()


def test_what_runs_while_a_yard_is_brought_up_to_date_is_charged_for_what_it_sends_only_when_started_anew(
    empty_url: str,
) -> None:
    _at(empty_url, "0011")
    lease = "INSERT INTO leases (id, workload_id, tenant_id, replica, state, run, attempt, restarts, option, not_before_us, created_us, updated_us)"
    _say(
        empty_url,
        [
            f"{lease} VALUES ('ls-1', 'wl-1', 't', 0, 'active', 3, 5, 0, 'on_demand', 0, 0, 0)",
            f"{lease} VALUES ('ls-2', 'wl-2', 't', 0, 'stopped', 1, 1, 0, 'on_demand', 0, 0, 0)",
            _INTERVAL,
        ],
    )
    store = Store.open(empty_url)
    with store.read() as c:
        assert egress.counters(c, ["ls-1", "ls-2"]) == {"ls-1": egress.Counter("ls-1", "", 3, 0, None)}
        (interval,) = meters.intervals(c)
        assert (interval.share_ppm, interval.cpu_only) == (
            None,
            False,
        )  # of how much of a card, nobody had written down
    with store.write() as c:
        for _ in range(2):
            sent = egress.Sent("ls-2", 7, 90, "t", "wl-2", "w", "o", "USD", 1 << 40)
            egress.keep(c, [egress.Counter("ls-2", "ls-2-1", 1, 90, 1 << 40)], [sent])
        assert [each.bytes_out for each in egress.of_tenant(c, "t")] == [1 << 41]
        assert egress.of_leases(c, ["ls-1", "ls-2"]) == egress.of_tenant(c, None, "wl-2")
    store.close()


def _at(url: str, revision: str) -> None:
    """An empty database as a yard of that version had made it."""
    from alembic import command
    from alembic.config import Config

    engine = _engine(url)
    with engine.begin() as c:
        config = Config()
        config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
        config.attributes["connection"] = c
        command.upgrade(config, revision)
    engine.dispose()
    assert revision in schema.known_revisions()


def _say(url: str, statements: list[str]) -> None:
    engine = _engine(url)
    with engine.begin() as c:
        for statement in statements:
            c.exec_driver_sql(statement)
    engine.dispose()


def _engine(url: str):
    made = make_url(url)
    postgres = made.get_backend_name() == "postgresql"
    return create_engine(made.set(drivername="postgresql+psycopg") if postgres else made)

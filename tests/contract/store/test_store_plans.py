"""What is read again and again goes by an index and does not walk over what is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, event

from gpuyard.store import events, leases, meters, tenants, workloads
from gpuyard.store.database import Store

_READ: dict[str, Callable[[Connection], object]] = {
    "workloads.unsettled": workloads.unsettled,
    "workloads.page": lambda c: workloads.page(c, None, None, None, 20, "wl-9"),
    "workloads.page of a tenant": lambda c: workloads.page(c, "t-1", None, None, 20, None),
    "workloads.find": lambda c: workloads.find(c, "t-1", "train"),
    "leases.open_leases": leases.open_leases,
    "leases.of_workload": lambda c: leases.of_workload(c, "wl-1"),
    "leases.page of a tenant": lambda c: leases.page(c, "t-1", None, 20, None),
    "tenants.identity": lambda c: tenants.identity(c, "digest"),
    "events.after": lambda c: events.after(c, 7, None, 20),
    "events.after of a tenant": lambda c: events.after(c, 7, "t-1", 20),
    "meters.on_node": lambda c: meters.on_node(c, "n-1", 7, 9),
    "meters.intervals of a tenant": lambda c: meters.intervals(c, tenant_id="t-1"),
}
_ONLY_WHAT_IS_OPEN = ("slices", "meters")  # tables without a past


@pytest.mark.parametrize("name", _READ)
def test_a_query_asked_often_goes_by_an_index_and_needs_no_sorting(file_url: str, name: str) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    store = Store.open(file_url)
    with store.read() as c:
        event.listen(c, "before_cursor_execute", lambda *seen: asked.append((seen[2], seen[3])))
        _READ[name](c)
        for statement, values in list(asked):
            steps = [str(row[3]) for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
            for step in steps:
                assert "INDEX" in step or "PRIMARY KEY" in step or step.split()[-1] in _ONLY_WHAT_IS_OPEN, steps
                assert "SCAN" not in step or "live" in step or step.split()[-1] in _ONLY_WHAT_IS_OPEN, steps
    assert asked
    store.close()

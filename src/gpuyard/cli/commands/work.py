"""gpuyard ps, show, stop, start, reboot, rm"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import age, cpus, say, share, show_json, show_table, size, t
from gpuyard.cli.progress import wait_for
from gpuyard.sdk import calls, types
from gpuyard.sdk.calls import Call

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Name = Annotated[str, typer.Argument(metavar="WORKLOAD", help=t("argument.workload"))]
Names = Annotated[list[str], typer.Argument(metavar="WORKLOAD...", help=t("argument.workload"))]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help=t("option.wait"))]
Tenant = Annotated[str | None, typer.Option(help=t("option.tenant"))]


@APP.command(help=t("ps.help"))
def ps(
    every: Annotated[bool, typer.Option("--all", "-a", help=t("ps.all"))] = False,
    kind: Annotated[str | None, typer.Option(help=t("ps.kind"))] = None,
    state: Annotated[list[str] | None, typer.Option(help=t("ps.state"))] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    states = list(state or ())
    if every and not states:
        states = ["pending", "starting", "running", "stopping", "stopped", "succeeded", "failed", "removing", "removed"]
    with connect() as client:
        found = list(client.workloads(kind, states, tenant))
    if as_json:
        show_json(found)
        return
    columns = ["name", "kind", "state", "offer", "replicas", "price", "runtime", "age", "why"]
    show_table([t(f"column.{name}") for name in columns], [_row(workload) for workload in found])


def _row(workload: types.Workload) -> tuple[object, ...]:
    active = sum(lease["state"] == "active" for lease in workload["leases"])
    prices = [lease["price_per_hour"] for lease in workload["leases"] if lease["price_per_hour"]]
    replicas = workload["spec"]["replicas"]
    return (
        workload["name"],
        workload["kind"],
        workload["state"],
        _offer(workload),
        f"{active}/{replicas}",
        prices[0] if prices else None,
        workload["runtime"],
        age(workload["created_at"]),
        workload["reason_text"],
    )


def _offer(workload: types.Workload) -> str:
    offer = workload["spec"]["slices"]["offer"] or "custom"
    return t("ps.cpu_only", offer=offer) if workload["cpu_only"] else offer


@APP.command(help=t("show.help"))
def show(workload: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.workload(workload, tenant))
    if as_json:
        show_json(found)
        return
    spec = found["spec"]
    cut = spec["slices"]
    facts = [
        ("name", f"{found['name']} ({found['id']})"),
        ("kind", found["kind"]),
        ("state", found["state"]),
        ("why", found["reason_text"]),
        (
            "offer",
            f"{_offer(found)}: {cut['count']} x {size(cut['memory_bytes'])} {share(cut['compute_ppm'])}",
        ),
        ("cpus", f"{cpus(found['cpu_milli'])}, {size(found['memory_bytes'])}"),
        ("command", " ".join(spec["command"])),
        ("image", spec["image"] or "host"),
        ("runtime", found["runtime"]),
        ("sent", None if found["sent_bytes"] is None else size(found["sent_bytes"])),
        ("address", ", ".join(f"{e['port']} -> {e['address']}" for e in found["endpoints"])),
        ("confidentiality", found["confidentiality"]["text"]),
        ("enforces", "\n".join(found["isolation"]["enforces"])),
        ("not_protected", "\n".join(found["isolation"]["not_protected"])),
    ]
    show_table([t("column.what"), t("column.value")], [(t(f"column.{key}"), value) for key, value in facts])
    columns = ["lease", "state", "node", "card", "price", "restarts", "why"]
    print()
    show_table([t(f"column.{name}") for name in columns], [_lease_row(lease) for lease in found["leases"]])


def _lease_row(lease: types.Lease) -> tuple[object, ...]:
    cards = ", ".join(
        " ".join(filter(None, (cut["card_uuid"], cut.get("instance"), f"({cut['guarantee']})")))
        for cut in lease["slices"]
    )
    price = f"{lease['price_per_hour']} {lease['currency']}/h" if lease["price_per_hour"] else None
    return lease["id"], lease["state"], lease["node"], cards, price, lease["restarts"], lease["reason_text"]


@APP.command(help=t("stop.help"))
def stop(workload: Names, wait: Wait = True, tenant: Tenant = None, as_json: AsJson = False) -> None:
    _each(workload, lambda name: calls.stop(name, tenant), ("stopped", "succeeded", "failed"), wait, as_json)


@APP.command(help=t("start.help"))
def start(
    workload: Names,
    cpu_only: Annotated[bool, typer.Option("--cpu-only", help=t("start.cpu_only"))] = False,
    wait: Wait = True,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    _each(workload, lambda name: calls.start(name, tenant, cpu_only), None, wait, as_json)


@APP.command(help=t("reboot.help"))
def reboot(workload: Names, wait: Wait = True, tenant: Tenant = None, as_json: AsJson = False) -> None:
    _each(workload, lambda name: calls.reboot(name, tenant), ("running",), wait, as_json)


@APP.command(help=t("rm.help"))
def rm(workload: Names, wait: Wait = True, tenant: Tenant = None, as_json: AsJson = False) -> None:
    _each(workload, lambda name: calls.remove(name, tenant), ("removed",), wait, as_json)


def _each(
    names: list[str],
    make: Callable[[str], Call[types.Workload]],
    until: tuple[str, ...] | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Asks all first and waits afterwards: they go at the same time."""
    with connect() as client:
        asked = [client.send(make(name)) for name in names]
        done = [wait_for(client, workload, until) if wait else workload for workload in asked]
    if as_json:
        show_json(done if len(done) > 1 else done[0])
        return
    for workload in done:
        say(t("work.is", name=workload["name"], state=workload["state"]))

"""gpuyard run"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import ABSENT, say, show_json, t
from gpuyard.cli.progress import wait_for
from gpuyard.cli.volume_keys import give, keys_of
from gpuyard.model.errors import YardError
from gpuyard.model.units import parse_duration, parse_share, parse_size
from gpuyard.sdk import calls, queue_calls, types

_SHARING = "shared|mps|time-slice|exclusive"

APP = typer.Typer(rich_markup_mode=None, add_completion=False)


@APP.command(help=t("run.help"))
def run(
    command: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help=t("run.command"))] = None,
    offer: Annotated[str | None, typer.Option(help=t("run.offer"))] = None,
    job: Annotated[bool, typer.Option("--job", help=t("run.job"))] = False,
    service: Annotated[bool, typer.Option("--service", help=t("run.service"))] = False,
    instance: Annotated[bool, typer.Option("--instance", help=t("run.instance"))] = False,
    name: Annotated[str | None, typer.Option(help=t("run.name"))] = None,
    image: Annotated[str | None, typer.Option(help=t("run.image"))] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="K=V", help=t("run.env"))] = None,
    secret: Annotated[list[str] | None, typer.Option(metavar="K[=V|=@FILE]", help=t("run.secret"))] = None,
    mount: Annotated[list[str] | None, typer.Option(metavar="VOLUME:PATH[:ro]", help=t("run.mount"))] = None,
    volume_key: Annotated[list[str] | None, typer.Option(metavar="[VOLUME=]FILE", help=t("run.volume_key"))] = None,
    port: Annotated[list[int] | None, typer.Option("--port", "-p", help=t("run.port"))] = None,
    workdir: Annotated[str | None, typer.Option(help=t("run.workdir"))] = None,
    cpus: Annotated[str | None, typer.Option(help=t("run.cpus"))] = None,
    memory: Annotated[str | None, typer.Option(help=t("run.memory"))] = None,
    disk: Annotated[str | None, typer.Option(help=t("run.disk"))] = None,
    gpu: Annotated[str | None, typer.Option(help=t("run.gpu"))] = None,
    gpu_memory: Annotated[str | None, typer.Option(help=t("run.gpu_memory"))] = None,
    gpu_share: Annotated[str | None, typer.Option(help=t("run.gpu_share"))] = None,
    sharing: Annotated[str | None, typer.Option(metavar=_SHARING, help=t("run.sharing"))] = None,
    count: Annotated[int, typer.Option(help=t("run.count"))] = 1,
    replicas: Annotated[int, typer.Option(help=t("run.replicas"))] = 1,
    restart: Annotated[str | None, typer.Option(help=t("run.restart"))] = None,
    max_restarts: Annotated[int | None, typer.Option(help=t("run.max_restarts"))] = None,
    time_limit: Annotated[str | None, typer.Option(help=t("run.time_limit"))] = None,
    stop_grace: Annotated[str | None, typer.Option(help=t("run.stop_grace"))] = None,
    checkpoint: Annotated[str | None, typer.Option(help=t("run.checkpoint"))] = None,
    option: Annotated[str | None, typer.Option(metavar="on_demand|spot", help=t("run.option"))] = None,
    spot: Annotated[bool, typer.Option("--spot", help=t("run.spot"))] = False,
    max_price: Annotated[str | None, typer.Option(metavar="PRICE", help=t("run.max_price"))] = None,
    priority: Annotated[int | None, typer.Option(help=t("run.priority"))] = None,
    when_reclaimed: Annotated[str | None, typer.Option(metavar="wait|remove", help=t("run.when_reclaimed"))] = None,
    work: Annotated[str | None, typer.Option(metavar="CARD-HOURS", help=t("run.work"))] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="MODEL", help=t("plan.on"))] = None,
    deadline: Annotated[str | None, typer.Option(metavar="TIME", help=t("run.deadline"))] = None,
    budget: Annotated[str | None, typer.Option(metavar="AMOUNT", help=t("run.budget"))] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help=t("run.label"))] = None,
    runtime: Annotated[str | None, typer.Option(help=t("run.runtime"))] = None,
    cpu_only: Annotated[bool, typer.Option("--cpu-only", help=t("run.cpu_only"))] = False,
    tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=t("run.dry_run"))] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help=t("option.wait"))] = True,
    follow: Annotated[bool, typer.Option("--follow", "-f", help=t("run.follow"))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=t("option.json"))] = False,
) -> None:
    """Everything a launch can say; what is not given the yard fills in."""
    mounts = [_mount(text) for text in mount or ()]
    keys = keys_of(volume_key or (), mounts)
    values: dict[str, object] = {
        "kind": _kind(job, service, instance or (cpu_only and not job and not service)),
        "slices": _slices(offer, gpu, gpu_memory, gpu_share, count, _goal(work, on, deadline, budget))
        | _shared_so(sharing),
        "option": "spot" if spot else option,
        "max_price": max_price,
        "priority": priority,
        "when_reclaimed": when_reclaimed,
        "name": name,
        "command": list(command or ()),
        "image": image,
        "environment": dict(_pair(text) for text in env or ()),
        "secrets": dict(_secret(text) for text in secret or ()),
        "mounts": [{**each, "encrypted": True} if each["volume"] in keys else each for each in mounts],
        "ports": list(port or ()),
        "working_directory": workdir,
        "cpu_milli": None if cpus is None else _cpu_milli(cpus),
        "memory_bytes": None if memory is None else parse_size(memory),
        "disk_bytes": None if disk is None else parse_size(disk),
        "replicas": replicas,
        "restart": restart,
        "max_restarts": max_restarts,
        "time_limit_us": None if time_limit is None else parse_duration(time_limit),
        "stop_grace_us": None if stop_grace is None else parse_duration(stop_grace),
        "checkpoint_command": None if checkpoint is None else shlex.split(checkpoint),
        "labels": dict(_pair(text) for text in label or ()),
        "runtime": runtime,
        "cpu_only": cpu_only or None,
        "tenant": tenant,
    }
    wish: types.Launch = {key: value for key, value in values.items() if value is not None}  # type: ignore[assignment]
    if dry_run:
        _show_plan(wish, as_json)
    else:
        _launch(wish, keys, wait, follow, as_json)


def _launch(wish: types.Launch, keys: Mapping[str, str], wait: bool, follow: bool, as_json: bool) -> None:
    with connect() as client:
        give(client, keys, wish.get("tenant"))
        launched = client.launch(wish)
        if not as_json:
            offer = launched["spec"]["slices"]["offer"] or "custom"
            say(
                t(
                    "run.launched",
                    name=launched["name"],
                    kind=launched["kind"],
                    offer=offer,
                    runtime=launched["runtime"],
                )
            )
        if wait or follow:
            launched = wait_for(client, launched, None)
        if as_json:
            show_json(launched)
        else:
            _say_state(launched)
        if follow:
            for line in client.logs(launched["id"], follow=True):
                print(line["text"], flush=True)
            ended = client.wait(launched["id"], {"succeeded", "failed", "stopped", "running"})
            raise typer.Exit(ended["exit_code"] or 0)


def _say_state(workload: types.Workload) -> None:
    lease = workload["leases"][0] if workload["leases"] else None
    price = f"{lease['price_per_hour']} {lease['currency']}/h" if lease and lease["price_per_hour"] else ABSENT
    node = lease["node"] if lease and lease["node"] else ABSENT
    say(t("run.is", name=workload["name"], state=workload["state"], node=node, price=price))
    if workload["reason_text"]:
        say(workload["reason_text"])
    for endpoint in workload["endpoints"]:
        say(t("run.endpoint", port=endpoint["port"], address=endpoint["address"]))


def _show_plan(wish: types.Launch, as_json: bool) -> None:
    with connect() as client:
        plan = client.send(calls.plan(wish))
    if as_json:
        show_json(plan)
        return
    price = f"{plan['price_per_hour']} {plan['currency']}/h"
    print(t("run.plan", offer=plan["offer"], price=price, runtime=plan["runtime"]))
    for placed in plan["placements"]:
        print(t("run.placed", replica=placed["replica"], node=placed["node"], cards=placed["card_uuids"]))
    for refused in plan["refusals"]:
        print(refused["text"])
    for line in plan["isolation"].get("not_protected", []):
        print(f"  - {line}")


def _kind(job: bool, service: bool, instance: bool) -> str:
    chosen = [kind for kind, wanted in (("job", job), ("service", service), ("instance", instance)) if wanted]
    if len(chosen) != 1:
        raise YardError("invalid_request", reason="give exactly one of --job, --service and --instance")
    return chosen[0]


def _slices(
    offer: str | None,
    gpu: str | None,
    gpu_memory: str | None,
    gpu_share: str | None,
    count: int,
    goal: dict[str, object] | None,
) -> dict[str, object]:
    if goal is not None and (offer, gpu, gpu_memory, gpu_share) == (None,) * 4:
        return {"count": count, "goal": goal}
    if goal is not None:
        raise YardError("invalid_request", reason="give either --work or an offer and shape")
    if offer is None and gpu is None and gpu_memory is None and gpu_share is None:
        raise YardError(
            "invalid_request", reason="give --offer (see `gpuyard offers`), or --gpu with a shape of your own"
        )
    wish: dict[str, object] = {"count": count}
    if offer is not None:
        wish["offer"] = offer
    if gpu is not None:
        wish["card_model"] = gpu
    if gpu_memory is not None:
        wish["memory_bytes"] = parse_size(gpu_memory)
    if gpu_share is not None:
        wish["compute_ppm"] = parse_share(gpu_share)
    return wish


def _shared_so(sharing: str | None) -> dict[str, object]:
    if sharing is None:
        return {}
    if sharing not in _SHARING.split("|"):
        raise YardError("invalid_request", reason=f"--sharing {sharing[:40]}: {_SHARING.replace('|', ', ')}")
    return {"sharing": sharing.replace("-", "_")}


def _goal(work: str | None, on: str | None, deadline: str | None, budget: str | None) -> dict[str, object] | None:
    if work is None and on is None and deadline is None and budget is None:
        return None
    if work is None or on is None:
        raise YardError("invalid_request", reason="give --work CARD-HOURS and --on MODEL with a deadline or a budget")
    return queue_calls.goal(on, work, deadline, budget)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise YardError("invalid_request", reason=f"'{text[:80]}' is not NAME=VALUE")
    return name, value


def _secret(text: str) -> tuple[str, str]:
    """`K=V`, `K=@FILE`, or `K` alone: its value from this environment. The value is never shown."""
    name, separator, value = text.partition("=")
    if not separator:
        if name not in os.environ:
            raise YardError("invalid_request", reason=f"the secret {name[:80]} is not in the environment")
        return name, os.environ[name]
    if value.startswith("@"):
        try:
            return name, Path(value[1:]).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise YardError("invalid_request", reason=f"the secret {name} cannot be read from its file") from error
    return name, value


def _mount(text: str) -> dict[str, object]:
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise YardError("invalid_request", reason=f"'{text[:80]}' is not VOLUME:PATH or VOLUME:PATH:ro")
    return {"volume": parts[0], "path": parts[1], "read_only": len(parts) == 3 and parts[2] == "ro"}


def _cpu_milli(text: str) -> int:
    try:
        milli = Decimal(text) * 1000
        if milli.is_finite() and milli == milli.to_integral_value() and 10 <= milli <= 1_024_000:
            return int(milli)
    except InvalidOperation:
        pass  # told below, like every other text that is no number of cores
    raise YardError("invalid_request", reason=f"'{text[:40]}' is not a number of CPU cores, such as 2 or 0.5")

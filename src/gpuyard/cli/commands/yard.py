"""gpuyard up, down, status, doctor"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.commands.pool import pool_rows
from gpuyard.cli.credentials import connect, state_dir
from gpuyard.cli.host import Started, UpOptions, installed
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.model.errors import YardError
from gpuyard.model.units import parse_duration, parse_window

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
State = Annotated[Path | None, typer.Option(metavar="DIR", help=t("option.state"))]
STOP_SECONDS = 30.0


@APP.command(help=t("up.help"))
def up(
    state: State = None,
    simulate: Annotated[str | None, typer.Option(metavar="SPEC", help=t("up.simulate"))] = None,
    fleet: Annotated[Path | None, typer.Option(metavar="FILE", help=t("up.fleet"))] = None,
    host: Annotated[str, typer.Option(help=t("up.host"))] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help=t("up.port"))] = 8470,
    database_url: Annotated[str | None, typer.Option(metavar="URL", help=t("up.database_url"))] = None,
    price_book: Annotated[Path | None, typer.Option(metavar="FILE", help=t("up.price_book"))] = None,
    runtime: Annotated[str, typer.Option(metavar="auto|process|container|simulated", help=t("up.runtime"))] = "auto",
    on_escape: Annotated[str, typer.Option(metavar="notice|stop", help=t("up.on_escape"))] = "notice",
    mps: Annotated[bool, typer.Option("--mps", help=t("up.mps"))] = False,
    kernel_limits: Annotated[
        bool | None, typer.Option("--kernel-limits/--no-kernel-limits", help=t("up.kernel_limits"))
    ] = None,
    spot_notice: Annotated[str, typer.Option(metavar="TIME", help=t("up.spot_notice"))] = "120s",
    spot_minimum_run: Annotated[str, typer.Option(metavar="TIME", help=t("up.spot_minimum_run"))] = "10m",
    hold_window: Annotated[str, typer.Option(metavar="TIME", help=t("up.hold_window"))] = "10m",
    keep_disks: Annotated[str, typer.Option(metavar="TIME", help=t("up.keep_disks"))] = "15d",
    tax_table: Annotated[Path | None, typer.Option(metavar="FILE", help=t("up.tax_table"))] = None,
    tls: Annotated[bool, typer.Option("--tls", help=t("up.tls"))] = False,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help=t("up.tls_cert"))] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help=t("up.tls_key"))] = None,
    tls_name: Annotated[list[str] | None, typer.Option(metavar="NAME", help=t("up.tls_name"))] = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help=t("up.plain_http"))] = False,
    fetch_network: Annotated[list[str] | None, typer.Option(metavar="CIDR", help=t("up.fetch_network"))] = None,
    moves_window: Annotated[str, typer.Option(metavar="HH:MM-HH:MM|none", help=t("up.moves_window"))] = "none",
    moves_an_hour: Annotated[int, typer.Option(min=0, help=t("up.moves_an_hour"))] = 20,
    moves_of_tenant: Annotated[int, typer.Option(min=0, help=t("up.moves_of_tenant"))] = 2,
    use_target: Annotated[int, typer.Option(min=0, max=100, help=t("up.use_target"))] = 75,
    sharing_window: Annotated[str, typer.Option(metavar="HH:MM-HH:MM|none", help=t("up.sharing_window"))] = "none",
    weight: Annotated[list[str] | None, typer.Option(metavar="TERM=N", help=t("up.weight"))] = None,
    region: Annotated[str | None, typer.Option(help=t("up.region"))] = None,
    machines: Annotated[str | None, typer.Option(metavar="HOST:PORT", help=t("up.machines"))] = None,
    as_json: AsJson = False,
) -> None:
    if on_escape not in {"notice", "stop"}:
        raise YardError("invalid_request", reason=f"--on-escape '{on_escape[:40]}': notice or stop")
    if runtime not in {"auto", "process", "container", "simulated"}:
        raise YardError(
            "invalid_request", reason=f"'{runtime[:40]}' is no runtime: auto, process, container, simulated"
        )
    if mps and runtime == "simulated":
        raise YardError("invalid_request", reason="--mps holds programs, and --runtime simulated runs none")
    if kernel_limits and runtime == "simulated":
        raise YardError("invalid_request", reason="--kernel-limits holds programs, and --runtime simulated runs none")
    if (tls_cert is None) != (tls_key is None) or (tls and tls_cert is not None):
        raise YardError("invalid_request", reason="TLS takes --tls alone, or --tls-cert and --tls-key together")
    folder = (state or state_dir()).absolute()
    url = database_url or os.environ.get("GPUYARD_DATABASE_URL")
    options = UpOptions(
        state=folder,
        simulate=simulate,
        fleet=fleet,
        host=host,
        port=port,
        database_url=url,
        price_book=price_book,
        runtime=runtime,
        on_escape=on_escape,
        mps=mps,
        kernel_limits=kernel_limits,
        spot_notice_us=parse_duration(spot_notice),
        spot_minimum_run_us=parse_duration(spot_minimum_run),
        tax_table=tax_table,
        tls=tls,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_names=tuple(tls_name or ()),
        fetch_networks=tuple(fetch_network or ()),
        plain_http=plain_http,
        moves_window=parse_window(moves_window),
        moves_an_hour=moves_an_hour,
        moves_of_tenant=moves_of_tenant,
        use_target_ppm=use_target * 10_000,
        sharing_window=parse_window(sharing_window),
        weights=tuple(installed().weights(tuple(weight or ())).items()),
        hold_window_us=_window(hold_window),
        keep_disks_us=parse_duration(keep_disks),
        region=region,
        machines=machines,
    )
    installed().up(options, (lambda told: show_json(asdict(told))) if as_json else _greet)


def _window(text: str) -> int:
    """How much running is paid for ahead: no less than a start costs, and no more than a day."""
    window_us = parse_duration(text)
    if not 60_000_000 <= window_us <= 86_400_000_000:
        raise YardError("invalid_request", reason=f"--hold-window '{text[:40]}': 60s to 24h")
    return window_us


def _greet(told: Started) -> None:
    cards = t("up.cards_simulated" if told.simulated else "up.cards", cards=told.cards, nodes=told.nodes)
    print(t("up.running", address=told.address, cards=cards, runtimes=", ".join(told.runtimes)))
    if told.adopted:
        print(t("up.adopted", count=told.adopted))
    if told.ca_sha256 is not None:
        print(t("up.ca", sha256=told.ca_sha256))
    if told.machines is not None:
        print(t("up.machines_at", address=told.machines))
    if told.token is not None:
        print(t("up.token", token=told.token))
        pinned = f" --ca-sha256 {told.ca_sha256}" if told.ca_sha256 else ""
        print(f"  gpuyard login --url {told.address} --token {told.token}{pinned}")
    print(t("up.stop", state=told.state), flush=True)


@APP.command(help=t("down.help"))
def down(
    state: State = None,
    stop_workloads: Annotated[bool, typer.Option("--stop-workloads", help=t("down.stop_workloads"))] = False,
    as_json: AsJson = False,
) -> None:
    folder = (state or state_dir()).absolute()
    pid = _holder(folder)["pid"]
    running = _stop_all() if stop_workloads else None
    going_on = 0 if stop_workloads else _count_running()
    os.kill(int(str(pid)), signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    said = False
    while (folder / "yard.json").exists() and _alive(int(str(pid))):
        if time.monotonic() > deadline:
            raise YardError("timed_out", what="gpuyard down", seconds=f"{STOP_SECONDS:g}", state="stopping")
        if not said and time.monotonic() > deadline - STOP_SECONDS + 1:
            say(t("down.waiting"))
            said = True
        time.sleep(0.05)
    if as_json:
        show_json({"stopped": True, "pid": pid, "workloads_stopped": running, "workloads_running": going_on})
    else:
        say(t("down.left", state=folder, count="--" if going_on is None else going_on) if going_on != 0
            else t("down.done", state=folder))  # fmt: skip


def _count_running() -> int | None:
    """How many workloads will go on without the yard; None where the login does not let one ask."""
    from gpuyard.sdk import calls

    try:
        with connect() as client:
            states = client.send(calls.yard())["workloads"]
    except YardError:
        return None
    return sum(states.get(state, 0) for state in ("starting", "running", "stopping"))


def _stop_all() -> int:
    from gpuyard.sdk import calls

    with connect() as client:
        states = ("pending", "starting", "running", "stopping")
        found = list(client.workloads(state=states))
        for workload in found:
            client.send(calls.stop(workload["id"]))
        for workload in found:
            client.wait(workload["id"], {"stopped", "succeeded", "failed"})
    return len(found)


def _holder(folder: Path) -> dict[str, object]:
    """Who runs the yard on this state.

    Raises YardError `yard_not_running`.
    """
    try:
        told = json.loads((folder / "yard.json").read_text())
        pid = int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        raise YardError("yard_not_running", path=str(folder)) from None
    if not _alive(pid):
        raise YardError("yard_not_running", path=str(folder))
    return told


def _alive(pid: int) -> bool:
    """Whether that process is there and is a yard: a recycled number is somebody else's."""
    try:
        return b"gpuyard" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@APP.command(help=t("status.help"))
def status(state: State = None, as_json: AsJson = False) -> None:
    from gpuyard.sdk import calls

    try:
        with connect() as client:
            found = client.send(calls.yard())
    except YardError as error:
        if error.code != "no_credentials":
            raise
        told = _holder((state or state_dir()).absolute())
        if as_json:
            show_json(told)
        else:
            say(t("status.running", address=told["address"], pid=told["pid"], since=told["since"]))
        return
    if as_json:
        show_json(found)
        return
    facts = [
        ("address", found["address"]),
        ("state_dir", found["state_dir"]),
        ("database", found["database"]),
        ("cards", f"{found['cards']} ({found['nodes']})"),
        ("workloads", ", ".join(f"{state} {count}" for state, count in sorted(found["workloads"].items()))),
        ("runtimes", ", ".join(str(runtime["kind"]) for runtime in found["runtimes"])),
        ("clock", t("status.clock", seconds=f"{found['clock_offset_us'] / 1e6:.3f}")),
        *pool_rows(found["pool"]),
        ("trouble", found["engine_error"]),
    ]
    show_table([t("column.what"), t("column.value")], [(t(f"column.{key}"), value) for key, value in facts])


@APP.command(help=t("doctor.help"))
def doctor(
    simulate: Annotated[str | None, typer.Option(metavar="SPEC", help=t("up.simulate"))] = None,
    runtime: Annotated[str, typer.Option(metavar="auto|process|container", help=t("up.runtime"))] = "auto",
    mps: Annotated[bool, typer.Option("--mps", help=t("doctor.mps"))] = False,
    kernel_limits: Annotated[
        bool | None, typer.Option("--kernel-limits/--no-kernel-limits", help=t("doctor.kernel_limits"))
    ] = None,
    as_json: AsJson = False,
) -> None:
    from gpuyard.texts import in_words, language_of_environment, text

    language = language_of_environment()
    wish = UpOptions(state=Path(), simulate=simulate, runtime=runtime, mps=mps, kernel_limits=kernel_limits)
    report = installed().doctor(wish)
    findings, cards = report["findings"], report["cards"]
    if as_json:
        for found in findings:
            found["params"] = {name: in_words(value, "en") for name, value in found["params"].items()}
        show_json(report)
        return
    word: dict[bool | None, str] = {True: "ok", False: "missing", None: "unknown"}
    mark: dict[bool | None, str] = {True: "+", False: "-", None: "?"}
    for found in findings:
        sentence = text(f"doctor.{found['name']}.{word[found['ok']]}", language, **found["params"])
        print(f"{mark[found['ok']]} {sentence}")
    if not cards:
        print(t("doctor.no_cards"))
        return
    print()
    rows = [
        (
            card["uuid"],
            card["model"],
            verdict["shape"],
            verdict["guarantee"],
            text(f"guarantee.{verdict['because']}", language),
        )
        for card in cards
        for verdict in card["guarantees"]
    ]
    show_table([t(f"column.{name}") for name in ("card", "model", "slice", "guarantee", "why")], rows)

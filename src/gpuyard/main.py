"""The composition root: the only place that picks adapters."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuyard.cli.host import DoctorReport, HostCommands, MoneySums, SimulateOptions, Started, UpOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from gpuyard.control.state_dir import StateDir
    from gpuyard.control.tls import ServerTls
    from gpuyard.control.yard import Yard
    from gpuyard.store.database import Store


def run() -> None:
    """The console script."""
    from gpuyard.cli.app import build

    build(
        HostCommands(
            up=up, doctor=doctor, emulate=emulate, sums=MoneySums(_compare, _own, _verify), weights=_weights,
            simulate=simulate,
        )
    )()  # fmt: skip


def _weights(typed: Sequence[str]) -> Mapping[str, int]:
    from gpuyard.placing import parse_weights

    return parse_weights(typed)


def _compare(hourly: str, hours: int, reserved: Sequence[str], spot: str | None, currency: str) -> Mapping[str, Any]:
    from gpuyard.api.sums import compare_bare

    return compare_bare(hourly, hours, reserved, spot, currency)


def _own(**facts: Any) -> Mapping[str, Any]:
    from gpuyard.api.sums import own_bare

    return own_bare(**facts)


def _verify(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    from gpuyard.api.sums import verify_round

    return verify_round(facts)


def up(options: UpOptions, started: Callable[[Started], None]) -> None:
    """Runs a yard until it is told to stop. `started` is called once it answers.

    Raises YardError for everything that keeps it from starting; nothing is changed then.
    """
    from gpuyard.control.listening import listen
    from gpuyard.control.state_dir import StateDir

    listener = listen(options.host, options.port, guarded=options.secure or options.plain_http)
    try:
        _check_files(options)
        state = StateDir(options.state)
        try:
            _serve(options, state, listener, started)
        finally:
            state.release()
    finally:
        listener.close()


def _check_files(options: UpOptions) -> None:
    """What was written by hand is read once before anything is made, so that a mistake in it leaves nothing behind.

    Raises YardError.
    """
    from gpuyard.catalog import price_history, taxes
    from gpuyard.control.outgoing import Outgoing
    from gpuyard.hardware.fleet_file import load
    from gpuyard.hardware.simulated import parse_spec

    price_history.load(options.price_book)
    Outgoing.allowing(options.fetch_networks)
    if options.tax_table is not None:
        taxes.load(options.tax_table)
    if options.fleet is not None:
        load(options.fleet)
    elif options.simulate is not None:
        parse_spec(options.simulate)


def _serve(options: UpOptions, state: StateDir, listener: socket.socket, started: Callable[[Started], None]) -> None:
    import uvicorn

    from gpuyard.api.app import About, build
    from gpuyard.control.listening import told_address
    from gpuyard.control.loops import Loops
    from gpuyard.control.server_process import leave_imports_alone, log_to, share_one_heap
    from gpuyard.control.state_dir import Holder
    from gpuyard.model.times import to_text

    log_to(state.path / "yard.log")
    share_one_heap()
    sys.setswitchinterval(0.00005)  # the loops are busy in bursts: whoever asks the API must not wait for them
    store = _open_store(options, state)
    try:
        yard = open_yard(options, store, state.path)
        token = _first_token(yard)
        address = told_address(listener, options.tls_names, secure=options.secure)
        tls = _tls(options, state.path / "tls", yard.id) if options.secure else None
        app = build(yard, About(address, str(state.path), store.dialect, tls and tls.authority))
        stop = threading.Event()
        loops = Loops(yard)
        loops.pass_once()
        adopted = sum(seen.state == "running" for seen in yard.seen.values())
        thread = threading.Thread(target=loops.run, args=(stop,), name="loops", daemon=True)

        class Server(uvicorn.Server):
            """Says that the yard is up once it answers, and lets live streams end when it stops."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    thread.start()
                    if tls is not None:
                        threading.Thread(target=tls.watch, args=(stop,), name="certificates", daemon=True).start()
                    state.announce(Holder(os.getpid(), address, to_text(yard.clock.now_us())))
                    started(_started(options, yard, address, token, adopted, tls))
                    _mark_shown(yard, token)

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                app.state.stopping.set()
                await super().shutdown(sockets)

        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
            server_header=False,
            proxy_headers=False,  # whoever is on this machine could name any address: see `origin_of`
            ssl_context_factory=tls and tls.context_factory,
        )
        server = Server(config)
        leave_imports_alone()

        def leave(*_: object) -> None:
            server.should_exit = True

        # The server raises what it caught again once it has ended: without these it would die before it had tidied up.
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, leave)
        try:
            server.run(sockets=[listener])
        finally:
            stop.set()
            yard.wake.set()
            if thread.is_alive():
                thread.join(timeout=10)
            yard.authority.auditor.settle(yard.clock.now_us())
            yard.engine.close()
    finally:
        store.close()


def _tls(options: UpOptions, folder: Path, yard_id: str) -> ServerTls:
    from gpuyard.control.tls import open_tls  # only here: it loads what makes certificates, 8 MiB of a server

    files = None if options.tls_cert is None or options.tls_key is None else (options.tls_cert, options.tls_key)
    return open_tls(folder, options.host, options.tls_names, files, yard_id)


def open_yard(options: UpOptions, store: Store, state: Path) -> Yard:
    """Everything but the network: the yard over an open store."""
    from gpuyard.adapters import enforce_slices, find_probes, make_engine
    from gpuyard.billing.settling import WalletTerms
    from gpuyard.catalog import price_history, taxes
    from gpuyard.control.clock import YardClock
    from gpuyard.control.fleet_watch import update_fleet
    from gpuyard.control.outgoing import Outgoing
    from gpuyard.control.sealing import Sealer
    from gpuyard.control.yard import Yard
    from gpuyard.hardware.activity import nvidia_activity, nvidia_energy
    from gpuyard.placing import engine_here, find_scheduler
    from gpuyard.scheduling.reclaim import ReclaimPolicy
    from gpuyard.scheduling.relocating import MovePolicy
    from gpuyard.scheduling.windows import Window

    prices = price_history.load(options.price_book)
    probes, simulated = find_probes(options, store)
    clock = YardClock.open(store)
    outgoing = Outgoing.allowing(options.fetch_networks)
    yard = Yard(
        id=_yard_id(store, clock.now_us()),
        store=store,
        engine=make_engine(options.runtime, state / "engine", clock, outgoing.check_image),
        scheduler=find_scheduler(dict(options.weights), options.sharing_window),
        clock=clock,
        book=prices.at(clock.now_us()),
        prices=prices,
        taxes=taxes.load(options.tax_table) if options.tax_table is not None else taxes.NO_TAX,
        probes=probes,
        sealer=Sealer(state / "secret.key"),
        outgoing=outgoing,
        simulated_cards=simulated,
        end_escaped=options.on_escape == "stop",
        reclaim=ReclaimPolicy(
            notice_us=options.spot_notice_us,
            minimum_run_us=options.spot_minimum_run_us,
            cooldown_us=3 * options.spot_minimum_run_us,
        ),
        moves=MovePolicy(
            moves_an_hour=options.moves_an_hour,
            at_once_of_tenant=options.moves_of_tenant,
            window=None if options.moves_window is None else Window(*options.moves_window),
        ),
        make_engine=engine_here(),
        use_target_ppm=options.use_target_ppm,
        card_activity=dict if simulated else nvidia_activity,
        wallet_terms=WalletTerms(hold_window_us=options.hold_window_us, keep_disks_us=options.keep_disks_us),
        card_energy=dict if simulated else nvidia_energy,
        stripe_secret=os.environ.get("GPUYARD_STRIPE_WEBHOOK_SECRET") or None,
    )
    enforce_slices(yard, state, options.mps)
    update_fleet(yard, clock.now_us())
    return yard


def _open_store(options: UpOptions, state: StateDir) -> Store:
    from gpuyard.store.database import Store

    store = Store.open(options.database_url or f"sqlite:///{state.database}")
    store.hold_exclusively()
    return store


def _yard_id(store: Store, now_us: int) -> str:
    from gpuyard.model.names import new_id
    from gpuyard.store import meta

    with store.write() as c:
        known = meta.get(c, "yard_id")
        if known is None:
            known = new_id("yd", now_us)
            meta.put(c, "yard_id", known)
    return known


def _first_token(yard: Yard) -> str | None:
    """A new operator's token where none was shown yet: a first start that was cut short shows one the next time."""
    from gpuyard.access.tokens import digest, new_token
    from gpuyard.model.events import Event
    from gpuyard.model.names import new_id
    from gpuyard.model.tenants import Role, Tenant
    from gpuyard.store import events, meta, tenants

    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        if meta.get(c, "operator_token_shown") is not None:
            return None
        tenant = tenants.find(c, "operators")
        if tenant is None:
            tenant = Tenant(new_id("tn", now_us), "operators", None, yard.book.currency, now_us)
            tenants.insert(c, tenant)
        for row in tenants.tokens(c, tenant.id):
            tenants.revoke(c, row.token_id, now_us)
        token, token_id = new_token(), new_id("tk", now_us)
        tenants.insert_token(c, token_id, tenant.id, "admin", Role.OPERATOR, digest(token), now_us)
        events.append(
            c, [Event("token.added", token_id, now_us, tenant.id, data={"user": "admin", "role": "operator"})]
        )
    return token


def _mark_shown(yard: Yard, token: str | None) -> None:
    from gpuyard.store import meta

    if token is not None:
        with yard.store.write() as c:
            meta.put(c, "operator_token_shown", "1")


def _started(
    options: UpOptions, yard: Yard, address: str, token: str | None, adopted: int, tls: ServerTls | None
) -> Started:
    from gpuyard.store import fleet

    with yard.store.read() as c:
        nodes = fleet.nodes(c)
    return Started(
        address=address,
        state=str(options.state),
        pid=os.getpid(),
        token=token,
        cards=sum(card.state != "missing" for node in nodes for card in node.cards),
        nodes=len(nodes),
        simulated=yard.simulated_cards,
        runtimes=tuple(yard.engine.runtimes),
        adopted=adopted,
        ca_sha256=tls and tls.fingerprint,
    )


def emulate(cards: str, command: Sequence[str], virtual: bool) -> int:
    """Runs a command on emulated cards; its exit code. Raises YardError for cards that there are not."""
    from gpuyard.model.errors import YardError
    from gpuyard.testing.running import emulate as run_on

    try:
        return run_on(cards, command, "virtual" if virtual else "real")
    except ValueError as error:
        raise YardError("invalid_request", reason=str(error)) from error
    except OSError as error:
        raise YardError("invalid_request", reason=f"{command[0]}: {error.strerror}") from error


def simulate(options: SimulateOptions, progress: Callable[[int, int | None], None]) -> dict[str, Any]:
    """Runs a trace through the scheduler in virtual time; the summary. Raises YardError."""
    from gpuyard.simulating import simulate as run_it

    return run_it(options, progress)


def doctor(options: UpOptions) -> DoctorReport:
    """What this machine has and can guarantee, without a yard: findings (name, ok, params) and guarantees by card."""
    import shutil
    import tempfile

    from gpuyard.adapters import find_driver_inside, try_mps_on, try_slices
    from gpuyard.engines.container.sockets import find_socket
    from gpuyard.hardware.confidential import find_confidential
    from gpuyard.hardware.probe import Finding
    from gpuyard.hardware.simulated import SimulatedProbe
    from gpuyard.hardware.this_machine import MachineProbe
    from gpuyard.instances import try_mig
    from gpuyard.model.slices import SliceShape
    from gpuyard.slicing.ladder import guarantee

    probe = SimulatedProbe.from_spec(options.simulate) if options.simulate else MachineProbe()
    report = probe.probe()
    engine = find_socket()
    findings = [*report.findings]
    podman = shutil.which("podman") is not None or (engine is not None and engine.podman)
    findings.append(Finding("podman", podman))
    findings.append(Finding("docker", engine is not None and not engine.podman))
    findings.append(find_confidential())
    kind = options.runtime if options.runtime != "auto" else "process"
    cards = [card for node in report.nodes for card in node.cards]
    shim, mps = frozenset[str](), frozenset[str]()
    if cards and kind != "simulated":
        with tempfile.TemporaryDirectory() as scratch:
            keeper, shim, finding = try_slices(cards, Path(scratch), options.simulate is not None)
            findings.append(finding)
            if keeper is not None:
                if keeper.mps is not None:
                    keeper.mps.contained = kind == "container"
                mps, finding = try_mps_on(keeper, shim, options.mps)
                findings.append(finding)
                instances, found = try_mig(cards, keeper.driver, Path(scratch), "doctor")[1:]
                shim, findings = (shim | instances if kind == "process" else shim), [*findings, *found]
        if kind == "container":
            inside = find_driver_inside(keeper, options.simulate is not None, shim) if keeper is not None else None
            shim &= inside.cards if inside is not None else frozenset()
    return {
        "findings": [{"name": f.name, "ok": f.ok, "params": dict(f.params)} for f in findings],
        "cards": [
            {
                "uuid": card.uuid,
                "model": card.model,
                "node": card.node,
                "guarantees": [
                    {
                        "shape": name,
                        "guarantee": verdict.guarantee.value,
                        "because": verdict.because,
                        "not_protected": list(verdict.not_protected),
                    }
                    for name, parts in ((("full", 1), ("fraction", 2)) if card.mig is None else (("instance", 1),))
                    for verdict in [guarantee(card, SliceShape.fraction(card.memory_bytes, parts), kind, shim, mps)]
                ],
            }
            for card in cards
        ],
    }


__all__ = ["Started", "UpOptions", "doctor", "open_yard", "run", "up"]

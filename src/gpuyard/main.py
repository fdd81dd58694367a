"""The composition root: the only place that picks adapters."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack
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
            simulate=simulate, inventory=inventory,
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
    from gpuyard.control.listening import listen, parse_address
    from gpuyard.control.state_dir import StateDir

    with ExitStack() as held:
        listener = held.enter_context(listen(options.host, options.port, guarded=options.secure or options.plain_http))
        machines = None
        if options.machines is not None:
            machines = held.enter_context(listen(*parse_address(options.machines), guarded=True))
        _check_files(options)
        state = StateDir(options.state)
        held.callback(state.release)
        _serve(options, state, listener, machines, started)


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


def _serve(
    options: UpOptions,
    state: StateDir,
    listener: socket.socket,
    for_machines: socket.socket | None,
    started: Callable[[Started], None],
) -> None:
    import uvicorn

    from gpuyard.api.app import About, build
    from gpuyard.control import volumes
    from gpuyard.control.first_start import first_token, mark_shown
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
        token = first_token(yard)
        address = told_address(listener, options.tls_names, secure=options.secure)
        tls = _tls(options, state.path / "tls", yard.id) if options.secure else None
        app = build(yard, About(address, str(state.path), store.dialect, tls and tls.authority))
        stop = threading.Event()
        port = None
        if for_machines is not None:
            from gpuyard.serving_machines import MachinePort

            port = MachinePort(yard, state.path / "machines", for_machines, options, tls and tls.fingerprint)
            app.state.machines = port.gate
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
                    if port is not None:
                        port.start()
                    state.announce(Holder(os.getpid(), address, to_text(yard.clock.now_us())))
                    started(_started(options, yard, address, token, adopted, tls, port and port.gate.address))
                    mark_shown(yard, token)

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
            if port is not None:
                port.stop()
            yard.wake.set()
            if thread.is_alive():
                thread.join(timeout=10)
            yard.authority.auditor.settle(yard.clock.now_us())
            volumes.leave(yard)
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
    from gpuyard.control.first_start import yard_id
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
        id=yard_id(store, clock.now_us()),
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
    enforce_slices(yard, state, options.mps, options.kernel_limits)
    update_fleet(yard, clock.now_us())
    return yard


def _open_store(options: UpOptions, state: StateDir) -> Store:
    from gpuyard.store.database import Store

    store = Store.open(options.database_url or f"sqlite:///{state.database}")
    store.hold_exclusively()
    return store


def _started(
    options: UpOptions,
    yard: Yard,
    address: str,
    token: str | None,
    adopted: int,
    tls: ServerTls | None,
    machines: str | None,
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
        machines=machines,
    )


def inventory(options: UpOptions) -> Callable[[], Mapping[str, Any]]:
    """What this machine sees of itself, for a yard that it joined."""
    from gpuyard.examining import Examiner

    return Examiner(options, doctor).look


def emulate(cards: str, command: Sequence[str], virtual: bool, driver: str | None = None) -> int:
    """Runs a command on emulated cards; its exit code. Raises YardError for cards that there are not."""
    from gpuyard.model.errors import YardError
    from gpuyard.testing.running import emulate as run_on

    try:
        return run_on(cards, command, "virtual" if virtual else "real", driver)
    except ValueError as error:
        raise YardError("invalid_request", reason=str(error)) from error
    except OSError as error:
        raise YardError("invalid_request", reason=f"{command[0]}: {error.strerror}") from error


def simulate(options: SimulateOptions, progress: Callable[[int, int | None], None]) -> dict[str, Any]:
    """Runs a trace through the scheduler in virtual time; the summary. Raises YardError."""
    from gpuyard.simulating import simulate as run_it

    return run_it(options, progress)


def doctor(options: UpOptions) -> DoctorReport:
    """What this machine has and can guarantee, without a yard."""
    from gpuyard.doctoring import doctor as look

    return look(options)


__all__ = ["Started", "UpOptions", "doctor", "open_yard", "run", "up"]

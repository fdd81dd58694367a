"""gpuyard machine: this machine, as one that joins a yard elsewhere"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.credentials import read_authority
from gpuyard.cli.host import UpOptions, installed
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.model.errors import YardError
from gpuyard.texts import error_text, language_of_environment

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
MACHINE = typer.Typer(rich_markup_mode=None, help=t("machine.help"), no_args_is_help=True)
APP.add_typer(MACHINE, name="machine")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
State = Annotated[Path | None, typer.Option(metavar="DIR", help=t("machine.state"))]


def machine_dir() -> Path:
    """Where this machine's key and certificate lie unless told otherwise."""
    if found := os.environ.get("GPUYARD_MACHINE_STATE"):
        return Path(found)
    base = os.environ.get("XDG_STATE_HOME") or str(Path(os.environ.get("HOME", "~")).expanduser() / ".local" / "state")
    return Path(base) / "gpuyard-machine"


@MACHINE.command("join", help=t("machine.join"))
def join(
    url: Annotated[str, typer.Argument(metavar="URL", help=t("machine.url"))],
    token: Annotated[str | None, typer.Option(help=t("machine.token"))] = None,
    name: Annotated[str | None, typer.Option(help=t("machine.name"))] = None,
    again: Annotated[bool, typer.Option("--again", help=t("machine.again"))] = False,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help=t("machine.ca"))] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    from gpuyard.sdk.machine_identity import MachineFolder
    from gpuyard.sdk.machine_joining import SKEW_S
    from gpuyard.sdk.machine_joining import join as join_it

    token = token or os.environ.get("GPUYARD_JOIN_TOKEN")  # as an option, others of this machine can see it
    token = token or str(typer.prompt(t("machine.ask"), hide_input=True, err=True))
    folder = MachineFolder((state or machine_dir()).absolute())
    folder.hold()
    try:
        identity, ahead_s = join_it(folder, url, token, name or own_name(), again, ca and read_authority(ca))
    finally:
        folder.release()
    if as_json:
        show_json({"name": identity.joined.name, "id": identity.joined.id, "until": identity.ends.isoformat()})
        return
    say(t("machine.joined", id=identity.joined.id, path=folder.path))
    if abs(ahead_s) > SKEW_S:
        say(t("machine.clock", seconds=f"{ahead_s:+.0f}"))


@MACHINE.command("run", help=t("machine.run"))
def run(
    once: Annotated[bool, typer.Option("--once", help=t("machine.once"))] = False,
    simulate: Annotated[str | None, typer.Option(metavar="SPEC", help=t("up.simulate"))] = None,
    runtime: Annotated[str, typer.Option(metavar="auto|process|container|simulated", help=t("up.runtime"))] = "auto",
    state: State = None,
) -> None:
    from gpuyard.sdk.machine_agent import Agent, now
    from gpuyard.sdk.machine_identity import MachineFolder

    folder = MachineFolder((state or machine_dir()).absolute())
    stop = threading.Event()
    look = installed().inventory(UpOptions(state=Path(), simulate=simulate, runtime=runtime))
    agent = Agent(folder, look, _tell, now, time.monotonic)
    folder.hold()
    try:
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda *_: stop.set())
        pause_s = agent.round()
        if once:
            raise typer.Exit(7 if agent.failures else 0)
        if not agent.failures and (found := folder.identity()) is not None:
            say(t("machine.running", id=found.joined.id, address=found.joined.address))
        while not stop.wait(pause_s):
            pause_s = agent.round()
    finally:
        agent.close()
        folder.release()


@MACHINE.command("show", help=t("machine.show"))
def show(state: State = None, as_json: AsJson = False) -> None:
    from gpuyard.sdk.machine_identity import MachineFolder

    path = (state or machine_dir()).absolute()
    found = MachineFolder(path).identity()
    if found is None:
        raise YardError("machine_not_joined")
    joined = found.joined
    facts = {
        "name": joined.name,
        "id": joined.id,
        "address": joined.address,
        "until": found.ends.isoformat(),
        "state_dir": str(path),
    }
    if as_json:
        show_json({**facts, "ended": found.ends <= datetime.now(UTC)})
        return
    show_table([t("column.what"), t("column.value")], [(t(f"column.{key}"), value) for key, value in facts.items()])


def own_name() -> str:
    """This machine's name, as far as it can be one there."""
    plain = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
    return plain[:63].strip("-") or "machine"


def _tell(key: str, facts: Mapping[str, object]) -> None:
    """A sentence of the agent, with the moment: it is read in a journal."""
    language = language_of_environment()
    told = {
        name: error_text(fact.code, language, fact.params) if isinstance(fact, YardError) else fact
        for name, fact in facts.items()
    }
    say(t(f"machine.{key}", **told))

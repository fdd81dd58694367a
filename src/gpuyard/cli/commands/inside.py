"""gpuyard logs, exec, forward, cp"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import say, show_error, show_json, t
from gpuyard.model.errors import YardError

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
Name = Annotated[str, typer.Argument(metavar="WORKLOAD", help=t("argument.workload"))]
Replica = Annotated[int | None, typer.Option(help=t("option.replica"))]
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]


@APP.command(help=t("logs.help"))
def logs(
    workload: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help=t("logs.follow"))] = False,
    since: Annotated[str | None, typer.Option(help=t("logs.since"))] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help=t("logs.timestamps"))] = False,
    replica: Replica = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        for line in client.logs(workload, replica, since, follow):
            if as_json:
                show_json(line)
            else:
                print(f"{line['at']} {line['text']}" if timestamps else line["text"], flush=True)


@APP.command(
    name="exec",
    help=t("exec.help"),
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def execute(
    workload: Name,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help=t("exec.command"))],
    terminal: Annotated[bool | None, typer.Option("--tty/--no-tty", "-t/-T", help=t("exec.tty"))] = None,
    replica: Replica = None,
) -> None:
    from gpuyard.cli.terminal import attach, is_interactive

    with connect() as client:
        target = client.target
    wants_terminal = is_interactive() if terminal is None else terminal
    command = command[1:] if command[0] == "--" else command
    raise typer.Exit(asyncio.run(attach(target, workload, command, replica, wants_terminal)))


@APP.command(help=t("forward.help"))
def forward(
    workload: Name,
    ports: Annotated[str, typer.Argument(metavar="[LOCAL:]PORT", help=t("forward.ports"))],
    replica: Replica = None,
) -> None:
    local, _, remote = ports.rpartition(":")
    if not remote.isdecimal() or (local and not local.isdecimal()):
        raise YardError("invalid_request", reason=f"'{ports[:40]}' is not PORT or LOCAL:PORT")
    with connect() as client:
        target = client.target

    async def serve() -> None:
        from gpuyard.sdk.sockets import tunnel

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await tunnel(target, workload, int(remote), replica, reader, writer)
            except YardError as error:
                show_error(error)
                writer.close()

        try:
            server = await asyncio.start_server(carry, "127.0.0.1", int(local or remote))
        except OSError as error:
            raise YardError("port_in_use", host="127.0.0.1", port=local or remote) from error
        port = server.sockets[0].getsockname()[1]
        say(t("forward.listening", address=f"127.0.0.1:{port}", workload=workload, port=remote))
        async with server:
            await server.serve_forever()

    asyncio.run(serve())


@APP.command(help=t("cp.help"))
def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=t("cp.path"))],
    target: Annotated[str, typer.Argument(metavar="TARGET", help=t("cp.path"))],
    replica: Annotated[int, typer.Option(help=t("option.replica"))] = 0,
) -> None:
    inside_source, inside_target = _inside(source), _inside(target)
    if (inside_source is None) == (inside_target is None):
        raise YardError("invalid_request", reason="exactly one of SOURCE and TARGET is WORKLOAD:PATH")
    with connect() as client:
        if inside_target is not None:
            here = Path(source)
            if not here.exists():
                raise YardError("file_not_found", path=source)
            client.copy_in(inside_target[0], here, inside_target[1], replica)
        elif inside_source is not None:
            client.copy_out(inside_source[0], inside_source[1], Path(target), replica)
    say(t("cp.done", source=source, target=target))


def _inside(text: str) -> tuple[str, str] | None:
    """(workload, path) of `WORKLOAD:PATH`; None for a path of this machine."""
    name, separator, path = text.partition(":")
    return (name, path or ".") if separator and "/" not in name and "." not in name else None

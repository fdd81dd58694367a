"""The command line: commands are listed from texts and imported only when one is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer import _click as click  # typer brings a click of its own
from typer.core import TyperGroup

from gpuyard.cli.credentials import CHOSEN
from gpuyard.cli.host import HostCommands, install
from gpuyard.cli.output import say, show_error, t
from gpuyard.model.errors import YardError

# command -> the module below `commands` that holds it, in the order in which `--help` shows them
COMMANDS = {
    "up": "yard",
    "down": "yard",
    "status": "yard",
    "doctor": "yard",
    "demo": "demo",
    "emulate": "emulate",
    "simulate": "simulate",
    "login": "login",
    "offers": "fleet",
    "cards": "fleet",
    "nodes": "fleet",
    "run": "run",
    "ps": "work",
    "show": "work",
    "stop": "work",
    "start": "work",
    "reboot": "work",
    "rm": "work",
    "volumes": "volumes",
    "why": "queue",
    "plan": "queue",
    "checkpoint": "queue",
    "logs": "inside",
    "exec": "inside",
    "verify": "verify",
    "attest": "attest",
    "forward": "inside",
    "cp": "inside",
    "bill": "money",
    "events": "money",
    "price": "prices",
    "own": "prices",
    "costs": "prices",
    "invoice": "invoices",
    "commitments": "invoices",
    "spot": "invoices",
    "wallet": "wallet",
    "topup": "wallet",
    "voucher": "wallet",
    "budget": "wallet",
    "reconcile": "wallet",
    "incidents": "incidents",
    "idle": "idle",
    "tenants": "tenants",
    "tokens": "tenants",
    "users": "users",
    "oidc": "oidc",
    "keys": "keys",
    "organisations": "limits",
    "access": "access",
    "quotas": "limits",
    "rates": "rates",
    "geography": "limits",
    "audit": "audit",
    "machines": "machines",
    "machine": "machine",
}


class LazyGroup(TyperGroup):
    """Knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        app = importlib.import_module(f"gpuyard.cli.commands.{module}").APP
        command: Any = typer.main.get_command(app)
        found = command.commands.get(cmd_name) if hasattr(command, "commands") else command
        if found is not None:
            found.name = cmd_name
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section(t("help.commands")):
            formatter.write_dl([(name, t(f"{name}.help")) for name in COMMANDS])


APP = typer.Typer(cls=LazyGroup, rich_markup_mode=None, no_args_is_help=True, help=t("help"))


@APP.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(help=t("option.url"), envvar="GPUYARD_URL")] = None,
    token: Annotated[str | None, typer.Option(help=t("option.token"), envvar="GPUYARD_TOKEN")] = None,
    version: Annotated[bool, typer.Option("--version", help=t("option.version"))] = False,
) -> None:
    """Options that every command has."""
    CHOSEN.url, CHOSEN.token = url, token
    if version:
        import gpuyard

        print(f"gpuyard {gpuyard.__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def build(host: HostCommands) -> Callable[[], None]:
    """The command line over this machine's own abilities."""

    def main() -> None:
        install(host)
        sys.exit(invoke(sys.argv[1:]))

    return main


def invoke(arguments: list[str]) -> int:
    """Runs one command line; the exit code. Never a traceback for what a user can cause."""
    try:
        command = typer.main.get_command(APP)
        done = command.main(arguments, prog_name="gpuyard", standalone_mode=False)
        return done if isinstance(done, int) else 0
    except YardError as error:
        show_error(error)
        return error.exit_code
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except click.exceptions.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader went away; the interpreter must not complain about it while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("GPUYARD_DEBUG"):
            raise
        say(t("unexpected", kind=type(error).__name__, what=error))
        return 70

"""gpuyard audit"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gpuyard.cli.credentials import config_file, connect
from gpuyard.cli.output import say, show_json, t
from gpuyard.model.errors import YardError
from gpuyard.sdk import access_calls as calls
from gpuyard.sdk.audit_check import Signed, check_consistency, check_inclusion, check_log, read_note

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
AUDIT = typer.Typer(rich_markup_mode=None, help=t("audit.help"), no_args_is_help=True)
APP.add_typer(AUDIT, name="audit")
Key = Annotated[str | None, typer.Option(help=t("audit.key"))]


@AUDIT.command("export", help=t("audit.export"))
def export_log(path: Annotated[Path, typer.Argument(help=t("audit.path"))]) -> None:
    draft = path.with_name(path.name + ".part")
    with connect() as client, draft.open("w", encoding="utf-8", newline="\n") as file:
        for line in client.lines("/v1/audit/export"):
            file.write(line + "\n")
    draft.replace(path)
    say(t("audit.exported", path=path))


@AUDIT.command("verify", help=t("audit.verify"))
def verify_log(
    path: Annotated[Path | None, typer.Argument(help=t("audit.path"))] = None,
    yard: Annotated[bool, typer.Option("--yard", help=t("audit.yard"))] = False,
    key: Key = None,
) -> None:
    if yard is (path is not None):
        raise YardError("invalid_request", reason="file_or_yard")
    kept, pinned = _kept() if yard else (None, None)
    if path is not None:
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                signed = check_log(_lines(file), key)
        except (OSError, UnicodeDecodeError) as error:
            raise YardError("audit_unreadable", path=path, reason=str(error)) from None
    else:
        with connect() as client:
            signed = check_log(client.lines("/v1/audit/export"), key or pinned, kept)
        _keep(signed)
    say(t("audit.holds", size=signed.size, origin=signed.origin, signer=signed.key))


@AUDIT.command("prove", help=t("audit.prove"))
def prove_entry(entry: Annotated[int, typer.Argument(min=0, help=t("audit.entry"))], key: Key = None) -> None:
    kept, pinned = _kept()
    with connect() as client:
        proof = client.send(calls.audit_proof(entry))
        signed = read_note(proof["note"], key or pinned or proof["key"])
        check_inclusion(proof["leaf"], proof["index"], proof["path"], signed)
        if kept is not None:
            going_on = client.send(calls.audit_consistency(kept.size))
            later = read_note(going_on["note"], signed.key)
            check_consistency(kept, going_on["path"], later)
    show_json(json.loads(proof["leaf"]))
    say(t("audit.included", entry=entry, size=signed.size))


@AUDIT.command("shred", help=t("audit.shred"))
def shred_person(
    user: Annotated[str, typer.Argument(help=t("tokens.user"))],
    tenant: Annotated[str, typer.Option(help=t("option.tenant"))],
) -> None:
    with connect() as client:
        gone = client.send(calls.shred(tenant, user))
    say(t("audit.shredded", subject=gone["subject"]))


def _lines(file: Iterator[str]) -> Iterator[str]:
    for line in file:
        yield line.removesuffix("\n")


def _pin() -> Path:
    return config_file().with_name("audit.json")


def _kept() -> tuple[Signed | None, str | None]:
    """The checkpoint that was kept when the yard's log was last found well, and the key that signed it."""
    try:
        found = json.loads(_pin().read_text())
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        raise YardError("audit_unreadable", path=_pin(), reason=str(error)) from None
    return Signed(found["origin"], found["size"], bytes.fromhex(found["root"]), found["key"]), found["key"]


def _keep(signed: Signed) -> None:
    _pin().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = _pin().with_suffix(".new")
    kept = {"origin": signed.origin, "size": signed.size, "root": signed.root.hex(), "key": signed.key}
    draft.write_text(json.dumps(kept))
    draft.replace(_pin())

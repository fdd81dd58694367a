"""gpuyard access"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import say, show_json, show_table, t
from gpuyard.model.errors import YardError
from gpuyard.sdk import access_calls as calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
ACCESS = typer.Typer(rich_markup_mode=None, help=t("access.help"), no_args_is_help=True)
APP.add_typer(ACCESS, name="access")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Name = Annotated[str, typer.Argument(help=t("access.policy"))]
File = Annotated[Path, typer.Argument(help=t("access.file"))]
Kind = Annotated[str, typer.Argument(metavar="everyone|organisation|project|user|token", help=t("access.kind"))]
Subject = Annotated[str, typer.Argument(help=t("access.subject"))]


def document(path: Path) -> str:
    """A policy file. Raises YardError `invalid_path`."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise YardError("file_not_found", path=path) from None


@ACCESS.command("policies", help=t("access.policies"))
def list_policies(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.policies())["items"]
        attached = client.send(calls.attachments())["items"]
    if as_json:
        show_json({"policies": found, "attachments": attached})
        return
    rows = [
        (one["name"], "\n".join(f"{a['kind']} {a['subject']}" for a in attached if a["policy"] == one["name"]))
        for one in found
    ]
    show_table([t("column.policy"), t("column.attached")], rows)


@ACCESS.command("put", help=t("access.put"))
def put_policy(name: Name, file: File) -> None:
    with connect() as client:
        saved = client.send(calls.put_policy(name, document(file)))
    for warning in saved["warnings"]:
        say(warning)
    say(t("access.saved", policy=name))


@ACCESS.command("check", help=t("access.check"))
def check_policy(file: File) -> None:
    with connect() as client:
        found = client.send(calls.check_policy(document(file)))
    for sentence in (*found["findings"], *found["warnings"]):
        print(sentence)
    if found["findings"]:
        raise typer.Exit(2)


@ACCESS.command("rm", help=t("access.rm"))
def delete_policy(name: Name) -> None:
    with connect() as client:
        client.send(calls.delete_policy(name))


@ACCESS.command("attach", help=t("access.attach"))
def attach_policy(
    name: Name,
    kind: Kind,
    subject: Subject = "*",
    fence: Annotated[bool, typer.Option("--fence", help=t("access.fence"))] = False,
) -> None:
    with connect() as client:
        client.send(calls.attach(name, kind, subject, fence))


@ACCESS.command("detach", help=t("access.detach"))
def detach_policy(name: Name, kind: Kind, subject: Subject = "*") -> None:
    with connect() as client:
        client.send(calls.detach(name, kind, subject))


@ACCESS.command("explain", help=t("access.explain"))
def explain(
    user: Annotated[str, typer.Argument(help=t("access.who"))],
    action: Annotated[str, typer.Argument(help=t("access.action"))],
    resource: Annotated[str, typer.Option(help=t("access.resource"))] = "*",
    role: Annotated[str, typer.Option(metavar="operator|member|viewer", help=t("tokens.role"))] = "member",
    fact: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=t("access.fact"))] = None,
    as_json: AsJson = False,
) -> None:
    tenant, slash, name = user.partition("/")
    if not slash:
        raise YardError("invalid_request", reason="subject_of_user", value=user)
    facts: dict[str, str] = {key: value for key, _, value in (each.partition("=") for each in fact or ())}
    body = {"user": name, "tenant": tenant, "role": role, "action": action, "resource_id": resource, "facts": facts}
    with connect() as client:
        told = client.send(calls.explain(body))
    if as_json:
        show_json(told)
        return
    verdict = t("access.allowed" if told["allowed"] else "access.denied")
    print(f"{verdict}: {told['action']} {told['resource']}")
    print(f"{told['because']}: {', '.join(told['statements']) or '--'}")


@ACCESS.command("dry-run", help=t("access.dry_run"))
def dry_run(
    name: Name,
    file: File,
    days: Annotated[int, typer.Option(min=1, max=90, help=t("access.days"))] = 7,
    attach: Annotated[str | None, typer.Option(metavar="KIND:SUBJECT", help=t("access.as_if"))] = None,
    fence: Annotated[bool, typer.Option("--fence", help=t("access.fence"))] = False,
    as_json: AsJson = False,
) -> None:
    body: dict[str, Any] = {"policy": name, "document": document(file), "days": days}
    if attach is not None:
        kind, _, subject = attach.partition(":")
        body["attach"] = {"policy": name, "kind": kind, "subject": subject or "*", "fence": fence}
    with connect() as client:
        told = client.send(calls.dry_run(body))
    if as_json:
        show_json(told)
        return
    rows = [
        (
            one["at"],
            one["user"],
            one["action"],
            one["resource"],
            t("access.allowed" if one["would_be_allowed"] else "access.denied"),
            ", ".join(one["statements"]),
            one["count"],
        )
        for one in told["changes"]
    ]
    if rows:
        columns = ("at", "user", "action", "resource", "would_be", "statement", "count")
        show_table([t(f"column.{column}") for column in columns], rows)
    say(t("access.asked_again", entries=told["entries"], changed=told["changed"], not_told=told["not_told"]))

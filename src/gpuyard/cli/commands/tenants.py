"""gpuyard tenants, gpuyard tokens"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import age, say, show_json, show_table, size, t
from gpuyard.model.errors import YardError
from gpuyard.model.units import parse_size
from gpuyard.sdk import calls, queue_calls, types

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
TENANTS = typer.Typer(rich_markup_mode=None, help=t("tenants.help"), no_args_is_help=True)
TOKENS = typer.Typer(rich_markup_mode=None, help=t("tokens.help"), no_args_is_help=True)
APP.add_typer(TENANTS, name="tenants")
APP.add_typer(TOKENS, name="tokens")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]


@TENANTS.command("list", help=t("tenants.list"))
def list_tenants(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.tenants())["items"]
    _show_tenants(found, as_json)


@TENANTS.command("add", help=t("tenants.add"))
def add_tenant(
    name: Annotated[str, typer.Argument(help=t("tenants.name"))],
    credit: Annotated[str | None, typer.Option(help=t("tenants.initial"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        added = client.send(calls.add_tenant(name, credit))
    _show_tenants([added], as_json, one=True)


@TENANTS.command("credit", help=t("tenants.credit"))
def add_credit(
    name: Annotated[str, typer.Argument(help=t("tenants.name"))],
    amount: Annotated[str, typer.Argument(help=t("tenants.amount"))],
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        after = client.send(calls.add_credit(name, amount))
    _show_tenants([after], as_json, one=True)


def _show_tenants(found: list[types.Tenant], as_json: bool, one: bool = False) -> None:
    if as_json:
        show_json(found[0] if one else found)
        return
    columns = ["tenant", "id", "credit", "spent", "balance", "currency"]
    rows = [(x["name"], x["id"], x["credit"], x["spent"], x["balance"], x["currency"]) for x in found]
    show_table([t(f"column.{name}") for name in columns], rows)


@TENANTS.command("share", help=t("tenants.share"))
def share(
    name: Annotated[str, typer.Argument(help=t("tenants.name"))],
    weight: Annotated[int | None, typer.Option(help=t("tenants.weight"))] = None,
    quota_cards: Annotated[str | None, typer.Option(metavar="CARDS|none", help=t("tenants.quota_cards"))] = None,
    quota_memory: Annotated[str | None, typer.Option(metavar="SIZE|none", help=t("tenants.quota_memory"))] = None,
    borrow: Annotated[bool | None, typer.Option("--borrow/--no-borrow", help=t("tenants.borrow"))] = None,
    max_priority: Annotated[int | None, typer.Option(help=t("tenants.max_priority"))] = None,
    as_json: AsJson = False,
) -> None:
    changes: dict[str, object] = {"weight": weight, "may_borrow": borrow, "max_priority": max_priority}
    changes = {key: value for key, value in changes.items() if value is not None}
    if quota_cards is not None:
        changes["quota_compute_ppm"] = None if quota_cards == "none" else _cards_ppm(quota_cards)
    if quota_memory is not None:
        changes["quota_memory_bytes"] = None if quota_memory == "none" else parse_size(quota_memory)
    with connect() as client:
        found = client.send(queue_calls.set_share(name, changes) if changes else queue_calls.share(name))
    if as_json:
        show_json(found)
        return
    cards, memory = found["quota_compute_ppm"], found["quota_memory_bytes"]
    row = (
        name,
        found["weight"],
        None if cards is None else f"{cards / 1_000_000:g}",
        None if memory is None else size(memory),
        t("yes") if found["may_borrow"] else t("no"),
        found["max_priority"],
    )
    columns = ["tenant", "weight", "quota_cards", "quota_memory", "borrow", "max_priority"]
    show_table([t(f"column.{column}") for column in columns], [row])


def _cards_ppm(text: str) -> int:
    try:
        ppm = Decimal(text) * 1_000_000
        if ppm.is_finite() and ppm == ppm.to_integral_value() and 0 <= ppm <= 10**12:
            return int(ppm)
    except InvalidOperation:
        pass  # told below, like every other text that is no number of cards
    raise YardError("invalid_request", reason=f"'{text[:40]}' is not a number of cards, such as 4 or 0.5, nor none")


@TOKENS.command("list", help=t("tokens.list"))
def list_tokens(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(calls.tokens())["items"]
    if as_json:
        show_json(found)
        return
    columns = ["token", "user", "role", "tenant", "age", "last_used", "state"]
    show_table(
        [t(f"column.{name}") for name in columns],
        [
            (
                x["id"],
                x["user"],
                x["role"],
                x["tenant_id"],
                age(x["created_at"]),
                x["last_used_at"] and age(x["last_used_at"]),
                _state(x),
            )
            for x in found
        ],
    )


def _state(token: types.Token) -> str:
    if token["revoked"]:
        return t("tokens.revoked")
    ends = token["expires_at"]
    if ends is None:
        return ""
    return t("tokens.ended" if datetime.fromisoformat(ends) <= datetime.now(UTC) else "tokens.ends", at=ends)


@TOKENS.command("add", help=t("tokens.add"))
def add_token(
    user: Annotated[str, typer.Argument(help=t("tokens.user"))],
    role: Annotated[str, typer.Option(metavar="operator|member|viewer", help=t("tokens.role"))] = "member",
    tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        added = client.send(calls.add_token(user, role, tenant))
    if as_json:
        show_json(added)
        return
    say(t("tokens.once"))
    print(added.get("token", ""))


@TOKENS.command("revoke", help=t("tokens.revoke"))
def revoke_token(token: Annotated[str, typer.Argument(help=t("tokens.id"))]) -> None:
    with connect() as client:
        client.send(calls.revoke_token(token))
    say(t("tokens.gone", token=token))

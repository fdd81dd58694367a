"""gpuyard wallet, topup, voucher, budget, reconcile"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.output import ABSENT, say, show_json, show_table, t
from gpuyard.sdk import wallet_calls

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
WALLET = typer.Typer(rich_markup_mode=None, help=t("wallet.help"), no_args_is_help=True)
VOUCHER = typer.Typer(rich_markup_mode=None, help=t("voucher.help"), no_args_is_help=True)
BUDGET = typer.Typer(rich_markup_mode=None, help=t("budget.help"), no_args_is_help=True)
APP.add_typer(WALLET, name="wallet")
APP.add_typer(VOUCHER, name="voucher")
APP.add_typer(BUDGET, name="budget")
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
Tenant = Annotated[str | None, typer.Option(help=t("option.tenant"))]
Whose = Annotated[str, typer.Argument(metavar="TENANT", help=t("option.tenant"))]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help=t("tenants.amount"))]
Period = Annotated[str, typer.Argument(metavar="day|month", help=t("budget.period"))]
Hard = Annotated[bool, typer.Option("--hard", help=t("budget.hard"))]


@WALLET.command("show", help=t("wallet.show"))
def show_wallet(tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(wallet_calls.wallet(tenant))
    if as_json:
        show_json(found)
        return
    runway = found["runway_seconds"]
    rows = [
        (t("wallet.row.tenant"), found["tenant"]),
        (t("wallet.row.balance"), f"{found['balance']} {found['currency']}"),
        (t("wallet.row.available"), found["available"]),
        (t("wallet.row.held"), found["held"]),
        (t("wallet.row.unposted"), found["unposted"]),
        (t("wallet.row.burn"), found["burn_per_hour"]),
        (t("wallet.row.runway"), None if runway is None else t("wallet.hours", hours=f"{runway / 3600:.1f}")),
        (t("wallet.row.kept"), found["disks_kept_until"]),
    ]
    show_table(["", t("wallet.later") if not found["prepaid"] else t("wallet.prepaid")], rows)


@WALLET.command("transfers", help=t("wallet.transfers"))
def show_transfers(
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help=t("wallet.limit"))] = 50,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        found = client.send(wallet_calls.transfers(tenant, limit))["items"]
    if as_json:
        show_json(found)
        return
    columns = ["at", "kind", "amount", "currency", "debit", "credit_to", "transfer"]
    rows = [(x["at"], x["kind"], x["amount"], x["currency"], x["debit"], x["credit"], x["id"]) for x in found]
    show_table([t(f"column.{name}") for name in columns], rows)


@WALLET.command("refund", help=t("wallet.refund"))
def refund(
    transfer: Annotated[str, typer.Argument(metavar="TRANSFER", help=t("wallet.transfer"))], as_json: AsJson = False
) -> None:
    with connect() as client:
        back = client.send(wallet_calls.refund(transfer))
    if as_json:
        show_json(back)
    else:
        say(t("wallet.refunded", amount=back["amount"], currency=back["currency"]))


@WALLET.command("write-off", help=t("wallet.write_off"))
def write_off(tenant: Whose, as_json: AsJson = False) -> None:
    with connect() as client:
        owed = client.send(wallet_calls.write_off(tenant))
    if as_json:
        show_json(owed)
    else:
        say(t("wallet.written_off", amount=owed["amount"], currency=owed["currency"]))


@APP.command("topup", help=t("topup.help"))
def top_up(
    tenant: Whose,
    amount: Amount,
    key: Annotated[str | None, typer.Option(help=t("topup.key"))] = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        received = client.send(wallet_calls.top_up(tenant, amount, key))
    if as_json:
        show_json(received)
    else:
        say(t("topup.done" if received["new"] else "topup.known", transfer=received["transfer_id"]))


@VOUCHER.command("add", help=t("voucher.add"))
def add_voucher(
    amount: Amount,
    lasts: Annotated[str, typer.Option(help=t("voucher.lasts"))] = "30d",
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        added = client.send(wallet_calls.add_voucher(amount, lasts))
    if as_json:
        show_json(added)
        return
    say(t("voucher.once"))
    print(added["code"])


@VOUCHER.command("redeem", help=t("voucher.redeem"))
def redeem(
    code: Annotated[str, typer.Argument(metavar="CODE", help=t("voucher.code"))],
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    with connect() as client:
        received = client.send(wallet_calls.redeem_voucher(code, tenant))
    if as_json:
        show_json(received)
    else:
        say(t("topup.done", transfer=received["transfer_id"]))


@VOUCHER.command("list", help=t("voucher.list"))
def list_vouchers(as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(wallet_calls.vouchers())["items"]
    if as_json:
        show_json(found)
        return
    columns = ["voucher", "amount", "currency", "expires", "redeemed", "tenant"]
    rows = [(x["id"], x["amount"], x["currency"], x["expires_at"], x["redeemed_at"], x["redeemed_by"]) for x in found]
    show_table([t(f"column.{name}") for name in columns], rows)


@BUDGET.command("set", help=t("budget.set"))
def set_budget(tenant: Whose, period: Period, amount: Amount, hard: Hard = False, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(wallet_calls.set_budget(tenant, period, amount, "hard" if hard else "soft"))["items"]
    _show_budgets(found, as_json)


@BUDGET.command("list", help=t("budget.list"))
def list_budgets(tenant: Tenant = None, as_json: AsJson = False) -> None:
    with connect() as client:
        found = client.send(wallet_calls.budgets(tenant))["items"]
    _show_budgets(found, as_json)


@BUDGET.command("remove", help=t("budget.remove"))
def remove_budget(tenant: Whose, period: Period, hard: Hard = False) -> None:
    with connect() as client:
        client.send(wallet_calls.remove_budget(tenant, period, "hard" if hard else "soft"))
    say(t("budget.removed"))


def _show_budgets(found: list[wallet_calls.Budget], as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    columns = ["period", "action", "amount", "spent", "currency"]
    rows = [(x["now"], x["action"], x["amount"], x["spent"], x["currency"]) for x in found]
    show_table([t(f"column.{name}") for name in columns], rows)


@APP.command("reconcile", help=t("reconcile.help"))
def reconcile(
    listed: Annotated[bool, typer.Option("--list", help=t("reconcile.list"))] = False, as_json: AsJson = False
) -> None:
    with connect() as client:
        done = None if listed else client.send(wallet_calls.reconcile())
        found = done["discrepancies"] if done else client.send(wallet_calls.discrepancies())["items"]
    if as_json:
        show_json(done or found)
    else:
        if done:
            say(t("reconcile.done", leases=done["leases"], without=done["without_node_record"]))
            say(
                t(
                    "reconcile.sums",
                    scheduler=done["scheduler_seconds"],
                    node=done["node_seconds"],
                    billed=done["billed_seconds"],
                )
            )
            say(
                t(
                    "reconcile.card_sums",
                    scheduler=done["scheduler_card_seconds"],
                    node=done["node_card_seconds"],
                    billed=done["billed_card_seconds"],
                )
            )
            for fault in done["faults"]:
                say(t("reconcile.fault", fault=fault))
        if found or not done:
            _show_discrepancies(found)
    if done and (done["faults"] or found):
        raise typer.Exit(1)


def _show_discrepancies(found: list[wallet_calls.Discrepancy]) -> None:
    columns = ["lease", "scheduler", "node", "billed", "card_seconds", "posted", "rated", "at", "resolved"]
    rows = [
        (
            x["lease_id"],
            x["scheduler_seconds"],
            x["node_seconds"],
            x["billed_seconds"],
            " / ".join(
                each or ABSENT
                for each in (x["scheduler_card_seconds"], x["node_card_seconds"], x["billed_card_seconds"])
            ),
            x["posted"],
            x["rated"],
            x["found_at"],
            x["resolved_at"],
        )
        for x in found
    ]
    show_table([t(f"column.{name}") for name in columns], rows)

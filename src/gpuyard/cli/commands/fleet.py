"""gpuyard offers, cards, nodes"""

from __future__ import annotations

from typing import Annotated

import typer

from gpuyard.cli.commands.pool import pool_line, pool_of
from gpuyard.cli.credentials import connect
from gpuyard.cli.output import cpus, share, show_json, show_table, size, t

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]


@APP.command(help=t("offers.help"))
def offers(as_json: AsJson = False) -> None:
    from gpuyard.sdk import calls

    with connect() as client:
        found = list(client.pages(lambda cursor: calls.offers(cursor=cursor)))
    if as_json:
        show_json(found)
        return
    columns = ["offer", "model", "memory", "share", "cpus", "ram", "price", "free", "guarantee"]
    show_table(
        [t(f"column.{name}") for name in columns],
        [
            (
                offer["name"],
                offer["card_model"],
                size(offer["memory_bytes"]),
                share(offer["compute_ppm"]),
                cpus(offer["cpu_milli"]),
                size(offer["ram_bytes"]),
                f"{offer['price_per_hour']} {offer['currency']}/h",
                offer["available"],
                offer["guarantee"],
            )
            for offer in found
        ],
    )


@APP.command(help=t("cards.help"))
def cards(as_json: AsJson = False) -> None:
    from gpuyard.sdk import calls

    with connect() as client:
        found = list(client.pages(lambda cursor: calls.cards(cursor=cursor)))
        pool = None if as_json else pool_of(client)
    if as_json:
        show_json(found)
        return
    columns = ["card", "model", "node", "pci", "state", "free_memory", "free_share", "leases"]
    show_table(
        [t(f"column.{name}") for name in columns],
        [
            (
                card["uuid"],
                card["model"] + (" *" if card["simulated"] else ""),
                card["node"],
                card["pci_address"],
                card["state"],
                f"{size(card['memory_free_bytes'])}/{size(card['memory_bytes'])}",
                share(card["compute_free_ppm"]),
                card["leases"],
            )
            for card in found
        ],
    )
    if pool is not None:
        typer.echo(pool_line(pool))
    if any(card["simulated"] for card in found):
        typer.echo(t("cards.simulated"))


@APP.command(help=t("nodes.help"))
def nodes(as_json: AsJson = False) -> None:
    from gpuyard.sdk import calls

    with connect() as client:
        found = list(client.pages(lambda cursor: calls.nodes(cursor=cursor)))
    if as_json:
        show_json(found)
        return
    columns = ["node", "state", "cards", "cpus", "ram", "rack", "region"]
    show_table(
        [t(f"column.{name}") for name in columns],
        [
            (
                node["name"],
                node["state"],
                node["cards"],
                cpus(node["cpu_milli"]),
                size(node["memory_bytes"]),
                node["rack"],
                node["region"],
            )
            for node in found
        ],
    )

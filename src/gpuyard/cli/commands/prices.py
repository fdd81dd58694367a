"""gpuyard price, own, costs"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gpuyard.cli.credentials import connect
from gpuyard.cli.host import installed
from gpuyard.cli.output import ABSENT, say, show_json, show_table, t
from gpuyard.model.errors import YardError

APP = typer.Typer(rich_markup_mode=None, add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help=t("option.json"))]
HOURS = 8760
_VIEWS = "workload|offer|card|day|option|what|commitment|tenant|project|organisation|label"


@APP.command(help=t("price.help"))
def price(
    offer: Annotated[str | None, typer.Argument(help=t("price.offer"))] = None,
    hourly: Annotated[str | None, typer.Option(help=t("price.hourly"))] = None,
    hours: Annotated[int, typer.Option(min=1, max=HOURS, help=t("price.hours"))] = HOURS,
    reserved: Annotated[
        list[str] | None, typer.Option(metavar="YEARSy:PERCENT[:none|partial|all]", help=t("price.reserved"))
    ] = None,
    spot: Annotated[str | None, typer.Option(help=t("price.spot"))] = None,
    currency: Annotated[str, typer.Option(help=t("price.currency"))] = "USD",
    as_json: AsJson = False,
) -> None:
    if (offer is None) == (hourly is None):
        raise YardError("invalid_request", reason="offer_or_hourly")
    if hourly is not None:
        found = installed().sums.compare(hourly, hours, reserved or [], spot, currency)
    else:
        if reserved or spot is not None:
            raise YardError("invalid_request", reason="bare_numbers_only")
        from gpuyard.sdk import money_calls

        with connect() as client:
            found = client.send(money_calls.compare_prices(str(offer), hours))
    if as_json:
        show_json(found)
        return
    _show_comparison(found)


def _show_comparison(found: Mapping[str, Any]) -> None:
    columns = ["option", "price", "total", "saving", "upfront", "from_hours"]
    rows = [
        (
            _name(choice),
            f"{choice['per_hour']}/h",
            f"{choice['total']} {found['currency']}",
            choice["saving"],
            choice["upfront_amount"],
            choice["from_hours_a_year"],
        )
        for choice in found["choices"]
    ]
    show_table([t(f"column.{name}") for name in columns], rows)
    if found["beside"] is not None:
        say(t("price.beside", **{name: price or ABSENT for name, price in found["beside"].items()}))
    cheapest = found["choices"][0]
    say(
        t(
            "price.cheapest",
            option=_name(cheapest),
            hours=found["hours_a_year"],
            years=found["years"],
            total=cheapest["total"],
            currency=found["currency"],
        )
    )


def _name(choice: Mapping[str, Any]) -> str:
    if not choice["term_years"]:
        return t("price.by_unit" if choice["by_unit"] else f"price.name.{choice['option']}")
    upfront = t(f"price.upfront.{choice['upfront']}")
    return t("price.term", years=choice["term_years"], discount=choice["discount"], upfront=upfront)


def _show_margins(found: Mapping[str, Any]) -> None:
    names = ("card_model", "cards", "revenue", "utilisation", "energy_kwh", "energy", "energy_cost", "margin")
    names += ("margin_a_card", "break_even")
    rows = [{**row, "energy": _told(row), "break_even": row["break_even_hours"]} for row in found["cards"]]
    show_table([t(f"column.{name}") for name in names], [[row[name] for name in names] for row in rows])
    if any(row["energy_kwh"] is not None and row["energy_cost"] is None for row in found["cards"]):
        say(t("costs.no_power"))


def _told(row: Mapping[str, Any]) -> str | None:
    """Whether energy was measured or is an estimate."""
    measured = row["energy_measured"]
    if measured in (None, "0%", "100%"):
        return None if measured is None else t("costs.estimated" if measured == "0%" else "costs.measured")
    return t("costs.partly", measured=measured)


@APP.command(help=t("own.help"))
def own(
    price: Annotated[str, typer.Option(help=t("own.price"))],
    watts: Annotated[int, typer.Option(min=0, max=100_000, help=t("own.watts"))],
    kwh: Annotated[str, typer.Option(help=t("own.kwh"))],
    rent: Annotated[str, typer.Option(help=t("own.rent"))],
    years: Annotated[int, typer.Option(min=1, max=20, help=t("own.years"))] = 3,
    hours: Annotated[int, typer.Option(min=1, max=HOURS, help=t("price.hours"))] = HOURS,
    upkeep: Annotated[str, typer.Option(help=t("own.upkeep"))] = "0",
    resale: Annotated[str, typer.Option(help=t("own.resale"))] = "0",
    overhead: Annotated[int, typer.Option(min=0, max=1000, metavar="PERCENT", help=t("own.overhead"))] = 0,
    idle_watts: Annotated[int, typer.Option(min=0, max=100_000, help=t("own.idle_watts"))] = 0,
    currency: Annotated[str, typer.Option(help=t("price.currency"))] = "USD",
    as_json: AsJson = False,
) -> None:
    found = installed().sums.own(
        price=price,
        years=years,
        watts=watts,
        kwh=kwh,
        hours=hours,
        rent=rent,
        upkeep=upkeep,
        resale=resale,
        overhead_percent=overhead,
        idle_watts=idle_watts,
        currency=currency,
    )
    if as_json:
        show_json(found)
        return
    names = (
        "owning",
        "energy",
        "owning_per_hour",
        "renting",
        "saving",
        "from_hours_a_year",
        "pays_back_after_hours",
    )
    show_table([t("column.what"), found["currency"]], [(t(f"own.{name}"), found[name]) for name in names])


@APP.command(help=t("costs.help"))
def costs(
    by: Annotated[
        str,
        typer.Option(
            metavar=_VIEWS,
            help=t("costs.by"),
        ),
    ] = "workload",
    label: Annotated[str | None, typer.Option(help=t("costs.label"))] = None,
    tenant: Annotated[str | None, typer.Option(help=t("option.tenant"))] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help=t("bill.from"))] = None,
    until: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help=t("bill.until"))] = None,
    forecast: Annotated[bool, typer.Option("--forecast", help=t("costs.forecast"))] = False,
    margin: Annotated[bool, typer.Option("--margin", help=t("costs.margin"))] = False,
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help=t("costs.month"))] = None,
    as_json: AsJson = False,
) -> None:
    from gpuyard.sdk import money_calls
    from gpuyard.sdk.calls import Call

    call: Call[Any] = money_calls.costs("label" if label else by, label, tenant, from_, until)
    if forecast:
        call = money_calls.forecast(tenant)
    elif margin:
        call = money_calls.margin(month)
    with connect() as client:
        found = client.send(call)
    if as_json:
        show_json(found)
    elif forecast:
        names = ("month", "spent", "burn_a_day", "expected", "low", "high", "days_known")
        show_table([t("column.what"), found["currency"]], [(t(f"costs.row.{name}"), found[name]) for name in names])
    elif margin:
        _show_margins(found)
    else:
        names = ("group", "amount", "effective", "listed", "card_hours")
        rows = [[row[name] for name in names] for row in found["costs"]]
        show_table([t(f"column.{name}") for name in names], [*rows, (t("bill.total"), found["total"], "", "", "")])

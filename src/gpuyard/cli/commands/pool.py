"""What `gpuyard status` says of the pool: what is leased beside the target, and what moves brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuyard.cli.output import t
from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from gpuyard.sdk.client import Client
    from gpuyard.sdk.types import PoolUse


def pool_of(client: Client) -> PoolUse | None:
    """What is leased of the pool; None for who may see its cards but does not operate the yard."""
    from gpuyard.sdk import calls

    try:
        return client.send(calls.yard())["pool"]
    except YardError as error:
        if error.code not in {"forbidden", "denied_by_policy"}:
            raise
        return None


def pool_line(pool: PoolUse) -> str:
    """What is leased beside the target, in a sentence."""
    leased = "--" if pool["leased_ppm"] is None else f"{pool['leased_ppm'] / 10_000:.1f}"
    return t("cards.pool", leased=leased, target=f"{pool['target_ppm'] / 10_000:g}")


def pool_rows(pool: PoolUse) -> list[tuple[str, str]]:
    """Rows of the table, by column key."""
    leased = "--" if pool["leased_ppm"] is None else f"{pool['leased_ppm'] / 10_000:.1f}"
    target = f"{pool['target_ppm'] / 10_000:g}"
    empty, nodes = pool["empty_nodes"], pool["nodes"]
    done, on_the_way = pool["moves_done"], pool["moves_on_the_way"]
    watts = "--" if pool["saved_watts"] is None else pool["saved_watts"]
    return [
        ("pool", t("status.pool", leased=leased, target=target, empty=empty, nodes=nodes)),
        ("moves", t("status.moves", on_the_way=on_the_way, done=done)),
        ("saved", t("status.saved", watts=watts)),
    ]

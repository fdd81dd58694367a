"""The ledger from nothing: what every balance must be, and where live ones are not. See `gpuyard.model.ledger`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from gpuyard.model.ledger import AccountKind, Transfer, changes, check


def replay(transfers: Iterable[Transfer]) -> dict[str, int]:
    """Every balance from nothing. An id that comes twice counts once.

    Raises ValueError where it comes with another payload.
    """
    known: dict[str, Transfer] = {}
    for transfer in transfers:
        check(transfer)
        before = known.setdefault(transfer.id, transfer)
        if before.payload != transfer.payload:
            raise ValueError(f"transfer {transfer.id} was told in two ways")
    return changes(known.values())


def faults(transfers: Iterable[Transfer], balances: Mapping[str, int]) -> list[str]:
    """Where live balances are not what the transfers make them, or do not add up: empty for a ledger that holds."""
    expected = replay(transfers)
    wrong = [
        f"{name}: {balances.get(name, 0)} instead of {expected.get(name, 0)}"
        for name in sorted(expected.keys() | balances.keys())
        if balances.get(name, 0) != expected.get(name, 0)
    ]
    sums: dict[str, int] = defaultdict(int)
    for name, balance in balances.items():
        sums[name.rsplit(":", 1)[-1]] += balance
        if name.startswith(f"{AccountKind.HOLDS.value}:") and balance < 0:
            wrong.append(f"{name}: {balance} is held")
    return wrong + [f"{currency}: all accounts together hold {total}" for currency, total in sums.items() if total]

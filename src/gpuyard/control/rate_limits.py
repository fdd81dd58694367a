"""The rate limits that the operator set, kept in the store."""

from __future__ import annotations

import json

from sqlalchemy import Connection

from gpuyard.access.rate_limits import DEFAULTS, ActionClass, Rate, RateLimits
from gpuyard.store import meta

_KEY = "rate_limits"


def load(c: Connection) -> RateLimits:
    """Those in force: the defaults, less what was set."""
    return RateLimits({**DEFAULTS, **_set(c)})


def put(c: Connection, of: ActionClass, rate: Rate | None) -> RateLimits:
    """Sets one class's rate, None for no limit; the limits as they are from now on."""
    kept = {**_set(c), of: rate}
    told = {key.value: None if one is None else [one.per_second, one.burst] for key, one in kept.items()}
    meta.put(c, _KEY, json.dumps(told))
    return load(c)


def _set(c: Connection) -> dict[ActionClass, Rate | None]:
    told = json.loads(meta.get(c, _KEY) or "{}")
    return {ActionClass(key): None if one is None else Rate(one[0], one[1]) for key, one in told.items()}

"""The calls about rate limits, passwords and service accounts."""

from __future__ import annotations

from urllib.parse import quote

from gpuyard.sdk.access_calls import View
from gpuyard.sdk.calls import Call


def rate_limits() -> Call[View]:
    return Call("GET", "/v1/rate-limits", View)


def put_rate_limit(action_class: str, per_second: float | None, burst: int) -> Call[View]:
    body: View = {"per_second": per_second, "burst": burst}
    return Call("PUT", f"/v1/rate-limits/{quote(action_class, safe='')}", View, body=body)

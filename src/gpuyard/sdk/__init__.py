"""The Python client of a yard: `Client` and `AsyncClient`, over the same calls.

They are imported on first use, because they bring an HTTP library along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuyard.sdk.async_client import AsyncClient
    from gpuyard.sdk.client import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from gpuyard.sdk.client import Client

        return Client
    if name == "AsyncClient":
        from gpuyard.sdk.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(name)

"""The asynchronous client: the same calls, awaited."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import httpx

from gpuyard.model.errors import YardError
from gpuyard.sdk import calls, types
from gpuyard.sdk.calls import Call
from gpuyard.sdk.client import packed, unpack
from gpuyard.sdk.errors import refusal
from gpuyard.sdk.sockets import collect
from gpuyard.sdk.transport import BACKOFF_SECONDS, TIMEOUT_SECONDS, Target, arguments, decoded, try_again
from gpuyard.sdk.waiting import settled

T = TypeVar("T")


class AsyncClient:
    """A yard, called asynchronously. Every method raises YardError for what the yard refuses."""

    def __init__(self, url: str, token: str | None = None, language: str | None = None, ca: str | None = None) -> None:
        self.target = Target(url.rstrip("/"), token, language, ca)
        self._http = httpx.AsyncClient(
            base_url=self.target.url,
            headers=self.target.headers,
            timeout=TIMEOUT_SECONDS,
            verify=self.target.trust() or True,
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """One call, tried again where that is safe.

        Raises YardError.
        """
        attempt = 1
        while True:
            response = None
            failure: httpx.HTTPError | None = None
            try:
                response = await self._http.request(call.method, call.path, **arguments(call))
            except httpx.HTTPError as error:
                failure = error
            if not try_again(call, attempt, response):
                break
            await asyncio.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            attempt += 1
        if response is None:
            raise self.target.unreachable(failure or OSError("no answer")) from failure
        if response.is_error:
            raise refusal(response.status_code, response.content)
        return cast("T", decoded(self.target, response, call))

    async def pages(self, make: Callable[[str | None], Call[types.Page[T]]]) -> AsyncIterator[T]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            page = await self.send(make(cursor))
            for item in page["items"]:
                yield item
            cursor = page["next"]
            if cursor is None:
                return

    async def launch(self, wish: types.Launch, key: str | None = None) -> types.Workload:
        """Launches; a lost answer is asked for again with the same idempotency key."""
        return await self.send(calls.launch(wish, key))

    def workloads(
        self, kind: str | None = None, state: Iterable[str] = (), tenant: str | None = None
    ) -> AsyncIterator[types.Workload]:
        """Workloads, newest first."""
        states = tuple(state)
        return self.pages(lambda cursor: calls.workloads(kind, states, tenant, cursor=cursor))

    async def wait(
        self, workload: str, until: Iterable[str] | None = None, timeout_s: float = 300.0, poll_s: float = 0.1
    ) -> types.Workload:
        """Waits until a workload is in one of the states, by default until it runs or has ended.

        Raises YardError `timed_out` or `workload_failed`.
        """
        wanted = frozenset(until) if until is not None else None
        deadline = time.monotonic() + timeout_s
        while True:
            found = await self.send(calls.workload(workload))
            if settled(found, wanted):
                return found
            if time.monotonic() >= deadline:
                raise YardError("timed_out", what=found["name"], seconds=f"{timeout_s:g}", state=found["state"])
            await asyncio.sleep(poll_s)

    async def logs(
        self, workload: str, replica: int | None = None, since: str | None = None, follow: bool = False
    ) -> AsyncIterator[types.LogLine]:
        """Output lines so far; with `follow`, on until the unit has ended."""
        async with self._stream(calls.logs(workload, replica, since, follow)) as response:
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def events(self, after: int = 0) -> AsyncIterator[types.Event]:
        """Events as they happen, for ever; a broken connection goes on where it stopped."""
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            try:
                async with self._stream(Call("GET", "/v1/events", types.Event, headers=headers)) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: "):
                            event: types.Event = json.loads(line[6:])
                            after = event["sequence"]
                            yield event
            except YardError as error:
                if error.code not in {"unreachable", "shutting_down"}:
                    raise
            await asyncio.sleep(BACKOFF_SECONDS)

    async def copy_in(self, workload: str, source: Path, path: str, replica: int = 0) -> None:
        """Copies a file or folder to a path of the workload's disk; like `docker cp`, into a folder that exists."""
        folder, buffer = await asyncio.to_thread(packed, source, path)
        call = calls.files(workload, folder, replica)
        try:
            response = await self._http.put(call.path, params=call.params, content=buffer.getvalue(), timeout=None)
        except httpx.HTTPError as error:
            raise self.target.unreachable(error) from error
        if response.is_error:
            raise refusal(response.status_code, response.content)

    async def copy_out(self, workload: str, path: str, target: Path, replica: int = 0) -> None:
        """Copies a file or folder of the workload's disk; into the target where that is a folder."""
        buffer = io.BytesIO()
        async with self._stream(calls.files(workload, path, replica)) as response:
            async for chunk in response.aiter_bytes():
                buffer.write(chunk)
        buffer.seek(0)
        await asyncio.to_thread(unpack, buffer, target)

    async def execute(
        self, workload: str, command: list[str], replica: int | None = None, stdin: bytes = b""
    ) -> tuple[int, bytes]:
        """Runs a command inside a running workload: its exit code and its output."""
        return await collect(self.target, workload, command, replica, stdin)

    @asynccontextmanager
    async def _stream(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(30.0, read=None)
        try:
            async with self._http.stream(call.method, call.path, timeout=timeout, **arguments(call)) as response:
                if response.is_error:
                    raise refusal(response.status_code, await response.aread())
                yield response
        except httpx.HTTPError as error:
            raise self.target.unreachable(error) from error

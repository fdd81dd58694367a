"""The synchronous client."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar, cast

import httpx

from gpuyard.model.errors import YardError
from gpuyard.sdk import calls, types
from gpuyard.sdk.calls import Call
from gpuyard.sdk.errors import refusal
from gpuyard.sdk.transport import BACKOFF_SECONDS, TIMEOUT_SECONDS, Target, arguments, decoded, try_again
from gpuyard.sdk.waiting import settled

T = TypeVar("T")


class Client:
    """A yard, called synchronously. Every method raises YardError for what the yard refuses.

    `Client("http://127.0.0.1:8470", "gy_...")`; a context manager, or call `close`. `ca` is the certificate (PEM) of
    the authority that alone is trusted for an https URL; without it, those that the system trusts.
    """

    def __init__(self, url: str, token: str | None = None, language: str | None = None, ca: str | None = None) -> None:
        self.target = Target(url.rstrip("/"), token, language, ca)
        self._http = httpx.Client(
            base_url=self.target.url,
            headers=self.target.headers,
            timeout=TIMEOUT_SECONDS,
            verify=self.target.trust() or True,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """One call, tried again where that is safe.

        Raises YardError.
        """
        attempt = 1
        while True:
            response = None
            failure: httpx.HTTPError | None = None
            try:
                response = self._http.request(call.method, call.path, **arguments(call))
            except httpx.HTTPError as error:
                failure = error
            if not try_again(call, attempt, response):
                break
            time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            attempt += 1
        if response is None:
            raise self.target.unreachable(failure or OSError("no answer")) from failure
        if response.is_error:
            raise refusal(response.status_code, response.content)
        return cast("T", decoded(self.target, response, call))

    def pages(self, make: Callable[[str | None], Call[types.Page[T]]]) -> Iterator[T]:
        """Every item of a list, page by page: `client.pages(lambda cursor: calls.workloads(cursor=cursor))`."""
        cursor: str | None = None
        while True:
            page = self.send(make(cursor))
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def launch(self, wish: types.Launch, key: str | None = None) -> types.Workload:
        """Launches; a lost answer is asked for again with the same idempotency key."""
        return self.send(calls.launch(wish, key))

    def workloads(
        self, kind: str | None = None, state: Iterable[str] = (), tenant: str | None = None
    ) -> Iterator[types.Workload]:
        """Workloads, newest first."""
        states = tuple(state)
        return self.pages(lambda cursor: calls.workloads(kind, states, tenant, cursor=cursor))

    def wait(
        self, workload: str, until: Iterable[str] | None = None, timeout_s: float = 300.0, poll_s: float = 0.1
    ) -> types.Workload:
        """Waits until a workload is in one of the states, by default until it runs or has ended.

        Raises YardError `timed_out`, or `workload_failed` where it has ended and can no longer get there.
        """
        wanted = frozenset(until) if until is not None else None
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.send(calls.workload(workload))
            if settled(found, wanted):
                return found
            if time.monotonic() >= deadline:
                raise YardError("timed_out", what=found["name"], seconds=f"{timeout_s:g}", state=found["state"])
            time.sleep(poll_s)

    def logs(
        self, workload: str, replica: int | None = None, since: str | None = None, follow: bool = False
    ) -> Iterator[types.LogLine]:
        """Output lines so far; with `follow`, on until the unit has ended."""
        with self._stream(calls.logs(workload, replica, since, follow)) as response:
            for line in response.iter_lines():
                yield json.loads(line)

    def events(self, after: int = 0) -> Iterator[types.Event]:
        """Events as they happen, for ever; a broken connection goes on where it stopped."""
        while True:
            try:
                for event in self._events_once(after):
                    after = event["sequence"]
                    yield event
            except YardError as error:
                if error.code not in {"unreachable", "shutting_down"}:
                    raise
            time.sleep(BACKOFF_SECONDS)

    def _events_once(self, after: int) -> Iterator[types.Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        call = Call("GET", "/v1/events", types.Event, headers=headers)
        with self._stream(call) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a stream, as they are."""
        with self._stream(Call("GET", path, str)) as response:
            rest = ""
            for text in response.iter_text():
                *whole, rest = (rest + text).split("\n")  # nothing else ends a line: a text may hold U+2028
                yield from whole
            if rest:
                yield rest

    def copy_in(self, workload: str, source: Path, path: str, replica: int = 0) -> None:
        """Copies a file or folder to a path of the workload's disk; like `docker cp`, into a folder that exists."""
        folder, buffer = packed(source, path)
        self.write_files(workload, folder, buffer, replica)

    def copy_out(self, workload: str, path: str, target: Path, replica: int = 0) -> None:
        """Copies a file or folder of the workload's disk; into the target where that is a folder."""
        with io.BytesIO() as buffer:
            with self._stream(calls.files(workload, path, replica)) as response:
                for chunk in response.iter_bytes():
                    buffer.write(chunk)
            buffer.seek(0)
            unpack(buffer, target)

    def write_files(self, workload: str, folder: str, tar: BinaryIO, replica: int = 0) -> None:
        """Unpacks a tar into a folder of the workload's disk."""
        call = calls.files(workload, folder, replica)
        try:
            response = self._http.put(call.path, params=call.params, content=tar, timeout=None)
        except httpx.HTTPError as error:
            raise self.target.unreachable(error) from error
        if response.is_error:
            raise refusal(response.status_code, response.content)

    def execute(
        self, workload: str, command: list[str], replica: int | None = None, stdin: bytes = b""
    ) -> tuple[int, bytes]:
        """Runs a command inside a running workload: its exit code and its output."""
        from gpuyard.sdk.sockets import collect

        return asyncio.run(collect(self.target, workload, command, replica, stdin))

    @contextmanager
    def _stream(self, call: Call[Any]) -> Iterator[httpx.Response]:
        options = arguments(call)
        try:
            with self._http.stream(
                call.method, call.path, timeout=httpx.Timeout(30.0, read=None), **options
            ) as response:
                if response.is_error:
                    raise refusal(response.status_code, response.read())
                yield response
        except httpx.HTTPError as error:
            raise self.target.unreachable(error) from error


def packed(source: Path, path: str) -> tuple[str, io.BytesIO]:
    """A file or folder as a tar, and the folder it is to be unpacked in so that it lands at `path`."""
    folder, _, name = path.rstrip("/").rpartition("/")
    if path.endswith("/") or path in {"", "."}:
        folder, name = path, source.name
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(source, arcname=name)
    buffer.seek(0)
    return folder or ".", buffer


def unpack(tar: BinaryIO, target: Path) -> None:
    """A tar with one file or folder at its top, as `target`, or below it where that is a folder."""
    with tarfile.open(fileobj=tar, mode="r:*") as archive:
        members = archive.getmembers()
        top = {member.name.split("/")[0] for member in members}
        if len(top) == 1 and not target.is_dir():
            (first,) = top
            for member in members:
                member.name = target.name + member.name[len(first) :]
            target = target.parent
        archive.extractall(target, members=members, filter="data")

"""The cloud dialects: authenticated requests a second with moto's server as the peer, signature checks, long lists."""

from __future__ import annotations

import asyncio
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx
from tests import signing  # signers that are not the product's own

from bench.figures import Figure, at_least, at_most, percentile
from bench.yards import RunningYard, yard
from gpuyard.access.callers import KnownKey
from gpuyard.access.signatures.checking import check
from gpuyard.access.signatures.nonces import Nonces
from gpuyard.access.signatures.request import SignedRequest
from gpuyard.model.tenants import Identity, Role

REQUESTS = 1000
CONNECTIONS = 8
LISTED = 1000
CHECKS = 20_000
MOTO = Path(__file__).parents[1] / ".venv-clients" / "bin" / "moto_server"
MOTO_PORT = 18478
_IMAGE = {"ImageId": "ami-host", "InstanceType": "rtx4090-sixteenth"}
_MOTO_IMAGE = {"ImageId": "ami-12c6146b", "InstanceType": "t2.micro"}


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a run: requests a second, and seconds each."""

    per_second: float
    seconds: list[float]


def measure() -> list[Figure]:
    with yard("200xRTX4090", "simulated") as running:
        key, secret = _key(running)
        ours = asyncio.run(_load(running.url, key, secret, _IMAGE))
        listing = _list_ms(running, key, secret)
        rss = running.rss_mib()
    peer = _moto()
    told = f"moto server: {peer.per_second:.0f} req/s" if peer else "moto is not installed (make clients)"
    how = f"{REQUESTS} signed EC2 requests over {CONNECTIONS} connections, one in ten a RunInstances; the client shares the CPUs"
    figures = [
        at_least("dialects.requests", ours.per_second, "req/s", 1000, told, how),
        at_most("dialects.p99", percentile(ours.seconds, 0.99) * 1000, "ms", 50,
                f"moto server: {percentile(peer.seconds, 0.99) * 1000:.1f} ms" if peer else told, how),
        at_least("dialects.signature_checks", _checks_per_core(), "/s", 30_000, "botocore signs, checks none",
                 f"{CHECKS} SigV4 requests checked whole, per core"),
        at_most("dialects.describe_1000", listing, "ms", 50, "EC2 itself pages at 1,000",
                f"DescribeInstances of {LISTED} in one page, best of 5, answer in hand"),
        at_most("dialects.rss", rss, "MiB", 100, "--", "VmRSS of the server after all of this"),
    ]  # fmt: skip
    if peer:
        figures.append(at_least("dialects.against_moto", ours.per_second / peer.per_second, "ratio", 1, told, how))
    return figures


def _key(running: RunningYard) -> tuple[str, str]:
    made = httpx.post(f"{running.url}/v1/access-keys", json={"user": "bench"}, headers=running.headers).json()
    return made["id"], made["secret"]


async def _load(url: str, key: str, secret: str, image: dict[str, str]) -> Load:
    """Signed before the clock starts, and sent raw: what is measured is the server, as far as one machine lets it."""
    host = url.partition("//")[2]
    bodies = []
    for n in range(REQUESTS):
        launch = {**image, "MinCount": "1", "MaxCount": "1", "ClientToken": f"t{n}"}
        bodies.append(signing.form("RunInstances", **launch) if n % 10 == 0 else signing.form("DescribeRegions"))
    sent = [_raw(host, key, secret, body) for body in bodies]
    seconds: list[float] = []
    await _send(host, [_raw(host, key, secret, signing.form("DescribeRegions"))], [])  # what is imported first
    begun = time.perf_counter()
    await asyncio.gather(*(_send(host, sent[n::CONNECTIONS], seconds) for n in range(CONNECTIONS)))
    return Load(REQUESTS / (time.perf_counter() - begun), seconds)


def _raw(host: str, key: str, secret: str, body: str) -> bytes:
    headers = signing.sigv4(key, secret, body, time.time_ns() // 1000, host)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST / HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n{body}".encode()


async def _send(host: str, requests: list[bytes], seconds: list[float]) -> None:
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    for request in requests:
        begun = time.perf_counter()
        if reader.at_eof():  # moto's server keeps no connection
            writer.close()
            reader, writer = await asyncio.open_connection(name, int(port))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode() + (await reader.read(2000)).decode())
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        if b"connection: close" in head.lower():
            await reader.read()
        seconds.append(time.perf_counter() - begun)
    writer.close()


def _list_ms(running: RunningYard, key: str, secret: str) -> float:
    host = running.url.partition("//")[2]
    with httpx.Client(base_url=running.url, timeout=60) as client:

        def ask(body: str) -> httpx.Response:
            headers = signing.sigv4(key, secret, body, time.time_ns() // 1000, host)
            return client.post("/", content=body.encode(), headers=headers).raise_for_status()

        there = ask(signing.form("DescribeInstances")).text.count("<instanceId>")
        for _ in range(max(0, LISTED - there) // 100 + 1):
            ask(signing.form("RunInstances", **_IMAGE, MinCount="1", MaxCount="100"))
        time.sleep(3)  # until the loops have placed them
        best = 1e9
        for _ in range(5):
            begun = time.perf_counter()
            told = ask(signing.form("DescribeInstances", MaxResults=str(LISTED)))
            best = min(best, time.perf_counter() - begun)
            assert told.text.count("<instanceId>") == LISTED
        return best * 1000


def _moto() -> Load | None:
    """The same load on moto's server, in the same run."""
    if not MOTO.exists():
        return None
    process = subprocess.Popen(
        [str(MOTO.with_name("python")), str(MOTO), "-p", str(MOTO_PORT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{MOTO_PORT}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/moto-api/").raise_for_status()
                return asyncio.run(_load(url, "key", "secret", _MOTO_IMAGE))
            except httpx.TransportError:
                time.sleep(0.2)
        raise RuntimeError("moto did not answer")
    finally:
        process.terminate()
        process.wait(timeout=10)


class _Ring:
    """One key."""

    def find(self, key_id: str) -> KnownKey:
        return KnownKey(Identity(key_id, "bench", Role.MEMBER, "tn-bench"), "secret")


def _checks_per_core() -> float:
    now_us = time.time_ns() // 1000
    requests = []
    for n in range(200):
        pairs = {"Action": "DescribeInstances", "Version": "2016-11-15", "InstanceId.1": f"i-{n}"}
        body = urlencode(pairs)
        headers = signing.sigv4("key", "secret", body, now_us)
        requests.append(SignedRequest("POST", "/", [], headers, body.encode(), list(pairs.items())))
    ring, nonces = _Ring(), Nonces()
    begun = time.process_time()
    for n in range(CHECKS):
        check(requests[n % 200], ring, nonces, now_us)
    return CHECKS / (time.process_time() - begun)

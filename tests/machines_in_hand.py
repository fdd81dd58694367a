"""A hand-driven yard that listens for machines on a real port with real TLS, and machines in folders of their own."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from api_in_hand import ApiInHand
from gpuyard.access import certificates, machine_certificates
from gpuyard.cli.host import UpOptions
from gpuyard.control.machines import watching
from gpuyard.sdk.machine_agent import Agent, now
from gpuyard.sdk.machine_identity import Joined, MachineFolder, signing_request
from gpuyard.serving_machines import MachinePort

CARD = {
    "uuid": "GPU-1",
    "model": "RTX4090",
    "pci_address": "0000:01:00.0",
    "memory_bytes": 24 << 30,
    "driver": "615.1",
    "simulated": False,
    "guarantees": [
        {"shape": "full", "guarantee": "exclusive", "because": "whole_card", "not_protected": []},
        {"shape": "fraction", "guarantee": "cooperative", "because": "shim", "not_protected": ["graphics"]},
    ],
}


def inventory(*uuids: str) -> dict[str, Any]:
    """What a machine with these cards tells."""
    return {
        "cpu_milli": 8000,
        "memory_bytes": 64 << 30,
        "cards": [{**CARD, "uuid": uuid} for uuid in uuids],
        "findings": [{"name": "nvml", "ok": True, "params": {"detail": "615.1"}}],
        "examined_at": "2026-11-28T12:00:00Z",
    }


class MachinesInHand(ApiInHand):
    """`gate` is the port's; `url` an API that machines join through, over loopback."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        listener = socket.create_server(("127.0.0.1", 0))
        options = UpOptions(state=root, machines="127.0.0.1:0")
        self.port = MachinePort(self.hand.yard, root / "machines", listener, options, None)
        self.gate = self.port.gate
        self.app.state.machines = self.gate
        watching.LOOK_EVERY_S = 3600.0  # tests look themselves
        self.port.start()
        self.root = root
        self.agents: list[Agent] = []
        self._listener = listener

    def close(self) -> None:
        for agent in self.agents:
            agent.close()
        self.port.stop()
        self._listener.close()
        super().close()

    def invite(self, name: str | None = None, **more: Any) -> Any:
        made = self.operator.post("/v1/machines/invitations", json={"name": name, **more})
        assert made.status_code == 201, made.text
        return made.json()

    def ask_to_join(self, token: str, name: str, key: ec.EllipticCurvePrivateKey) -> httpx.Response:
        secret = token.removeprefix("gyj_").split(".")[0]
        body = {"secret": secret, "name": name, "request": signing_request(key, name)}
        return self.with_token(None).post("/v1/machines/join", json=body)

    def joined(self, name: str) -> Box:
        """A machine that has joined."""
        box = Box(self, MachineFolder(self.root / f"machine-{name}-{time.monotonic_ns()}"))
        granted = self.ask_to_join(self.invite(name)["token"], name, box.folder.pending_key())
        assert granted.status_code == 200, granted.text
        box.save(granted.json())
        return box

    def events(self, kind: str) -> list[Any]:
        from gpuyard.store import events

        with self.hand.yard.store.read() as c:
            return [event for event in events.after(c, 0, None, 1000) if event.kind == kind]

    def audited(self) -> list[dict[str, Any]]:
        from gpuyard.store import audit

        self.hand.yard.authority.auditor.settle(self.hand.clock.now_us())
        with self.hand.yard.store.read() as c:
            return [json.loads(line) for line in audit.leaves(c, 0, audit.size(c))]

    @contextmanager
    def served(self) -> Iterator[str]:
        """The API over a loopback port: its URL."""
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            listener.close()


@dataclass
class Box:
    """One machine: its folder, and plain clients with its certificate."""

    yard: MachinesInHand
    folder: MachineFolder
    said: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    has: dict[str, Any] = field(default_factory=lambda: inventory("GPU-1"))
    ahead_s: float = 0.0

    def save(self, granted: Mapping[str, Any]) -> None:
        names = ("name", "id", "address", "authorities")
        self.folder.save(
            Joined(*(granted[name] for name in names), url="http://yard"),
            self.folder.pending_key(),
            granted["certificate"],
        )

    def agent(self) -> Agent:
        made = Agent(self.folder, lambda: self.has, lambda *told: self.said.append(told), now, time.monotonic)
        self.yard.agents.append(made)
        return made

    def client(self, context: ssl.SSLContext | None = None) -> httpx.Client:
        identity = self.folder.identity()
        assert identity is not None
        return httpx.Client(base_url=identity.joined.address, verify=context or self.context())

    def context(self) -> ssl.SSLContext:
        identity = self.folder.identity()
        assert identity is not None
        context = ssl.create_default_context(cadata=identity.joined.authorities)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as newer versions of Python do by themselves
        context.load_cert_chain(identity.file)
        return context

    @property
    def until(self) -> datetime:
        identity = self.folder.identity()
        assert identity is not None
        return identity.ends


def beat() -> dict[str, str]:
    return {"at": now().isoformat(), "version": "0.1.0"}


def an_authority(at: datetime) -> machine_certificates.Authority:
    """An authority as a yard makes it, for nobody."""
    name = "gpuyard machines yd-test"
    return machine_certificates.Authority.of(certificates.new_authority(name, at, timedelta(days=365)))


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and reason of a refusal."""
    told = answer.json()
    return answer.status_code, told["code"], told["params"].get("refusal", "")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

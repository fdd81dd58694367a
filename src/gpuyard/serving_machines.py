"""The second server of a yard: the port that machines alone reach, with TLS 1.3 and a certificate of theirs."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import uvicorn

from gpuyard.api.machine_door import CertificateProtocol, build_door
from gpuyard.cli.host import UpOptions
from gpuyard.control.listening import certified_names, parse_address, told_address
from gpuyard.control.machines.authorities import MachineAuthorities
from gpuyard.control.machines.gate import Gate, now
from gpuyard.control.machines.watching import watch
from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError

AT_ONCE = 1000  # connections that passed the handshake
_STOP_S = 5.0


class MachinePort:
    """Serves from a thread of its own, so that what the API is busy with holds no heartbeat up."""

    def __init__(
        self, yard: Yard, folder: Path, listener: socket.socket, options: UpOptions, ca_sha256: str | None
    ) -> None:
        host, _ = parse_address(options.machines or "")
        authorities = MachineAuthorities(folder, certified_names(host, options.tls_names), yard.id, now())
        address = told_address(listener, options.tls_names, secure=True)
        self.gate = Gate(yard, authorities, address, ca_sha256)
        self._listener = listener
        self._stop = threading.Event()
        self._server = uvicorn.Server(
            uvicorn.Config(
                build_door(self.gate),
                http=CertificateProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                limit_concurrency=AT_ONCE,
                timeout_keep_alive=60,  # longer than from one heartbeat to the next
                timeout_graceful_shutdown=1,
                server_header=False,
                proxy_headers=False,
                ssl_context_factory=authorities.context_factory,
            )
        )
        self._threads = (
            threading.Thread(target=self._serve, name="machines", daemon=True),
            threading.Thread(target=watch, args=(self.gate, self._stop), name="machine-watch", daemon=True),
        )

    def start(self) -> None:
        """Answers once this returns. Raises YardError `internal` where that cannot be; the log says why."""
        for thread in self._threads:
            thread.start()
        while not self._server.started:
            if not self._threads[0].is_alive():
                raise YardError("internal", reference="machines")
            time.sleep(0.005)

    def stop(self) -> None:
        """Answers no more once this returns."""
        self._stop.set()
        self._server.should_exit = True
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_STOP_S)

    def _serve(self) -> None:
        self._server.run(sockets=[self._listener])

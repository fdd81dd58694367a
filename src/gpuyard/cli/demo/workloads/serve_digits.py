"""Reads digits for whoever asks over HTTP: a nearest-centroid classifier, as a service of the demo.

GET /healthz answers `ok`; POST /classify takes {"pixels": [64 numbers from 0 to 16]} and answers {"digit": n}.
"""

from __future__ import annotations

import json
import os
import runpy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

DIGITS = runpy.run_path(str(Path(__file__).with_name("train_digits.py")))["load_digits"]()
CENTROIDS = np.stack([DIGITS[0][DIGITS[1] == digit].mean(axis=0) for digit in range(10)])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(200, "text/plain", b"ok\n") if self.path == "/healthz" else self.reply(404, "text/plain", b"\n")

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536))
        try:
            pixels = np.array(json.loads(body)["pixels"], dtype=float).reshape(64) / 16.0
        except (ValueError, KeyError, TypeError):
            self.reply(400, "text/plain", b"pixels: 64 numbers\n")
            return
        digit = int(((CENTROIDS - pixels) ** 2).sum(axis=1).argmin())
        self.reply(200, "application/json", json.dumps({"digit": digit}).encode())

    def reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    print(f"reading digits on port {port}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()

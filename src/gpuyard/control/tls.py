"""The API's TLS: certificates of the yard's own authority, or the operator's files. Both are renewed without a restart:
each handshake takes the context that is current, and a new one replaces it only once it is whole."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gpuyard.access import certificates
from gpuyard.access.certificates import Certified, is_due
from gpuyard.control.listening import certified_names
from gpuyard.model.errors import YardError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0


class Source(Protocol):
    """Where a server's certificate comes from."""

    @property
    def files(self) -> tuple[Path, Path]:
        """The files of chain and key."""
        ...

    def refresh(self, now: datetime) -> None:
        """Makes the files anew where that is for the yard to do, and due.

        Raises YardError `tls_unusable`.
        """
        ...


class OwnAuthority:
    """An authority in a folder of the state directory, and the certificate that it signed for this server."""

    def __init__(self, folder: Path, names: Sequence[str], yard: str) -> None:
        self._folder, self._names, self._yard = folder, tuple(names), yard

    @property
    def files(self) -> tuple[Path, Path]:
        return self._folder / "server.pem", self._folder / "server.pem"

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, which clients pin."""
        return (self._folder / "ca.pem").read_bytes()

    def refresh(self, now: datetime) -> None:
        server = self.files[0]
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            signer = self._authority(now)
            if not server.exists() or is_due(server.read_bytes(), signer.certificate, self._names, now):
                made = certificates.issue(signer, self._names, now)
                write_private(server, made.certificate + made.key)
        except (OSError, ValueError) as error:
            raise YardError("tls_unusable", path=str(self._folder), reason=str(error)) from error

    def _authority(self, now: datetime) -> Certified:
        """The one that there is; a new one where it has ended, which nobody could go on relying on."""
        file, key = self._folder / "ca.pem", self._folder / "ca.key"
        # The certificate is written last: where it is, its key is.
        if not file.exists() or certificates.has_ended(file.read_bytes(), now):
            made = certificates.new_authority(f"gpuyard {self._yard}", now)
            file.unlink(missing_ok=True)
            write_private(key, made.key)
            write_private(file, made.certificate)
        return Certified(file.read_bytes(), key.read_bytes())


@dataclass(frozen=True, slots=True)
class Files:
    """The operator's own files, which somebody else renews."""

    chain: Path
    key: Path

    @property
    def files(self) -> tuple[Path, Path]:
        return self.chain, self.key

    def refresh(self, now: datetime) -> None:
        del now


class ServerTls:
    """`context` is what a server listens with; `refresh` gives it a new certificate where one is due."""

    def __init__(self, source: Source, now: datetime) -> None:
        self._source = source
        source.refresh(now)
        self._mark, self._current = _mark(*source.files), server_context(*source.files)
        self.context = server_context(*source.files)
        self.context.sni_callback = self._choose

    @property
    def authority(self) -> str | None:
        """The certificate (PEM) of the yard's own authority; None where the operator's files are served."""
        return self._source.certificate.decode() if isinstance(self._source, OwnAuthority) else None

    @property
    def fingerprint(self) -> str | None:
        """That authority's SHA-256."""
        return None if self.authority is None else certificates.fingerprint(self.authority.encode())

    def context_factory(self, *_: object) -> ssl.SSLContext:
        """What the web server asks for its context."""
        return self.context

    def refresh(self, now: datetime) -> bool:
        """Whether handshakes take a new certificate from now on.

        Raises YardError `tls_unusable`; the one before stays then.
        """
        self._source.refresh(now)
        mark = _mark(*self._source.files)
        if mark == self._mark:
            return False
        self._current = server_context(*self._source.files)
        self._mark = mark  # only now: files that were caught half replaced are looked at again
        return True

    def watch(self, stop: threading.Event, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Refreshes until told to stop. A certificate that cannot be renewed is told of and tried again."""
        while not stop.wait(LOOK_EVERY_S):
            try:
                if self.refresh(wall()):
                    log.info("certificate_renewed")
            except YardError as error:
                log.warning("certificate_not_renewed", extra={"params": dict(error.params)})

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        connection.context = self._current  # pyright: ignore[reportAttributeAccessIssue] - documented for this callback


def open_tls(folder: Path, host: str, names: Sequence[str], files: tuple[Path, Path] | None, yard: str) -> ServerTls:
    """TLS with the operator's files (chain, key), or else with an authority that is kept in `folder`.

    Raises YardError `tls_unusable`.
    """
    now = datetime.now(UTC)  # clients hold certificates against the machine's time, not the yard's
    return ServerTls(OwnAuthority(folder, certified_names(host, names), yard) if files is None else Files(*files), now)


def _mark(*files: Path) -> tuple[int, ...]:
    """What changes with the files."""
    try:
        return tuple(fact for path in files for fact in (path.stat().st_mtime_ns, path.stat().st_ino))
    except OSError as error:
        raise YardError("tls_unusable", path=str(error.filename), reason=str(error.strerror)) from error


def server_context(chain: Path, key: Path) -> ssl.SSLContext:
    """What a server shows itself with. Raises YardError `tls_unusable`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise YardError("tls_unusable", path=f"{chain}, {key}", reason=str(error)) from error
    return context


def _no_password() -> str:
    """An encrypted key would have OpenSSL ask at a terminal that nobody sits at."""
    raise ValueError("the key is encrypted: give one that is not, readable by the yard alone")


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, and for nobody else to read."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)

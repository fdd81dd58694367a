"""A yard's authorities for machines, in a folder of its state, and how the port for machines shows itself with them.

There is one, and for a month before its end two. What they sign: certificates of machines, which are for clients alone,
and that of the port, which is for a server alone. Nothing else trusts them.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from gpuyard.access import certificates, machine_certificates
from gpuyard.access.certificates import Certified, is_due
from gpuyard.access.machine_certificates import AUTHORITY_LIFE, Authority, Issued
from gpuyard.control.tls import server_context, write_private
from gpuyard.model.errors import YardError


class MachineAuthorities:
    """The authorities, and the port's TLS. `context` is what a server listens with; every handshake takes what is
    current, so that nothing is restarted when an authority or a certificate is new."""

    def __init__(self, folder: Path, names: Sequence[str], yard_id: str, now: datetime) -> None:
        self.yard_id = yard_id
        self._folder, self._names = folder, tuple(names)
        self._lock = threading.Lock()
        self._all: tuple[Authority, ...] = ()
        self._shown: tuple[bytes, ...] = ()
        self.refresh(now)
        self.context = self._make(now)
        self.context.sni_callback = self._choose

    def refresh(self, now: datetime) -> bool:
        """Makes what is due; whether handshakes are different from now on.

        Raises YardError `tls_unusable`; what there was before stays then.
        """
        with self._lock:
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                found = self._kept(now)
                if machine_certificates.next_is_due(found, now):
                    found.append(self._another(now))
                self._all = tuple(found)
                shown = (self._server(now), *(one.held.certificate for one in self.trusted(now)))
            except (OSError, ValueError) as error:
                raise YardError("tls_unusable", path=str(self._folder), reason=str(error)) from error
            if shown == self._shown:
                return False
            self._current = self._make(now)
            self._shown = shown
            return True

    def trusted(self, now: datetime) -> list[Authority]:
        """Those that count now, the oldest first."""
        return machine_certificates.trusted(self._all, now)

    def bundle(self, now: datetime) -> str:
        """Their certificates (PEM), for a machine to trust."""
        return b"".join(one.held.certificate for one in self.trusted(now)).decode()

    def issue(self, key: ec.EllipticCurvePublicKey, name: str, now: datetime) -> Issued:
        """A machine's certificate. Raises ValueError where every authority has ended, which `refresh` mends."""
        signer = machine_certificates.signing(self._all, now)
        return machine_certificates.issue(signer, key, self.yard_id, name, now)

    def context_factory(self, *_: object) -> ssl.SSLContext:
        """What the web server asks for its context."""
        return self.context

    def _kept(self, now: datetime) -> list[Authority]:
        """Those of the folder. One that has ended goes: its key is of no use to anybody who should have it."""
        found: list[Authority] = []
        for path in sorted(self._folder.glob("authority-*.pem")):
            content = path.read_bytes()
            one = Authority.of(Certified(_part(content, b"CERTIFICATE"), _part(content, b"PRIVATE KEY")))
            if one.ends > now:
                found.append(one)
            else:
                path.unlink()
        return found

    def _another(self, now: datetime) -> Authority:
        name = f"gpuyard machines {self.yard_id} {now:%Y-%m-%d}"
        made = certificates.new_authority(name, now, AUTHORITY_LIFE)
        path = self._folder / f"authority-{certificates.fingerprint(made.certificate)[:16]}.pem"
        write_private(path, made.certificate + made.key)  # both in one file: there is never one without the other
        return Authority.of(made)

    def _server(self, now: datetime) -> bytes:
        """The port's own certificate, made anew where that is due."""
        signer = machine_certificates.signing(self._all, now).held
        path = self._folder / "server.pem"
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            if not is_due(content, signer.certificate, self._names, now):
                return content
        made = certificates.issue(signer, self._names, now)
        write_private(path, made.certificate + made.key)
        return made.certificate + made.key

    def _make(self, now: datetime) -> ssl.SSLContext:
        server = self._folder / "server.pem"
        context = server_context(server, server)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # a connection that is resumed would not be asked for its certificate again
        context.load_verify_locations(cadata=self.bundle(now))
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        connection.context = self._current  # pyright: ignore[reportAttributeAccessIssue] - documented for this callback


def _part(content: bytes, kind: bytes) -> bytes:
    """One block of a PEM file. Raises ValueError where it is not there."""
    begin, end = b"-----BEGIN " + kind + b"-----", b"-----END " + kind + b"-----\n"
    at = content.index(begin)
    return content[at : content.index(end, at) + len(end)]

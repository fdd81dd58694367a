"""What makes a machine itself: a key that never leaves its folder, the certificate for it, and the yard that it is of.

Each file is replaced as a whole. `identity.pem` holds key and certificate together and is written last: where it is,
the machine has joined. `pending.pem` is the key of a request that was not answered yet; it is written before the
request is sent, so that whatever is cut short, the same key asks again.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gpuyard.model.errors import YardError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Joined:
    """A yard that a machine is of. `address` is of its port for machines, `authorities` (PEM) what that is held
    against, `url` of the API that it was joined through."""

    name: str
    id: str  # as certificates name it: spiffe://<yard>/machine/<name>
    address: str
    authorities: str
    url: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A machine that joined, and when its certificate holds."""

    joined: Joined
    file: Path = field(repr=False)  # key and certificate
    begins: datetime
    ends: datetime

    def half_life(self) -> datetime:
        """When it is to be renewed."""
        return self.begins + (self.ends - self.begins) / 2


class MachineFolder:
    """A folder of mode 0700. Every method raises YardError `machine_state_unusable` where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def hold(self) -> None:
        """Keeps a second program out for as long as this one lives. Raises YardError `machine_running`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise YardError("machine_running", path=str(self.path)) from None
        except OSError as error:
            raise self._unusable(error) from error

    def release(self) -> None:
        """Lets a second program in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def identity(self) -> Identity | None:
        """Who this machine is; None where it has not joined."""
        from cryptography import x509

        file = self.path / "identity.pem"
        try:
            content = file.read_bytes()
            joined = Joined(**json.loads((self.path / "yard.json").read_text()))
            held = x509.load_pem_x509_certificate(content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise self._unusable(error) from error
        return Identity(joined, file, held.not_valid_before_utc, held.not_valid_after_utc)

    def pending_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of the request that was not answered yet, or a new one. Never the one that is in use."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        file = self.path / "pending.pem"
        with suppress(FileNotFoundError, ValueError):
            kept = serialization.load_pem_private_key(file.read_bytes(), None)
            if isinstance(kept, ec.EllipticCurvePrivateKey) and not self._in_use(kept):
                return kept
        made = ec.generate_private_key(ec.SECP256R1())
        self._write(file, _private(made))
        return made

    def save(self, joined: Joined, key: ec.EllipticCurvePrivateKey, certificate: str) -> None:
        """The answer to a request, whole or not at all.

        Raises YardError `yard_not_trusted` for a certificate that is not the one that was asked for.
        """
        problem = _unfit(joined, key, certificate)
        if problem is not None:
            raise YardError("yard_not_trusted", url=joined.address, reason=problem)
        # Its authorities are those of before and perhaps one more: good for the certificate of before, too.
        self._write(self.path / "yard.json", json.dumps(asdict(joined)).encode())
        self._write(self.path / "identity.pem", _private(key) + certificate.encode())
        with suppress(OSError):  # left behind, it is found to be in use the next time
            (self.path / "pending.pem").unlink()

    def _in_use(self, key: ec.EllipticCurvePrivateKey) -> bool:
        from cryptography import x509

        try:
            held = x509.load_pem_x509_certificate((self.path / "identity.pem").read_bytes())
        except (OSError, ValueError):
            return False
        return held.public_key() == key.public_key()

    def _write(self, path: Path, content: bytes) -> None:
        draft = path.with_suffix(".new")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> YardError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return YardError("machine_state_unusable", path=str(self.path), reason=reason)


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """What a machine sends in place of its key: proof that it has one, and the name that it asks for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


def _unfit(joined: Joined, key: ec.EllipticCurvePrivateKey, certificate: str) -> str | None:
    """What is wrong with a certificate that came; None where nothing is."""
    from cryptography import x509

    try:
        held = x509.load_pem_x509_certificate(certificate.encode())
        authorities = x509.load_pem_x509_certificates(joined.authorities.encode())
    except ValueError as error:
        return str(error)
    if held.public_key() != key.public_key():
        return "the certificate is for another key"
    if not any(_signed(held, one) for one in authorities):
        return "none of its authorities signed the certificate"
    return None


def _signed(held: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        held.verify_directly_issued_by(authority)
    except Exception:  # whatever is wrong with it
        return False
    return True


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

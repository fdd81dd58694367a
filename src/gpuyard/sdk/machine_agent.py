"""A machine at work: it says that it is there, tells of its cards, and renews its certificate, over connections that it
opens itself.

Level-triggered: each round looks at what is in the folder and does what is due. It may be killed at any instruction,
and the next round goes on from what was saved.
"""

from __future__ import annotations

import hashlib
import json
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

import gpuyard
from gpuyard.model.errors import YardError
from gpuyard.sdk.errors import refusal
from gpuyard.sdk.machine_identity import Identity, MachineFolder, signing_request
from gpuyard.sdk.machine_joining import SKEW_S

LOOK_EVERY_S = 60.0  # at the cards
TELL_ANYWAY_S = 3600.0  # although nothing is new
BACK_OFF_S = (1.0, 60.0)  # at first, and at most
_TIMEOUT_S = 20.0
_TRIED_AGAIN = frozenset({"unreachable", "too_many_requests", "storage_full", "store_unavailable", "internal"})
# The yard does not take what it was told of the cards, and will not the next time: no reason to fall silent.
_NOT_TOLD = frozenset({"card_of_another", "invalid_request", "request_too_large"})
# What OpenSSL calls a certificate by its dates: the clock of one of the two is wrong, or it has ended.
_BY_ITS_DATES = frozenset({9, 10})
# What the yard's TLS says of a certificate that it does not take.
_ALERTS = {
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "ended",
    "TLSV1_ALERT_UNKNOWN_CA": "unknown",
    "SSLV3_ALERT_BAD_CERTIFICATE": "unknown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "unknown",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "unknown",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "none",
}

Tell = Callable[[str, Mapping[str, object]], None]


@dataclass(slots=True)
class Agent:
    """One machine. `inventory` looks at its cards; `tell` is given sentences for people (a key, and its facts);
    `wall` and `monotonic_s` are its clocks."""

    folder: MachineFolder
    inventory: Callable[[], Mapping[str, Any]]
    tell: Tell
    wall: Callable[[], datetime]
    monotonic_s: Callable[[], float]
    failures: int = 0
    _heard: tuple[datetime, float] | None = None  # the yard's clock at the last heartbeat, and ours that never jumps
    _told: str | None = None  # the digest of the inventory that the yard has
    _not_told: tuple[str, str] | None = None  # why the yard did not take the last one, and which
    _looked_s: float | None = None
    _told_s: float = 0.0
    _skewed: bool = False
    _http: tuple[str, httpx.Client] | None = field(default=None, repr=False)

    def round(self) -> float:
        """Does what is due; how many seconds to wait for the next one. What may heal by itself is told and tried again,
        ever more slowly.

        Raises YardError `machine_not_joined`, `machine_refused` and `clock_differs`, which do not.
        """
        try:
            identity = self._identity()
            identity = self._renewed(identity)
            beat = self._send(
                identity, "POST", "/heartbeat", {"at": _text(self.wall()), "version": gpuyard.__version__}
            )
            self._hear(str(beat["now"]))
            self._tell_cards(identity, bool(beat["knows_cards"]))
        except YardError as error:
            if error.code not in _TRIED_AGAIN:
                raise
            self.failures += 1
            pause_s = min(BACK_OFF_S[1], BACK_OFF_S[0] * 2 ** min(self.failures - 1, 10))
            self.tell("tries_again", {"why": error, "seconds": f"{pause_s:g}"})
            return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - so that a rack does not come back at once
        if self.failures:
            self.tell("back", {"address": identity.joined.address})
        self.failures = 0
        return float(beat["every_s"])

    def close(self) -> None:
        """Closes its connection."""
        if self._http is not None:
            self._http[1].close()
            self._http = None

    def _identity(self) -> Identity:
        found = self.folder.identity()
        if found is None:
            raise YardError("machine_not_joined")
        return found

    def _renewed(self, identity: Identity) -> Identity:
        """A new key and certificate from half of its life on. What hinders that is told, and hinders nothing else."""
        if self._yard_time() < identity.half_life():
            return identity
        try:
            key = self.folder.pending_key()
            body = {"request": signing_request(key, identity.joined.name)}
            granted = self._send(identity, "POST", "/renew", body)
            joined = replace(identity.joined, address=granted["address"], authorities=granted["authorities"])
            self.folder.save(joined, key, granted["certificate"])
        except YardError as error:
            if error.code in {"machine_refused", "clock_differs"}:
                raise
            self.tell("not_renewed", {"why": error, "until": _text(identity.ends)})
            return identity
        self.tell("renewed", {"until": granted["until"]})
        return self._identity()

    def _tell_cards(self, identity: Identity, known: bool) -> None:
        now_s = self.monotonic_s()
        lately = self._looked_s is not None and now_s - self._looked_s < LOOK_EVERY_S
        if lately and (known or self._not_told is not None):
            return
        found = self.inventory()
        digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
        if not known or digest != self._told or now_s - self._told_s > TELL_ANYWAY_S:
            try:
                self._send(identity, "POST", "/inventory", found)
                self._told, self._told_s, self._not_told = digest, now_s, None
            except YardError as error:
                if error.code not in _NOT_TOLD:
                    raise
                if self._not_told != (error.code, digest):
                    self.tell("not_told", {"why": error})
                self._told, self._not_told = None, (error.code, digest)
        self._looked_s = now_s

    def _hear(self, now: str) -> None:
        """What time it is at the yard; told in words where the clocks differ."""
        there = datetime.fromisoformat(now)
        self._heard = there, self.monotonic_s()
        ahead_s = (self.wall() - there).total_seconds()
        if abs(ahead_s) > SKEW_S and not self._skewed:
            self.tell("clock", {"seconds": f"{ahead_s:+.0f}"})
        self._skewed = abs(ahead_s) > SKEW_S

    def _yard_time(self) -> datetime:
        """What time it is at the yard, as far as this machine knows: what its own clock is set to matters only before
        the first answer."""
        if self._heard is None:
            return self.wall()
        return self._heard[0] + timedelta(seconds=self.monotonic_s() - self._heard[1])

    def _send(self, identity: Identity, method: str, path: str, body: Mapping[str, Any]) -> Any:
        try:
            answer = self._client(identity).request(method, f"/v1/machine{path}", json=body)
        except httpx.HTTPError as error:
            self.close()
            raise self._unreachable(identity, error) from error
        if answer.is_error:
            raise refusal(answer.status_code, answer.content)
        return answer.json()

    def _client(self, identity: Identity) -> httpx.Client:
        """A connection that proves who this is; another one where the certificate is."""
        mark = f"{identity.file} {identity.begins} {identity.ends} {identity.joined.address}"
        if self._http is not None and self._http[0] == mark:
            return self._http[1]
        self.close()
        try:
            context = ssl.create_default_context(cadata=identity.joined.authorities)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(identity.file)
        except (OSError, ValueError) as error:
            raise YardError("machine_state_unusable", path=str(identity.file), reason=str(error)) from error
        limits = httpx.Limits(max_connections=1, keepalive_expiry=60)
        client = httpx.Client(base_url=identity.joined.address, verify=context, timeout=_TIMEOUT_S, limits=limits)
        self._http = (mark, client)
        return client

    def _unreachable(self, identity: Identity, error: Exception) -> YardError:
        """A broken connection: because of dates, because the certificate does not count, or for a while."""
        url = identity.joined.address
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                if cause.verify_code in _BY_ITS_DATES:
                    return YardError("clock_differs", url=url, here=_text(self.wall()), reason=cause.verify_message)
                return YardError("yard_not_trusted", url=url, reason=cause.verify_message)
            if isinstance(cause, ssl.SSLError) and (because := _ALERTS.get(str(cause.reason))) is not None:
                return YardError("machine_refused", refusal=because)
            cause = cause.__cause__ or cause.__context__
        if self._yard_time() >= identity.ends:
            return YardError("machine_refused", refusal="ended")
        return YardError("unreachable", url=url, reason=str(error) or type(error).__name__)


def now() -> datetime:
    """This machine's wall clock."""
    return datetime.now(UTC)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

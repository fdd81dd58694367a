"""How a machine joins a yard: it pins the yard by what its token says, and sends a request in place of its key."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from gpuyard.model.errors import YardError
from gpuyard.model.join_tokens import JoinToken, parse_join_token
from gpuyard.model.names import check_name
from gpuyard.sdk import machine_calls as calls
from gpuyard.sdk.client import Client
from gpuyard.sdk.machine_identity import Identity, Joined, MachineFolder, signing_request
from gpuyard.sdk.pinning import fetch_authority

SKEW_S = 300.0  # by which clocks may differ without a word


def join(
    folder: MachineFolder, url: str, token: str, name: str, again: bool = False, ca: str | None = None
) -> tuple[Identity, float]:
    """Joins; the identity, and by how many seconds this machine's clock is ahead of the yard's. Cut short at any
    place, it is to be called again with the same token. `again`: even where the machine has joined already. `ca` (PEM):
    trusted where the token names no authority, in place of what the system trusts.

    Raises YardError `join_token_invalid`, `machine_already_joined`, `machine_state_unusable`, `join_not_trusted`,
    `join_in_clear`, and what the yard refuses.
    """
    parsed = parse_join_token(token)
    check_name(name)
    known = folder.identity()
    if known is not None and not again:
        raise YardError("machine_already_joined", name=known.joined.name, url=known.joined.url)
    key = folder.pending_key()
    try:
        with Client(url, ca=_trusted(url, parsed, ca)) as client:
            granted = client.send(calls.join(parsed.secret, name, signing_request(key, name)))
    except YardError as error:
        if error.code == "yard_not_trusted":
            raise YardError("join_not_trusted", **error.params) from error
        raise
    joined = Joined(granted["name"], granted["id"], granted["address"], granted["authorities"], url.rstrip("/"))
    folder.save(joined, key, granted["certificate"])
    saved = folder.identity()
    if saved is None:
        raise YardError("machine_not_joined")
    ahead = datetime.now(UTC) - datetime.fromisoformat(granted["now"])
    return saved, ahead.total_seconds()


def _trusted(url: str, token: JoinToken, ca: str | None) -> str | None:
    """The authority that the token pins (PEM); None where the system's own trust decides.

    Raises YardError `yard_not_trusted`, `join_in_clear` before anything secret is sent.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        return ca if token.ca_sha256 is None else fetch_authority(url, token.ca_sha256)
    if token.ca_sha256 is not None or not _is_loopback(parts.hostname or ""):
        raise YardError("join_in_clear", url=url)
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Tenants' key pairs: made here, or brought along. Of a private key nothing is kept."""

from __future__ import annotations

import base64
import hashlib

from gpuyard.control.yard import Yard
from gpuyard.model.errors import YardError
from gpuyard.model.events import Event
from gpuyard.model.names import new_id
from gpuyard.store import events, key_pairs
from gpuyard.store.key_pairs import KeyPair

MOST_BYTES = 16_384


def create(yard: Yard, tenant_id: str, name: str, rsa: bool, actor: str) -> tuple[KeyPair, str]:
    """A new pair, and its private half in PEM, which is shown this once.

    Raises YardError `name_taken`.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.asymmetric import rsa as rsa_keys

    private = rsa_keys.generate_private_key(65537, 2048) if rsa else ed25519.Ed25519PrivateKey.generate()
    layout = serialization.PrivateFormat.TraditionalOpenSSL if rsa else serialization.PrivateFormat.OpenSSH
    pem = private.private_bytes(serialization.Encoding.PEM, layout, serialization.NoEncryption()).decode()
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return _keep(yard, tenant_id, name, public.decode(), actor), pem


def bring(yard: Yard, tenant_id: str, name: str, public_key: str, actor: str) -> KeyPair:
    """A pair whose private half stays with its owner.

    Raises YardError `name_taken` or `invalid_public_key`.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        if len(public_key) > MOST_BYTES:
            raise ValueError
        serialization.load_ssh_public_key(public_key.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise YardError("invalid_public_key") from None
    return _keep(yard, tenant_id, name, public_key.strip(), actor)


def delete(yard: Yard, tenant_id: str, name: str, actor: str) -> bool:
    """Forgets one; whether there was one. What was launched with it keeps it."""
    now_us = yard.clock.now_us()
    with yard.store.write() as c:
        gone = key_pairs.delete(c, tenant_id, name)
        if gone:
            events.append(c, [Event("key_pair.deleted", name, now_us, tenant_id, actor)])
    return gone


def _keep(yard: Yard, tenant_id: str, name: str, public_key: str, actor: str) -> KeyPair:
    now_us = yard.clock.now_us()
    blob = base64.b64decode(public_key.split()[1])
    fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    pair = KeyPair(tenant_id, name, new_id("key", now_us), public_key, fingerprint, now_us)
    with yard.store.write() as c:
        key_pairs.insert(c, pair)
        events.append(c, [Event("key_pair.added", pair.id, now_us, tenant_id, actor, {"name": name})])
    return pair

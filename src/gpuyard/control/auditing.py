"""Writes the audit log: a decision about a change commits with the change, every other one within a second.

What is personal is sealed (XChaCha20-Poly1305) under a key of its subject; that key is sealed with the yard's, which
lies beside the database and not in it. The checkpoints' signing key lies there too.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from gpuyard.access.audit.entries import Entry, leaf
from gpuyard.access.audit.notes import checkpoint, sign, verifier_key
from gpuyard.access.audit.tree import Frontier
from gpuyard.control.sealing import Sealer
from gpuyard.model.errors import YardError
from gpuyard.model.times import Clock
from gpuyard.store import audit
from gpuyard.store.database import Store

if TYPE_CHECKING:
    from nacl.signing import SigningKey

CHECKPOINT_EVERY_US = 60_000_000
_CARRIED: ContextVar[list[Entry] | None] = ContextVar("decisions that the next change carries", default=None)
_KEY = "audit subject"


class Auditor:
    """One yard's audit log. `note` may be called from any thread; `settle` is called by the loops."""

    def __init__(self, store: Store, clock: Clock, sealer: Sealer, origin: str) -> None:
        self.origin = origin
        self._store, self._clock, self._sealer = store, clock, sealer
        self._lock = threading.Lock()
        self._waiting: dict[tuple[object, ...], Entry] = {}
        self._keys: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._next_checkpoint_us = 0
        self._signer: SigningKey | None = None
        store.before_commit = self._with_the_change

    def note(self, entry: Entry) -> None:
        """A decision was made. Inside `carried` it waits for the change that it is about."""
        held = _CARRIED.get()
        if held is not None:
            held.append(entry)
            return
        with self._lock:
            key = entry.same()
            known = self._waiting.get(key)
            self._waiting[key] = entry if known is None else known.again(entry)

    @contextmanager
    def carried(self) -> Iterator[None]:
        """Decisions inside commit with the first change inside, or, where there is none, with the next settling."""
        held: list[Entry] = []
        before = _CARRIED.set(held)
        try:
            yield
        finally:
            _CARRIED.reset(before)
            for entry in held:
                self.note(entry)

    def _with_the_change(self, c: Connection) -> Callable[[], None] | None:
        """The store is about to commit: what is carried goes along. Returns what is to be done once it has."""
        held = _CARRIED.get()
        if not held:
            return None
        written = list(held)
        self._append(c, written)
        return lambda: held.__delitem__(slice(0, len(written)))

    def settle(self, now_us: int) -> None:
        """Writes down what waits, and once a minute a checkpoint of what is new.

        Raises YardError where the store refuses; what waits goes on waiting then.
        """
        with self._lock:
            entries = list(self._waiting.values())
            self._waiting = {}
        if entries:
            try:
                with self._store.write(tells=False) as c:
                    self._append(c, entries)
            except BaseException:
                for entry in entries:
                    self.note(entry)
                raise
        if now_us >= self._next_checkpoint_us:
            self.sign_checkpoint(now_us)
            self._next_checkpoint_us = now_us + CHECKPOINT_EVERY_US

    def sign_checkpoint(self, now_us: int) -> audit.Checkpoint | None:
        """A checkpoint over everything that is written, unless there is one; None of an empty log."""
        with self._store.read() as c:
            known = audit.newest_checkpoint(c)
            size = audit.size(c)
            if size == 0 or (known is not None and known.size == size):
                return known
            tree = Frontier() if known is None else Frontier(known.size, known.frontier)
            for line in audit.leaves(c, tree.size, size):
                tree.add(line.encode())
        if tree.size != size:
            raise YardError("audit_broken", reason="audit_missing", entry=tree.size)
        note = sign(checkpoint(self.origin, size, tree.root()), self.origin, self._signing_key())
        signed = audit.Checkpoint(size, now_us, tuple(tree.roots), note)
        with self._store.write(tells=False) as c:
            audit.add_checkpoint(c, signed)
        return signed

    def verifier_key(self) -> str:
        """The public key, as others pin it."""
        return verifier_key(self.origin, bytes(self._signing_key().verify_key))

    def shred(self, tenant_id: str, name: str) -> str:
        """Makes what the log holds of a user unreadable for ever; the subject's id stays."""
        self.settle(self._clock.now_us())  # what waits would otherwise make a key anew
        with self._store.write() as c:
            gone = audit.shred(c, tenant_id, name, self._clock.now_us())
        self._keys.pop((tenant_id, name), None)
        return gone

    def opened(self, line: str, keys: Mapping[str, bytes]) -> dict[str, object] | None:
        """What is personal in an entry; None where its subject was shredded."""
        from nacl.secret import Aead

        entry = json.loads(line)
        key = keys.get(entry["subject"])
        if key is None:
            return None
        sealed = base64.b64decode(entry["sealed"])
        return json.loads(Aead(key).decrypt(sealed, entry["subject"].encode()))

    def subject_keys(self, c: Connection) -> dict[str, bytes]:
        """The keys of every subject that was not shredded."""
        return {
            one.id: base64.b64decode(self._sealer.open({_KEY: one.sealed_key})[_KEY])
            for one in audit.subjects(c)
            if one.sealed_key is not None
        }

    def _append(self, c: Connection, entries: list[Entry]) -> None:
        audit.append(c, [(entry.at_us, entry.tenant_id, self._leaf(c, entry)) for entry in entries])

    def _leaf(self, c: Connection, entry: Entry) -> Callable[[int], str]:
        from nacl.secret import Aead

        subject, key = self._subject(c, entry.tenant_id, entry.user)
        plain = json.dumps({"user": entry.user, **entry.personal}).encode()
        sealed = base64.b64encode(Aead(key).encrypt(plain, subject.encode())).decode()
        return lambda sequence: leaf(entry, sequence, subject, sealed).decode()

    def _subject(self, c: Connection, tenant_id: str, user: str) -> tuple[str, bytes]:
        known = self._keys.get((tenant_id, user))
        if known is not None:
            return known
        stored = audit.subject(c, tenant_id, user)
        if stored is not None and stored.sealed_key is not None:
            found = stored.id, base64.b64decode(self._sealer.open({_KEY: stored.sealed_key})[_KEY])
            self._keys[tenant_id, user] = found
            return found
        key = secrets.token_bytes(32)
        sealed = self._sealer.seal({_KEY: base64.b64encode(key).decode()})[_KEY]
        made = "sb-" + secrets.token_hex(8)  # random: it must not tell whom it stands for
        audit.add_subject(c, audit.Subject(made, tenant_id, user, sealed))
        return made, key  # kept at hand only once it is certain to be committed: the next entry looks it up

    def _signing_key(self) -> SigningKey:
        from nacl.signing import SigningKey

        if self._signer is None:
            self._signer = SigningKey(self._sealer.file_of("audit.key", lambda: os.urandom(32)))
        return self._signer

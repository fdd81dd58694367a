"""Checks an audit log, or a proof about it, by itself: nothing here is shared with what writes the log.

What is checked is what a stranger could: the checkpoint's signature, that the entries hash to its root (RFC 9162),
that they are numbered without a gap and written in the one canonical way, and that the log goes on from a checkpoint
that was kept earlier.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gpuyard.model.errors import YardError


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint whose signature holds."""

    origin: str
    size: int
    root: bytes
    key: str


def read_note(note: str, key: str) -> Signed:
    """A signed checkpoint. `key` is `name+id+key`, as it was pinned or is told.

    Raises YardError `audit_broken`.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    name, _, rest = key.partition("+")
    told_id, _, told_key = rest.partition("+")
    text, blank, signatures = note.rpartition("\n\n")
    lines = text.split("\n")
    try:
        raw = base64.b64decode(told_key, validate=True)
        size, root = int(lines[1]), base64.b64decode(lines[2], validate=True)
        public = Ed25519PublicKey.from_public_bytes(raw[1:])
    except (ValueError, IndexError, binascii.Error):
        raise _broken("note") from None
    wanted = hashlib.sha256(f"{name}\n".encode() + raw).digest()[:4]
    if not blank or raw[:1] != b"\x01" or told_id != wanted.hex() or len(root) != 32 or lines[1] != str(size):
        raise _broken("note")
    for line in signatures.splitlines():
        signed = _signature(line, name)
        if signed is None or signed[:4] != wanted:
            continue
        try:
            public.verify(signed[4:], (text + "\n").encode())
        except InvalidSignature:
            raise _broken("signature") from None
        return Signed(lines[0], size, root, key)
    raise _broken("signature")


def _signature(line: str, name: str) -> bytes | None:
    start = f"\u2014 {name} "
    if not line.startswith(start):
        return None
    try:
        return base64.b64decode(line[len(start) :], validate=True)
    except binascii.Error:
        return None


def check_log(lines: Iterable[str], key: str | None = None, kept: Signed | None = None) -> Signed:
    """A whole export: the checkpoint that it stands for. `key` is one that was pinned, `kept` a checkpoint of before.

    Raises YardError `audit_unreadable` for what is no export, and `audit_broken`.
    """
    every = iter(lines)
    head = _head(every)
    signed = read_note(head["note"], key or head["key"])
    if kept is not None and kept.size > signed.size:
        raise _broken("shorter", signed.size)
    stack: list[tuple[int, bytes]] = []  # (height, root) of whole subtrees, the highest first
    count = 0
    for line in every:
        _check_entry(line, count)
        found, height = hashlib.sha256(b"\0" + line.encode()).digest(), 0
        while stack and stack[-1][0] == height:
            found = hashlib.sha256(b"\1" + stack.pop()[1] + found).digest()
            height += 1
        stack.append((height, found))
        count += 1
        if kept is not None and count == kept.size and _fold(stack) != kept.root:
            raise _broken("rewritten", count)
    if count != signed.size:
        raise _broken("missing", count)
    if _fold(stack) != signed.root:
        raise _broken("root", count)
    return signed


def _head(lines: Iterator[str]) -> Mapping[str, str]:
    try:
        head = json.loads(next(lines))
        if head["gpuyard_audit"] != 1 or not isinstance(head["note"], str) or not isinstance(head["key"], str):
            raise ValueError(head)
    except (StopIteration, ValueError, KeyError, TypeError):
        raise YardError("audit_unreadable", path="--", reason="head") from None
    return head


def _check_entry(line: str, number: int) -> None:
    try:
        value = json.loads(line)
        same = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == line
    except ValueError:
        raise _broken("entry", number) from None
    if not same:
        raise _broken("canonical", number)
    if not isinstance(value, dict) or value.get("seq") != number:
        raise _broken("number", number)


def _fold(stack: list[tuple[int, bytes]]) -> bytes:
    found = b""
    for _, root in reversed(stack):
        found = root if not found else hashlib.sha256(b"\1" + root + found).digest()
    return found or hashlib.sha256().digest()


def check_inclusion(leaf: str, index: int, path: list[str], signed: Signed) -> None:
    """That an entry is in the log (RFC 9162, 2.1.3.2). Raises YardError `audit_broken`."""
    if index >= signed.size or index < 0:
        raise _broken("number", index)
    at, last, found = index, signed.size - 1, hashlib.sha256(b"\0" + leaf.encode()).digest()
    for step in _decoded(path):
        if last == 0:
            raise _broken("proof", index)
        if at & 1 or at == last:
            found = hashlib.sha256(b"\1" + step + found).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\1" + found + step).digest()
        at, last = at >> 1, last >> 1
    if last != 0 or found != signed.root:
        raise _broken("proof", index)


def check_consistency(kept: Signed, path: list[str], signed: Signed) -> None:
    """That the log goes on from a checkpoint that was kept (RFC 9162, 2.1.4.2). Raises YardError `audit_broken`."""
    steps = _decoded(path)
    if kept.size == signed.size:
        if steps or kept.root != signed.root:
            raise _broken("rewritten", kept.size)
        return
    if not 0 < kept.size < signed.size:
        raise _broken("shorter", signed.size)
    if kept.size & (kept.size - 1) == 0:
        steps.insert(0, kept.root)
    if not steps:
        raise _broken("proof", kept.size)
    at, last = kept.size - 1, signed.size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise _broken("proof", kept.size)
        if at & 1 or at == last:
            before = hashlib.sha256(b"\1" + step + before).digest()
            after = hashlib.sha256(b"\1" + step + after).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            after = hashlib.sha256(b"\1" + after + step).digest()
        at, last = at >> 1, last >> 1
    if last != 0 or before != kept.root or after != signed.root:
        raise _broken("rewritten", kept.size)


def _decoded(path: list[str]) -> list[bytes]:
    try:
        return [base64.b64decode(step, validate=True) for step in path]
    except (ValueError, TypeError):
        raise _broken("proof") from None


def _broken(reason: str, entry: int | str = "--") -> YardError:
    return YardError("audit_broken", reason=f"audit_{reason}", entry=entry)

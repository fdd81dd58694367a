"""The audit log's tree, proofs and checkpoints: what writes them against what checks them, which share no code."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from gpuyard.access.audit.entries import Entry, leaf
from gpuyard.access.audit.notes import checkpoint, sign, verifier_key
from gpuyard.access.audit.tree import Frontier, consistency, inclusion, leaf_hash
from gpuyard.model.errors import YardError
from gpuyard.sdk.audit_check import Signed, check_consistency, check_inclusion, check_log, read_note

# The leaves and roots that the implementations of certificate transparency test themselves with.
LEAVES = [
    bytes.fromhex(x)
    for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
KEY = SigningKey(b"k" * 32)
NAME = "gpuyard/yd-1"
PINNED = verifier_key(NAME, bytes(KEY.verify_key))


def lines_of(count: int) -> list[str]:
    entry = Entry(1_790_000_000_000_000, "tn-1", "bob", "member", "tk-1", "ec2:RunInstances", "arn", True, "allowed")
    return [leaf(replace(entry, count=n + 1), n, "sb-1", "c2VhbGVk").decode() for n in range(count)]


def root_of(lines: list[str]) -> bytes:
    tree = Frontier()
    for line in lines:
        tree.add(line.encode())
    return tree.root()


def note_of(lines: list[str], key: SigningKey = KEY) -> str:
    return sign(checkpoint(NAME, len(lines), root_of(lines)), NAME, key)


def export_of(lines: list[str]) -> list[str]:
    return [json.dumps({"gpuyard_audit": 1, "key": PINNED, "note": note_of(lines)}), *lines]


def signed_of(lines: list[str]) -> Signed:
    return read_note(note_of(lines), PINNED)


def encoded(path: list[bytes]) -> list[str]:
    return [base64.b64encode(step).decode() for step in path]


def test_roots_are_those_of_certificate_transparency() -> None:
    tree = Frontier()
    assert tree.root() == hashlib.sha256().digest()
    for value, root in zip(LEAVES, ROOTS, strict=True):
        tree.add(value)
        assert tree.root().hex() == root


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.data())
def test_every_proof_holds_and_no_other_one_does(size: int, data: st.DataObject) -> None:
    lines = lines_of(size)
    hashes = [leaf_hash(line.encode()) for line in lines]
    signed = signed_of(lines)
    index = data.draw(st.integers(0, size - 1))
    path = encoded(inclusion(hashes, index))
    check_inclusion(lines[index], index, path, signed)
    other = data.draw(st.integers(0, size).filter(lambda n: n != index))
    with pytest.raises(YardError):
        check_inclusion(lines[index], other, path, signed)
    with pytest.raises(YardError):
        check_inclusion(lines[index] + " ", index, path, signed)
    with pytest.raises(YardError):
        check_inclusion(lines[index], index, [*path, path[0] if path else encoded([b"x" * 32])[0]], signed)
    smaller = data.draw(st.integers(1, size))
    kept = signed_of(lines[:smaller])
    check_consistency(kept, encoded(consistency(hashes, smaller)), signed)
    with pytest.raises(YardError):
        check_consistency(replace(kept, root=b"x" * 32), encoded(consistency(hashes, smaller)), signed)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.integers(0, 40))
def test_a_tree_that_was_put_down_and_taken_up_again_is_the_same(first: int, more: int) -> None:
    lines = lines_of(first + more)
    tree = Frontier()
    for line in lines[:first]:
        tree.add(line.encode())
    again = Frontier(tree.size, tree.roots)
    for line in lines[first:]:
        again.add(line.encode())
    assert again.root() == root_of(lines)


def test_a_frontier_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError):
        Frontier(3, [b"x" * 32])


@pytest.mark.parametrize("count", [1, 2, 7, 8, 33])
def test_a_whole_log_holds(count: int) -> None:
    lines = lines_of(count)
    assert check_log(export_of(lines), PINNED).size == count
    assert check_log(export_of(lines), None, signed_of(lines[: max(1, count // 2)])).size == count


def broken(lines: list[str], reason: str, kept: Signed | None = None, key: str | None = PINNED) -> None:
    with pytest.raises(YardError) as refused:
        check_log(lines, key, kept)
    assert refused.value.params["reason"] == reason


def test_whatever_is_changed_in_a_log_is_found() -> None:
    lines = lines_of(9)
    whole = export_of(lines)
    broken([whole[0], *lines[:4], lines[4].replace("true", "false"), *lines[5:]], "audit_root")
    broken([*whole, lines_of(10)[9]], "audit_missing")
    broken(whole[:-1], "audit_missing")
    broken([whole[0], lines[1], lines[0], *lines[2:]], "audit_number")
    broken([whole[0], *lines[:8], lines[8].replace(",", ", ")], "audit_canonical")
    broken([whole[0], "nonsense"], "audit_entry")
    broken([], "head")
    broken(["{}"], "head")
    changed = [*lines[:4], lines[4].replace("true", "false"), *lines[5:]]
    broken(export_of(changed), "audit_rewritten", signed_of(lines[:6]))
    broken(export_of(lines[:3]), "audit_shorter", signed_of(lines))


def test_a_checkpoint_of_another_key_or_with_a_changed_byte_is_refused() -> None:
    lines = lines_of(3)
    stranger = SigningKey(b"s" * 32)
    for note in (note_of(lines, stranger), note_of(lines).replace("\n3\n", "\n4\n"), note_of(lines)[:-9], "", "\n\n"):
        with pytest.raises(YardError):
            read_note(note, PINNED)
    for key in ("", "a+b+c", PINNED.replace("yd-1", "yd-2"), PINNED[:-4]):
        with pytest.raises(YardError):
            read_note(note_of(lines), key)


def test_entries_are_in_the_canonical_form_of_rfc_8785() -> None:
    entry = Entry(0, "租户", "bob", "member", "tk", "a", "r", False, "role", ("x/1",), {"é": "\u20ac", "a": ("b",)})
    written = leaf(entry, 0, "sb", "").decode()
    assert written.startswith('{"action":"a","allowed":false,"at":"1970-01-01T00:00:00')
    assert '"context":{"a":["b"],"é":"€"}' in written
    assert '"tenant":"租户"' in written
    assert json.dumps(json.loads(written), sort_keys=True, separators=(",", ":"), ensure_ascii=False) == written

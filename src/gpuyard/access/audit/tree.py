"""The Merkle tree of RFC 6962 (RFC 9162, section 2): its root, and the proofs that an entry is in it and that a larger
tree goes on from a smaller one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(leaf: bytes) -> bytes:
    """Of one entry."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """As much of a tree as is needed to make it larger: the roots of its whole subtrees, the largest first."""

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if size.bit_count() != len(roots):
            raise ValueError(f"a tree of {size} has {size.bit_count()} whole subtrees, not {len(roots)}")
        self.size = size
        self.roots = list(roots)

    def add(self, leaf: bytes) -> None:
        """One more entry."""
        found = leaf_hash(leaf)
        size = self.size
        while size & 1:  # as an addition carries
            found = node_hash(self.roots.pop(), found)
            size >>= 1
        self.roots.append(found)
        self.size += 1

    def root(self) -> bytes:
        """The tree's root; that of an empty tree is the hash of nothing."""
        if not self.roots:
            return hashlib.sha256().digest()
        found = self.roots[-1]
        for larger in reversed(self.roots[:-1]):
            found = node_hash(larger, found)
        return found


def inclusion(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The proof that entry `index` is in the tree over these leaf hashes. Raises ValueError where it is not."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"there is no entry {index} in a tree of {len(hashes)}")
    if len(hashes) == 1:
        return []
    cut = _cut(len(hashes))
    if index < cut:
        return [*inclusion(hashes[:cut], index), _root(hashes[cut:])]
    return [*inclusion(hashes[cut:], index - cut), _root(hashes[:cut])]


def consistency(hashes: Sequence[bytes], smaller: int) -> list[bytes]:
    """The proof that this tree goes on from its first `smaller` entries. Raises ValueError where it cannot."""
    if not 0 < smaller <= len(hashes):
        raise ValueError(f"a tree of {len(hashes)} does not go on from one of {smaller}")
    return [] if smaller == len(hashes) else _subproof(hashes, smaller, True)


def _subproof(hashes: Sequence[bytes], smaller: int, whole: bool) -> list[bytes]:
    if smaller == len(hashes):
        return [] if whole else [_root(hashes)]
    cut = _cut(len(hashes))
    if smaller <= cut:
        return [*_subproof(hashes[:cut], smaller, whole), _root(hashes[cut:])]
    return [*_subproof(hashes[cut:], smaller - cut, False), _root(hashes[:cut])]


def _root(hashes: Sequence[bytes]) -> bytes:
    level = list(hashes)
    while len(level) > 1:
        above = [node_hash(level[n], level[n + 1]) for n in range(0, len(level) - 1, 2)]
        level = above if len(level) % 2 == 0 else [*above, level[-1]]
    return level[0]


def _cut(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1

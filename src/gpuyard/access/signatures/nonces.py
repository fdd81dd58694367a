"""The nonces of requests that could still be sent again: each is taken once.

Kept in memory, for proven requests alone, so that nobody without a key can fill it. What it forgets when a yard starts
anew, launches do not: theirs are written down with what they launched.
"""

from __future__ import annotations

import heapq
import threading

MOST_PER_KEY = 200_000


class Nonces:
    """(key, nonce) until the moment from which the signature is too old anyway."""

    def __init__(self, most_per_key: int = MOST_PER_KEY) -> None:
        self._most = most_per_key
        self._seen: dict[str, set[str]] = {}
        self._ends: dict[str, list[tuple[int, str]]] = {}
        self._lock = threading.Lock()

    def take(self, key_id: str, nonce: str, until_us: int, now_us: int) -> bool:
        """False where it was taken before, or where the key has sent more than can be remembered."""
        with self._lock:
            seen = self._seen.setdefault(key_id, set())
            ends = self._ends.setdefault(key_id, [])
            while ends and ends[0][0] < now_us:
                seen.discard(heapq.heappop(ends)[1])
            if nonce in seen or len(seen) >= self._most:
                return False
            seen.add(nonce)
            heapq.heappush(ends, (until_us, nonce))
            return True

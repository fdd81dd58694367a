"""When tokens were last used, to the hour: noted in memory at each request, and written down by the loops."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuyard.store import tenants
from gpuyard.store.database import Store

EVERY_US = 3_600_000_000


@dataclass(slots=True)
class TokenUses:
    """What is not written yet, and when each token was written last."""

    _new: dict[str, int] = field(default_factory=dict[str, int])
    _written: dict[str, int] = field(default_factory=dict[str, int])

    def note(self, token_id: str, now_us: int) -> None:
        """A token was used. Costs two look-ups."""
        if now_us - self._written.get(token_id, 0) >= EVERY_US:
            self._new[token_id] = now_us

    def settle(self, store: Store) -> None:
        """Writes down what is new.

        Raises YardError where the store refuses; it goes on waiting then.
        """
        if not self._new:
            return
        found = dict(self._new)
        with store.write(tells=False) as c:
            tenants.note_uses(c, found)
        newest = max(found.values())  # of older ones the next use is written anyway: sessions come and go for ever
        kept = {**self._written, **found}
        self._written = {token_id: at_us for token_id, at_us in kept.items() if newest - at_us < EVERY_US}
        for token_id, at_us in found.items():
            if self._new.get(token_id) == at_us:
                del self._new[token_id]

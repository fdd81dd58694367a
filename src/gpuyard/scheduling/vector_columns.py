"""The tables of the numpy engine: card states as rows, what the mix says of each, and classes of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpuyard.model.units import SHARE_WHOLE_PPM
from gpuyard.scheduling.engine import NEVER, Typical
from gpuyard.scheduling.state import EXCLUSIVE, ModelCosts, Want

Ints = NDArray[np.int64]

PLENTY: Final = 65535
ABSENT: Final = 0  # the row of a card that is not there
_STEP_PPM: Final = SHARE_WHOLE_PPM // 100
_MOST_ROOMS: Final = 16  # card sizes that have a table of their own, as in the kernel

CardState = tuple[int, int, int, int, int, int]  # share, memory, mode, model, share in all, memory in all


def is_empty(state: CardState) -> bool:
    """Whether nothing is on a card."""
    return state[0] == state[4] and state[1] == state[5]


class Columns:
    """Every state that a card was ever in, by row, and what the mix says of it."""

    def __init__(self, costs: Sequence[ModelCosts] = ()) -> None:
        self.model_costs = costs
        self.states: list[CardState] = []
        self._rows: dict[CardState, int] = {}
        self.mix: list[Typical] = []
        self.filled: dict[int, list[int]] = {}
        self._first_filled = [0] * 101
        self._grow(256)
        self.states.append((0, 0, 0, 0, -1, -1))

    def _grow(self, room: int) -> None:
        """Room for so many rows; what is known is measured anew."""
        kinds = max(1, len(self.mix))
        self.copies: Ints = np.zeros((room, kinds), np.int64)
        self.share: Ints = np.zeros(room, np.int64)
        self.waste: Ints = np.zeros(room, np.int64)
        self.empty: Ints = np.zeros(room, np.int64)
        self.tier: Ints = np.zeros(room, np.int64)
        self.costs: Ints = np.zeros((room, 3), np.int64)
        self.room_total: Ints = np.zeros(room, np.int64)
        for row in range(1, len(self.states)):
            self._measure(row)

    def row(self, state: CardState) -> int:
        """The row of a state, a new one where it was never seen."""
        found = self._rows.get(state)
        if found is None:
            found = self._rows[state] = len(self.states)
            self.states.append(state)
            if found == len(self.share):
                self._grow(2 * found)
            else:
                self._measure(found)
        return found

    def set_mix(self, mix: Sequence[Typical], tiers: Sequence[int]) -> None:
        """What is expected to come, and how dear each model is."""
        self.mix, self.tiers, self.filled = list(mix), tiers, {}
        self._grow(len(self.share))

    tiers: Sequence[int] = ()

    def _measure(self, row: int) -> None:
        share, room, _, model, _, room_total = state = self.states[row]
        self.share[row], self.empty[row] = share, is_empty(state)
        self.costs[row] = self.model_costs[model] if model < len(self.model_costs) else 0
        self.room_total[row] = room_total
        self.tier[row] = self.tiers[model] if model < len(self.tiers) else 0
        for at, (want, _) in enumerate(self.mix):
            self.copies[row, at] = _copies(want, state)
        room_ppm = room * SHARE_WHOLE_PPM // room_total if room_total > 0 else share
        tighter = min(share, room_ppm) // _STEP_PPM
        self.waste[row] = (share + room_ppm) // 2 - self._filled_of(room_total)[tighter]

    def _filled_of(self, room_total: int) -> list[int]:
        """What random arrivals use of a rest of 0 to 100 percent of a card before nothing fits it any more, in ppm."""
        known = self.filled.get(room_total)
        if known is not None:
            return known
        if len(self.filled) == _MOST_ROOMS:
            return next(iter(self.filled.values()))
        filled: list[int] = []
        needs = [(need, weight) for want, weight in self.mix if (need := _need(want, room_total)) > 0]
        for rest in range(101):
            fitting = [(need, weight) for need, weight in needs if need <= rest]
            weight = sum(weight for _, weight in fitting)
            used = sum(weight * (need * _STEP_PPM + filled[rest - need]) for need, weight in fitting)
            filled.append(used // weight if weight else 0)
        self.filled[room_total] = filled
        return filled


def _copies(want: Want, state: CardState) -> int:
    share, room, mode, model, *_ = state
    empty = is_empty(state)
    if want.slices == 0 or not want.models >> model & 1 or mode not in (0, want.mode):
        return 0
    by_share = share // want.share_ppm if want.share_ppm > 0 else PLENTY
    by_room = room // want.card_memory_bytes if want.card_memory_bytes > 0 else PLENTY
    fit = min(by_share, by_room, 1 if want.slices > 1 else PLENTY)
    return int(empty) if want.mode == EXCLUSIVE and fit > 0 else fit


def _need(want: Want, room_total: int) -> int:
    """How many percent of a card of this size one slice needs, by its tighter dimension; 0 for a request without."""
    if want.slices == 0:
        return 0
    by_room = -(-want.card_memory_bytes * 100 // room_total) if room_total > 0 else 0
    return max(-(-want.share_ppm * 100 // SHARE_WHOLE_PPM), by_room)


class Kind:
    """A class of requests with what was worked out for it."""

    def __init__(self, want: Want, nodes: int) -> None:
        self.want = want
        self.after: Ints = np.zeros(0, np.int64)  # by row: what taking leaves, -1 where it does not fit
        self.cost: Ints = np.full(nodes, NEVER, np.int64)
        self.chosen: Ints = np.zeros((nodes, max(1, want.slices)), np.int64)  # by node: the cards that cost so much
        self.seen = -1  # how far in the log of touched nodes
        self.epoch = -1

    def know(self, columns: Columns) -> Ints:
        """`after` for every row that there is."""
        while len(self.after) < len(columns.states):
            new = [self._after(columns, row) for row in range(len(self.after), len(columns.states))]
            self.after = np.concatenate([self.after, np.array(new, np.int64)])
        return self.after

    def _after(self, columns: Columns, row: int) -> int:
        share, room, mode, model, share_total, room_total = state = columns.states[row]
        want = self.want
        fits = row != ABSENT and want.models >> model & 1 and share >= want.share_ppm
        if not fits or room < want.card_memory_bytes or not (is_empty(state) or mode == want.mode != EXCLUSIVE):
            return -1
        left = (share - want.share_ppm, room - want.card_memory_bytes)
        return columns.row((*left, want.mode, model, share_total, room_total))

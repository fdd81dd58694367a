"""Sentences that are said before it is known who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence by its text key and facts. As a fact of another sentence, `texts.text` puts it into the reader's
    language."""

    key: str
    params: Mapping[str, object] = field(default_factory=dict[str, object])


class SaidError(OSError):
    """What the system or a program refused, where there are words of ours for it."""

    def __init__(self, detail: str, said: Said) -> None:
        super().__init__(detail)
        self.said = said


# Why something does not hold: a sentence of ours, or what the system or a program said in its own words.
Why = Said | str

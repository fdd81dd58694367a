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


# Why something does not hold: a sentence of ours, or what the system or a program said in its own words.
Why = Said | str

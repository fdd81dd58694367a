"""Calendar months in UTC, which invoices are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from gpuyard.model.errors import YardError
from gpuyard.model.times import from_text, to_text
from gpuyard.model.units import SECOND_US


@dataclass(frozen=True, slots=True)
class Month:
    """One month of one year."""

    year: int
    number: int  # 1..12

    @classmethod
    def parse(cls, text: str) -> Month:
        """`2026-11`. Raises YardError `invalid_time`."""
        match = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
        if match is None or not 1970 <= int(match[1]) <= 9998:
            raise YardError("invalid_time", value=text[:64])
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, moment_us: int) -> Month:
        """The month of a moment."""
        text = to_text(moment_us)
        return cls(int(text[:4]), int(text[5:7]))

    @property
    def from_us(self) -> int:
        return int(datetime(self.year, self.number, 1, tzinfo=UTC).timestamp()) * SECOND_US

    @property
    def until_us(self) -> int:
        """Where the next one begins."""
        year, number = (self.year + 1, 1) if self.number == 12 else (self.year, self.number + 1)
        return from_text(f"{year:04}-{number:02}-01T00:00:00Z")

    def before(self) -> Month:
        """The month before."""
        return Month(self.year - 1, 12) if self.number == 1 else Month(self.year, self.number - 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"

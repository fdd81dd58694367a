"""Card models: the rows of `data/cards.toml`, and how a name a person or a driver uses finds its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from gpuyard.catalog import rows
from gpuyard.model.errors import YardError
from gpuyard.model.units import KIB, MIB

VENDORS = ("nvidia", "amd", "intel")

_ZERO = {"minimum": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardModel:
    """What a vendor publishes about a card model. None: not published, or the card has no such thing.

    `data/cards.toml` says what each figure counts and in which unit.
    """

    name: str
    aliases: tuple[str, ...] = ()
    vendor: str
    architecture: str
    compute_units: int  # NVIDIA: SMs, AMD: CUs, Intel: Xe cores
    memory_mib: int
    memory_type: str
    bus_width_bits: int
    data_rate_mtps: int
    l2_kib: int
    fp32_lanes: int
    boost_mhz: int
    fp32_gflops: int
    fp16_dense_gflops: int | None = None
    fp16_sparse_gflops: int | None = None
    fp8_dense_gflops: int | None = None
    fp8_sparse_gflops: int | None = None
    int8_dense_gops: int | None = None
    int8_sparse_gops: int | None = None
    tdp_watts: int
    idle_watts: int | None = None
    pcie_generation: int
    pcie_lanes: int
    nvlink_mbps: int | None = None
    nvlink_cards: int | None = None
    mig_instances: int | None = None
    mps: bool
    encoders: int | None = field(default=None, metadata=_ZERO)
    decoders: int | None = field(default=None, metadata=_ZERO)
    launch_price_usd: int | None = None
    source: str

    @property
    def memory_bytes(self) -> int:
        """The nominal memory. What a driver reports on a real card is a little less."""
        return self.memory_mib * MIB

    @property
    def l2_bytes(self) -> int:
        """The last cache that all compute units of a die share, without memory-side caches."""
        return self.l2_kib * KIB

    @property
    def bandwidth_bytes_per_second(self) -> int:
        """Peak memory bandwidth: bus width x data rate."""
        return self.bus_width_bits * self.data_rate_mtps * 1_000_000 // 8

    @property
    def fp32_computed_gflops(self) -> int:
        """Lanes x 2 (a multiply and an add) x boost clock, to be compared with the published rate."""
        return self.fp32_lanes * 2 * self.boost_mhz // 1000


@cache
def load() -> Mapping[str, CardModel]:
    """Every card model by its name, in the order of the file. Raises YardError `catalog_invalid`."""
    return MappingProxyType(parse(*rows.packaged("cards.toml", "catalog_invalid")))


def parse(values: Mapping[str, object], place: rows.Place) -> dict[str, CardModel]:
    """The rows of a card file. Raises YardError `place.code`, also for a name or alias that two rows claim."""
    rows.only(values, ("card",), place)
    models: dict[str, CardModel] = {}
    claimed: dict[str, str] = {}
    for row, at in rows.tables(values, "card", place):
        model = rows.build(CardModel, row, at)
        if model.vendor not in VENDORS:
            raise at.refuse("vendor", model.vendor, " | ".join(VENDORS))
        for spelling in {_plain(name) for name in (model.name, *model.aliases)}:
            owner = claimed.setdefault(spelling, model.name)
            if owner != model.name or model.name in models:
                raise at.refuse("name", spelling, f"unique (!= {owner})")
        models[model.name] = model
    return models


def find(name: str) -> CardModel:
    """The model of a catalogue name, an alias or a driver's name (`NVIDIA GeForce RTX 4090`); case, spaces and
    punctuation do not matter.

    Raises YardError `unknown_card_model`, with the nearest known name.
    """
    model = lookup(name)
    if model is None:
        raise YardError("unknown_card_model", model=name[:64], nearest=nearest(name), known=", ".join(load()))
    return model


def lookup(name: str) -> CardModel | None:
    """As `find`, but None for a name that the catalogue lacks."""
    known = _index().get(_plain(name))
    return None if known is None else load()[known]


def nearest(name: str) -> str:
    """The catalogue name that looks most like `name`; there is always one."""
    from difflib import get_close_matches

    index = _index()
    spelling = _plain(name[:64])
    close = get_close_matches(spelling, index, n=1, cutoff=0.0)
    return index[close[0]]


@cache
def _index() -> Mapping[str, str]:
    return {_plain(spelling): model.name for model in load().values() for spelling in (model.name, *model.aliases)}


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())

"""A FOCUS export as Parquet: costs and quantities as decimals, times as timestamps in UTC."""

from __future__ import annotations

import io
from typing import Any

from gpuyard.billing.focus import Export, kinds
from gpuyard.model.errors import YardError


def to_parquet(found: Export) -> bytes:
    """Raises YardError `extra_missing` where pyarrow is not installed."""
    try:
        import pyarrow as arrow  # pyright: ignore[reportMissingTypeStubs]
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise YardError("extra_missing", extra="focus", command='pip install "gpuyard[focus]"') from None
    pa: Any = arrow
    types = {"decimal": pa.decimal128(38, 12), "time": pa.timestamp("us", tz="UTC"), "text": pa.string()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds(found.columns).items()])
    table = pa.Table.from_pylist(list(found.rows), schema=schema)
    out = io.BytesIO()
    writer: Any = parquet
    writer.write_table(table, out)
    return out.getvalue()

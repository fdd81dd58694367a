"""The report of a run: one page that needs nothing else, its plots drawn as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from gpuyard.model.errors import YardError
from gpuyard.simulation.running import Sample
from gpuyard.simulation.session import Options, Outcome

WIDTH: Final = 720
HEIGHT: Final = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 28
_STYLE: Final = """body{font:15px/1.5 system-ui,sans-serif;max-width:780px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .3rem}table{border-collapse:collapse;width:100%}
td{padding:.2rem .6rem;border-bottom:1px solid #e3e6ea}td:last-child{text-align:right}
svg{width:100%;height:auto}.axis{stroke:#c9ced6}.line{fill:none;stroke:#1f6feb;stroke-width:1.6}
.text{font:11px system-ui,sans-serif;fill:#57606a}"""


def write(path: Path, options: Options, outcome: Outcome, title: Callable[[str], str]) -> None:
    """Writes the page. `title` gives the sentence for a key such as `plot.allocation`. Raises YardError."""
    capacity = outcome.capacity_ppm
    plots: list[tuple[str, Callable[[Sample], float]]] = [
        ("allocation", lambda s: 100 * s.used_ppm / capacity),
        ("fragmentation", lambda s: 100 * s.rests_ppm / capacity),
        ("empty_nodes", lambda s: s.empty_nodes),
        ("waiting", lambda s: s.waiting),
        ("idle_watts", lambda s: (capacity - s.used_ppm) / 1e6 * options.idle_watts),
    ]
    parts = [f"<h2>{escape(title('plot.' + name))}</h2>{_plot(outcome.samples, value)}" for name, value in plots]
    if options.prices:
        parts.append(f"<h2>{escape(title('plot.money'))}</h2>{_plot(outcome.samples, _earning(options))}")
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td>{'--' if value is None else escape(str(value))}</td></tr>"
        for key, value in _flat(outcome.summary)
    )
    heading = f"gpuyard simulate: {options.policy}, {options.pods.name}, seed {options.seed}"
    page = (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(heading)}</h1><table>{rows}</table>{''.join(parts)}</body></html>\n"
    )
    try:
        path.write_text(page)
    except OSError as error:
        raise YardError("invalid_request", reason=f"{path}: {error.strerror}") from error


def _flat(summary: dict[str, Any]) -> list[tuple[str, Any]]:
    """One row per figure; those of a group carry its name."""
    rows: list[tuple[str, Any]] = []
    for name, value in summary.items():
        rows += [(f"{name} {key}", part) for key, part in value.items()] if isinstance(value, dict) else [(name, value)]
    return rows


def _earning(options: Options) -> Callable[[Sample], float]:
    """Money per hour at the mean price: what plots of a run show; the sum in the table is exact."""
    mean = float(sum(options.prices.values())) / len(options.prices)
    return lambda sample: sample.used_ppm / 1e6 * mean


def _plot(samples: Sequence[Sample], value: Callable[[Sample], float]) -> str:
    """A line over time."""
    values = [value(sample) for sample in samples]
    top = max(values, default=0) or 1.0
    last = max((sample.time_us for sample in samples), default=0) or 1
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(time_us: int) -> float:
        return _LEFT + width * time_us / last

    points = " ".join(
        f"{x(sample.time_us):.1f},{_TOP + height * (1 - each / top):.1f}"
        for sample, each in zip(samples, values, strict=True)
    )
    grid = "".join(
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="text" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * part:.4g}</text>'
        for part in (0, 0.5, 1)
        for y in (_TOP + height * (1 - part),)
    )
    hours = last / 3_600_000_000
    ends = (
        f'<text class="text" x="{_LEFT}" y="{HEIGHT - 8}">0 h</text>'
        f'<text class="text" x="{WIDTH - _RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{hours:.4g} h</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{grid}{ends}<polyline class="line" points="{points}"/></svg>'
    )

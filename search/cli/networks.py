"""The papers' networks as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from search.config.errors import UserError, nearest
from search.config.units import show_count
from search.costs.layers import Layer
from search.costs.macs import params_and_macs
from space.presets import PRESETS, Preset


@dataclass(frozen=True)
class Summary:
    """A preset's row among the others, at its own patch."""

    preset: Preset
    params: int
    macs: int


def find_preset(name: str) -> Preset:
    """Return the network of this name. Raises UserError."""
    if name not in PRESETS:
        raise UserError([f"no network is called {name!r}{nearest(name, tuple(PRESETS))}"])
    return PRESETS[name]


def summaries() -> tuple[Summary, ...]:
    """Count every preset."""
    return tuple(Summary(preset, *params_and_macs(preset.architecture, preset.context)) for preset in PRESETS.values())


def layer_table(preset: Preset, rows: Sequence[Layer]) -> Table:
    """Draw a preset's layers, attention blocks marked, and their totals."""
    patch = "x".join(str(size) for size in preset.context.patch)
    title = f"{preset.name}: {preset.paper}; {preset.context.in_channels} x {patch} to {preset.context.classes} classes"
    table = Table(title=title, title_justify="left", caption=preset.note, caption_justify="left", show_footer=True)
    table.add_column("place", "total")
    table.add_column("block", "")
    table.add_column("output (C x D x H x W)", "", justify="right")
    table.add_column("parameters", f"{sum(row.params for row in rows):,}", justify="right")
    table.add_column("MACs", show_count(sum(row.macs for row in rows)), justify="right")
    for row in rows:
        output = " x ".join(str(size) for size in row.output) or "in training only"
        block = f"* {row.block}" if row.attention else f"  {row.block}"
        style = "bold cyan" if row.attention else None
        table.add_row(row.place, block, output, f"{row.params:,}", show_count(row.macs), style=style)
    return table


def summary_table(rows: Sequence[Summary]) -> Table:
    """Draw all presets, one line each."""
    table = Table(title="The papers' networks at their own patches", title_justify="left")
    for heading in ("name", "paper"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "MACs", "patch (D x H x W)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        patch = " x ".join(str(size) for size in row.preset.context.patch)
        table.add_row(row.preset.name, row.preset.paper, f"{row.params:,}", show_count(row.macs), patch)
    return table

"""`voxnas show`: the papers' networks as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from search.api.terminal import open_console, print_json
from search.config.errors import UserError, nearest
from search.config.units import show_count
from search.costs.layers import Layer, layers
from search.costs.macs import params_and_macs
from space.presets import PRESETS, Preset


@dataclass(frozen=True)
class Summary:
    """A preset's parameters and MACs at its own patch."""

    preset: Preset
    params: int
    macs: int


def show_networks(name: str | None, *, every: bool, json: bool) -> None:
    """Print all of the papers' networks, or one of them level by level. Raises UserError."""
    if every == (name is not None):
        raise UserError(["show: name one network, or list them with --all"])
    if name is None:
        found = summaries()
        if json:
            print_json([_plain(each) for each in found])
        else:
            open_console().print(summary_table(found))
        return
    preset = find_preset(name)
    rows = layers(preset.architecture, preset.context)
    if json:
        architecture = dict(preset.architecture.entries)
        print_json({"name": name, "architecture": architecture, "layers": [asdict(row) for row in rows]})
    else:
        open_console().print(layer_table(preset, rows))


def _plain(row: Summary) -> dict[str, Any]:
    preset = row.preset
    return {
        "name": preset.name,
        "paper": preset.paper,
        "params": row.params,
        "macs": row.macs,
        "patch_dhw": preset.context.patch,
    }


def find_preset(name: str) -> Preset:
    """Return the network with this name. Raises UserError."""
    if name not in PRESETS:
        raise UserError([f"no network is called {name!r}{nearest(name, tuple(PRESETS))}"])
    return PRESETS[name]


def summaries() -> tuple[Summary, ...]:
    """Count the parameters and MACs of every preset."""
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
        output = " x ".join(str(size) for size in row.output) or "training only"
        block = f"* {row.block}" if row.attention else f"  {row.block}"
        style = "bold cyan" if row.attention else None
        table.add_row(row.place, block, output, f"{row.params:,}", show_count(row.macs), style=style)
    return table


def summary_table(rows: Sequence[Summary]) -> Table:
    """Draw all presets, one per line."""
    table = Table(title="The papers' networks at their own patches", title_justify="left")
    for heading in ("name", "paper"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "MACs", "patch (D x H x W)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        patch = " x ".join(str(size) for size in row.preset.context.patch)
        table.add_row(row.preset.name, row.preset.paper, f"{row.params:,}", show_count(row.macs), patch)
    return table

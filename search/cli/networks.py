"""`voxnas show`: the papers' networks as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from search.api.terminal import open_console, print_json
from search.config.errors import UserError, nearest
from search.config.units import show_count
from search.costs.layers import Layer, layers
from search.costs.macs import params_and_macs
from search.data.check import check_folder
from search.data.fingerprint import fingerprint_of
from search.data.read import DataError
from space.canonical import Context
from space.feasible import why_not
from space.nnunet.planner import Plan, make_plan
from space.presets import PRESETS, Preset


@dataclass(frozen=True)
class Summary:
    """A preset's parameters and MACs at its own patch."""

    preset: Preset
    params: int
    macs: int


def show_networks(name: str | None, *, every: bool, json: bool, data: Path | None = None) -> None:
    """Print all published networks, or one of them level by level, planned for a data folder. Raises UserError."""
    if every == (name is not None):
        raise UserError(["show: name one network, or list them with --all"])
    if data is not None and name is None:
        raise UserError(["--data: name the network to plan for this data"])
    if name is None:
        found = summaries()
        if json:
            print_json([_plain(each) for each in found])
        else:
            open_console().print(summary_table(found))
        return
    preset = find_preset(name)
    plan = None
    if data is not None:
        preset, plan = planned(preset, data)
    rows = layers(preset.architecture, preset.context)
    if json:
        architecture = dict(preset.architecture.entries)
        found_plan = {"plan": asdict(plan)} if plan else {}
        print_json({"name": name, **found_plan, "architecture": architecture, "layers": [asdict(row) for row in rows]})
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


def planned(preset: Preset, data: Path) -> tuple[Preset, Plan]:
    """Return an nnU-Net for a data folder: its patch, spacing and network as nnU-Net plans them. Raises UserError."""
    if preset.family is None:
        raise UserError([f"--data: {preset.name} is a fixed network; only nnU-Net's depend on the data"])
    try:
        dataset, facts = check_folder(data, group=None)
    except DataError as error:
        raise UserError(error.problems) from None
    plan = make_plan(fingerprint_of(dataset, facts), preset.family)
    context = Context(plan.patch, plan.spacing, len(dataset.channels), dataset.labelling.outputs)
    reason = why_not(architecture := preset.at(context), context)
    if reason:
        raise UserError([f"{preset.name}: {reason}"])
    spacing = " x ".join(f"{size:g}" for size in plan.spacing)
    note = f"Planned by nnU-Net's rules for {data.name}: spacing {spacing} mm, batch {plan.batch}."
    return replace(preset, architecture=architecture, context=context, note=note), plan


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

"""One trial: its U with shapes, parameters and memory of each place, its learning curve, its Dice by class and case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from search.config.units import show_bytes, show_count
from search.trials.records import CaseDice, Epoch
from search.visualization.components import Figure
from search.visualization.figures.style import (
    BLOCKS,
    FRONT,
    MUTED,
    SKY,
    block_color,
    canvas,
    color,
    component,
    short,
    tint,
)

if TYPE_CHECKING:
    from search.costs.layers import Layer

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Box:
    """A place of a U: what stands there, the last output's shape (C, D, H, W), parameters, bytes of its outputs.

    `side` is encoder, skip, decoder, head or bottleneck; outputs are those of one patch in float32.
    """

    network: str
    side: str
    level: int
    blocks: tuple[str, ...]
    attention: bool
    output: tuple[int, ...]
    params: int
    macs: int
    outputs_bytes: int


def boxes(layers: Sequence[Layer]) -> list[Box]:
    """Gather a network's layers by their places, in the order in which data meets them."""
    found: dict[tuple[str, str, int], Box] = {}
    for layer in layers:
        side = "bottleneck" if layer.side == "below" else layer.side
        key = (layer.network, side, layer.level)
        before = found.get(key, Box(*key, (), False, (), 0, 0, 0))
        found[key] = replace(
            before,
            blocks=(*before.blocks, layer.block),
            attention=before.attention or layer.attention,
            output=layer.output or before.output,
            params=before.params + layer.params,
            macs=before.macs + layer.macs,
            outputs_bytes=before.outputs_bytes + FLOAT_BYTES * (math.prod(layer.output) if layer.output else 0),
        )
    return list(found.values())


def draw_u(places: Sequence[Box], *, name: str) -> Figure:
    """Draw the U: encoder on the left, skips across, decoder on the right, one row a level."""
    levels = 1 + max(each.level for each in places)
    columns = {"encoder": 0.0, "skip": 1.0, "bottleneck": 1.0, "decoder": 2.0, "head": 3.0}
    figure = canvas(height=70 + 92 * levels, showlegend=False, margin={"l": 10, "r": 10, "t": 10, "b": 10})
    at = {(each.side, each.level): (columns[each.side], -float(each.level)) for each in places}
    for start, end in _ways(at, levels):
        (xa, ya), (xb, yb) = at[start], at[end]
        figure.add_scatter(x=[xa, xb], y=[ya, yb], mode="lines", line={"color": MUTED, "width": 2}, hoverinfo="skip")
    for each in places:
        x, y = at[each.side, each.level]
        size = " × ".join(map(str, each.output)) if each.output else "in training only"
        title = each.side if each.side == "bottleneck" else f"{each.side}{each.level}"
        figure.add_shape(
            type="rect",
            x0=x - 0.44,
            x1=x + 0.44,
            y0=y - 0.4,
            y1=y + 0.4,
            layer="above",
            fillcolor=_fill(each),
            line={"color": FRONT, "width": 1},
        )
        text = (
            f"<b>{title}</b> {escape(short(', '.join(each.blocks)))}<br>{size}<br>"
            f"{show_count(each.params)} parameters, {show_bytes(each.outputs_bytes)}"
        )
        figure.add_annotation(x=x, y=y, text=text, showarrow=False, font={"size": 11})
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            marker={"size": 40, "opacity": 0},
            hoverinfo="text",
            hovertext=f"<b>{title}</b><br>{'<br>'.join(map(escape, each.blocks))}<br>{size}<br>"
            f"{each.params:,} parameters, {show_count(each.macs)} MACs<br>"
            f"outputs {show_bytes(each.outputs_bytes)}",
        )
    axis = {"visible": False, "fixedrange": True}
    figure.update_layout(
        xaxis={**axis, "range": [-0.5, 3.5 if any(e.side == "head" for e in places) else 2.5]},
        yaxis={**axis, "range": [0.5 - levels, 0.5]},
    )
    attended = ", ".join(f"{each.side}{each.level}" for each in places if each.attention)
    title = f"Network{f' ({name})' if name else ''}: (C × D × H × W), parameters, float32 outputs of one patch"
    return component(
        figure,
        name=f"u-{name}",
        title=title,
        wide=True,
        label=f"U of {levels} levels, attention at {attended or 'no place'}; the table below says the same",
    )


def _fill(box: Box) -> str:
    """Return a place's colour: that of its attention block, or a pale blue."""
    if not box.attention:
        return tint(SKY, 0.2)
    titles = [title.lower() for title in box.blocks]
    known = [name for name in BLOCKS if any(title.startswith(name) for title in titles)]
    return tint(block_color(known[0] if known else titles[-1]), 0.45)


def _ways(at: dict[tuple[str, int], tuple[float, float]], levels: int) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """List the ways of the data between places that are there."""
    bottom = next((key for key in at if key[0] == "bottleneck"), None)
    ways = []
    for level in range(levels):
        here, skip, back = ("encoder", level), ("skip", level), ("decoder", level)
        below = ("encoder", level + 1) if ("encoder", level + 1) in at else bottom
        above = ("decoder", level + 1) if ("decoder", level + 1) in at else bottom
        ways += [(here, below), (above, back), (back, ("head", level))]
        ways += [(here, skip), (skip, back)] if skip in at else [(here, back)]
    return [(start, end) for start, end in ways if start in at and end in at and end is not None]


def draw_learning(epochs: Sequence[Epoch]) -> Figure:
    """Draw loss and Dice against epochs, each with its own axis."""
    figure = canvas(height=320)
    figure.add_scatter(
        x=[each.number for each in epochs],
        y=[each.loss for each in epochs],
        name="training loss",
        mode="lines+markers",
        line={"color": color(1)},
        marker={"size": 5},
    )
    scored = [each for each in epochs if each.dice is not None]
    figure.add_scatter(
        x=[each.number for each in scored],
        y=[each.dice for each in scored],
        name="Dice",
        yaxis="y2",
        mode="lines+markers",
        line={"color": FRONT},
        marker={"size": 6, "symbol": "diamond"},
    )
    figure.update_xaxes(title="epoch")
    figure.update_layout(
        yaxis={"title": "loss"},
        yaxis2={
            "title": "Dice",
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "automargin": True,
            "tickformat": ".2f",
        },
    )
    last = f"{scored[-1].dice:.4f}" if scored and scored[-1].dice is not None else "none"
    return component(figure, name="learning", title="Learning curve", label=f"{len(epochs)} epochs, last Dice {last}")


def draw_cases(cases: Sequence[CaseDice], labels: Sequence[str]) -> Figure:
    """Draw the Dice of each case and class as a heat map, the worst case at the bottom."""
    ordered = sorted(cases, key=lambda each: -(each.mean or 0.0))
    values = [[dice for dice in each.dice] for each in reversed(ordered)]
    figure = canvas(height=120 + 24 * len(ordered))
    figure.add_heatmap(
        x=[short(label) for label in labels],
        y=[short(each.case) for each in reversed(ordered)],
        z=values,
        zmin=0,
        zmax=1,
        colorscale="Cividis",
        xgap=2,
        ygap=1,
        colorbar={"title": {"text": "Dice"}, "thickness": 12},
        text=[["" if dice is None else f"{dice:.3f}" for dice in row] for row in values],
        texttemplate="%{text}",
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return component(
        figure,
        name="cases",
        title="Dice by class and case",
        label=f"Dice of {len(cases)} cases and {len(labels)} classes; the table below says the same",
    )

"""Figures of one trial: its network as a U, its learning curve, its Dice by class and case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from search.config.units import counted, show_bytes, show_count
from search.trials.epochs import Epoch
from search.trials.records import CaseDice
from search.visualization.components import Figure
from search.visualization.figures.style import (
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
HALF_WIDTH, HALF_HEIGHT = 0.44, 0.4  # of a place's box, in columns and levels


@dataclass(frozen=True)
class Box:
    """A place of a U: its blocks, the shape of its output (C, D, H, W), parameters, MACs, and bytes of its outputs.

    `side` is encoder, skip, decoder, head or bottleneck. Outputs are those of one patch in float32. `attention` is the
    name of the attention block, empty without one. If it is a plug-in whose code is not loaded, it is not `counted` in
    parameters and MACs.
    """

    network: str
    side: str
    level: int
    blocks: tuple[str, ...]
    attention: str
    output: tuple[int, ...]
    params: int
    macs: int
    outputs_bytes: int
    counted: bool = True

    @property
    def place(self) -> str:
        """The name of the place: `encoder0`, `bottleneck`."""
        return self.side if self.side == "bottleneck" else f"{self.side}{self.level}"

    @property
    def uncounted(self) -> str:
        """What parameters and MACs leave out, to be appended to the numbers; empty if they are complete."""
        return "" if self.counted else f" without {self.attention}"


def boxes(layers: Sequence[Layer]) -> list[Box]:
    """Group a network's layers by place, in the order in which data pass through them."""
    found: dict[tuple[str, str, int], Box] = {}
    for layer in layers:
        side = "bottleneck" if layer.side == "below" else layer.side
        key = (layer.network, side, layer.level)
        before = found.get(key, Box(*key, (), "", (), 0, 0, 0))
        found[key] = replace(
            before,
            blocks=(*before.blocks, layer.block),
            attention=layer.spec or before.attention,
            counted=before.counted and layer.counted,
            output=layer.output or before.output,
            params=before.params + layer.params,
            macs=before.macs + layer.macs,
            outputs_bytes=before.outputs_bytes + FLOAT_BYTES * (math.prod(layer.output) if layer.output else 0),
        )
    return list(found.values())


def draw_network(places: Sequence[Box], *, name: str) -> Figure:
    """Draw a network as a U: encoder on the left, skips across, decoder on the right, one row per level."""
    levels = 1 + max(each.level for each in places)
    columns = {"encoder": 0.0, "skip": 1.0, "bottleneck": 1.0, "decoder": 2.0, "head": 3.0}
    figure = canvas(height=70 + 92 * levels, showlegend=False, margin={"l": 10, "r": 10, "t": 10, "b": 10})
    at = {(each.side, each.level): (columns[each.side], -float(each.level)) for each in places}
    for start, end in _connections(at, levels):
        xs, ys = _between_boxes(at[start], at[end])
        figure.add_scatter(x=xs, y=ys, mode="lines", line={"color": MUTED, "width": 2}, hoverinfo="skip")
    for each in places:
        x, y = at[each.side, each.level]
        size = " × ".join(map(str, each.output)) if each.output else "in training only"
        figure.add_shape(
            type="rect",
            x0=x - HALF_WIDTH,
            x1=x + HALF_WIDTH,
            y0=y - HALF_HEIGHT,
            y1=y + HALF_HEIGHT,
            layer="above",
            fillcolor=_fill(each),
            line={"color": FRONT, "width": 1},
        )
        text = (
            f"<b>{each.place}</b> {escape(short(', '.join(each.blocks)))}<br>{size}<br>"
            f"{show_count(each.params)} parameters{each.uncounted}, {show_bytes(each.outputs_bytes)}"
        )
        figure.add_annotation(x=x, y=y, text=text, showarrow=False, font={"size": 11})
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            marker={"size": 40, "opacity": 0},
            hoverinfo="text",
            hovertext=f"<b>{each.place}</b><br>{'<br>'.join(map(escape, each.blocks))}<br>{size}<br>"
            f"{each.params:,} parameters, {show_count(each.macs)} MACs{each.uncounted}<br>"
            f"outputs {show_bytes(each.outputs_bytes)}",
        )
    axis = {"visible": False, "fixedrange": True}
    figure.update_layout(
        xaxis={**axis, "range": [-0.5, 3.5 if any(e.side == "head" for e in places) else 2.5]},
        yaxis={**axis, "range": [0.5 - levels, 0.5]},
    )
    attended = ", ".join(f"{each.place} ({each.attention})" for each in places if each.attention)
    title = f"Network{f' ({name})' if name else ''}: output (C × D × H × W), parameters, float32 outputs of one patch"
    return component(
        figure,
        name=f"u-{name}",
        title=title,
        wide=True,
        label=f"U of {levels} levels, attention at {attended or 'no place'}; the table below has the same numbers",
    )


def _between_boxes(start: tuple[float, float], end: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Return the x and y of a line from edge to edge of two boxes; a lower box is entered and left at its side."""
    (xa, ya), (xb, yb) = start, end
    across, up = math.copysign(HALF_WIDTH, xb - xa), math.copysign(HALF_HEIGHT, yb - ya)
    if ya == yb:
        return [xa + across, xb - across], [ya, yb]
    if xa == xb:
        return [xa, xb], [ya + up, yb - up]
    if ya > yb:
        return [xa, xb - across], [ya + up, yb]
    return [xa + across, xb], [ya, yb - up]


def _fill(box: Box) -> str:
    """Return a place's colour: its attention block's, or a pale blue."""
    return tint(block_color(box.attention), 0.45) if box.attention else tint(SKY, 0.2)


def _connections(
    at: dict[tuple[str, int], tuple[float, float]], levels: int
) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """List the connections (start, end) between the places that exist."""
    bottom = next((key for key in at if key[0] == "bottleneck"), None)
    found = []
    for level in range(levels):
        here, skip, back = ("encoder", level), ("skip", level), ("decoder", level)
        below = ("encoder", level + 1) if ("encoder", level + 1) in at else bottom
        above = ("decoder", level + 1) if ("decoder", level + 1) in at else bottom
        found += [(here, below), (above, back), (back, ("head", level))]
        found += [(here, skip), (skip, back)] if skip in at else [(here, back)]
    return [(start, end) for start, end in found if start in at and end in at and end is not None]


def draw_learning(epochs: Sequence[Epoch]) -> Figure:
    """Draw loss and Dice against epochs, each with its own axis; a trial's further trainings follow each other."""
    figure = canvas(height=320)
    length = max((each.number for each in epochs), default=0)
    figure.add_scatter(
        x=[each.member * length + each.number for each in epochs],
        y=[each.loss for each in epochs],
        name="training loss",
        mode="lines+markers",
        line={"color": color(1)},
        marker={"size": 5},
    )
    scored = [each for each in epochs if each.dice is not None]
    figure.add_scatter(
        x=[each.member * length + each.number for each in scored],
        y=[each.dice for each in scored],
        name="Dice",
        yaxis="y2",
        mode="lines+markers",
        line={"color": FRONT},
        marker={"size": 6, "symbol": "diamond"},
    )
    figure.update_xaxes(title="epoch", dtick=1 if len(epochs) <= 20 else None)
    figure.update_layout(
        yaxis={"title": "loss"},
        yaxis2={
            "title": "Dice",
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "automargin": True,
            "tickmode": "auto",
            **({"range": [0, 1]} if len(scored) == 1 else {}),  # by itself, Plotly draws one value from -0.3 to 1.7
        },
    )
    last = f"{scored[-1].dice:.4f}" if scored and scored[-1].dice is not None else "none"
    label = f"{counted(len(epochs), 'epoch')}, last Dice {last}"
    return component(figure, name="learning", title="Learning curve", label=label)


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
        label=f"Dice of {counted(len(cases), 'case')} and {counted(len(labels), 'class', plural='classes')}; "
        "the table below has the same numbers",
    )

"""Importance of axes: PED-ANOVA shares, main effects with intervals, blocks by place, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from search.analysis.main_effects import Effect
from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES
from search.config.units import counted
from search.visualization.components import Figure
from search.visualization.figures.style import DARK_INK, DIVERGING, FRONT, MUTED, canvas, color, component, short
from space.place import AxisName

MAX_AXES = 20  # of a figure
MAX_PARALLEL = 9
ROW = 22  # pixels


def draw_importances(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw each axis's share of each objective as bars."""
    totals: dict[str, float] = {}
    for found in shares.values():
        for axis, share in found.items():
            totals[axis] = totals.get(axis, 0.0) + share
    axes = sorted(totals, key=lambda axis: totals[axis])[-MAX_AXES:]
    figure = canvas(height=140 + ROW * len(axes) * max(1, len(shares)), barmode="group", bargap=0.3)
    for at, (objective, found) in enumerate(shares.items()):
        figure.add_bar(
            x=[found.get(axis, 0.0) for axis in axes],
            y=[short(axis) for axis in axes],
            orientation="h",
            name=OBJECTIVES[objective].heading,
            marker={"color": color(at)},
            hovertemplate="%{y}: %{x:.1%} of " + OBJECTIVES[objective].heading + "<extra></extra>",
        )
    figure.update_xaxes(title="share of the importance", tickformat=".0%")
    figure.update_yaxes(automargin=True)
    first = {OBJECTIVES[name].heading: next(iter(found), "none") for name, found in shares.items()}
    label = "; ".join(f"for {name} most: {axis}" for name, axis in first.items())
    return component(figure, name="importances", title="Importance of each axis (PED-ANOVA)", label=label)


def draw_effects(effects: Sequence[Effect], objective: str) -> Figure:
    """Draw main effects with their intervals; those that touch zero are grey."""
    scale = OBJECTIVES[objective].drawn_per
    kept = sorted(sorted(effects, key=lambda each: -abs(each.mean))[: 2 * MAX_AXES], key=lambda each: each.axis)
    figure = canvas(height=130 + ROW * len(kept))
    for name, sure, hue in (("significant", True, FRONT), ("not significant", False, MUTED)):
        chosen = [each for each in kept if (each.low > 0 or each.high < 0) == sure]
        if not chosen:
            continue
        figure.add_scatter(
            x=[each.mean / scale for each in chosen],
            y=[_row(each) for each in chosen],
            mode="markers",
            name=name,
            marker={"color": hue, "size": 8, "symbol": "square" if sure else "square-open"},
            hoverinfo="text",
            error_x={
                "type": "data",
                "symmetric": False,
                "color": hue,
                "thickness": 1.5,
                "width": 4,
                "array": [(each.high - each.mean) / scale for each in chosen],
                "arrayminus": [(each.mean - each.low) / scale for each in chosen],
            },
            hovertext=[
                f"{each.axis}: {each.choice} against {each.against}<br>{each.mean / scale:+.4g} "
                f"({each.low / scale:+.4g} to {each.high / scale:+.4g})<br>{counted(each.trials, 'trial')}"
                for each in chosen
            ],
        )
    figure.add_vline(x=0, line={"color": MUTED, "dash": "dash", "width": 1})
    figure.update_xaxes(title=f"change of {OBJECTIVES[objective].axis_title}")
    figure.update_yaxes(categoryorder="array", categoryarray=[_row(each) for each in reversed(kept)], automargin=True)
    significant = sum(each.low > 0 or each.high < 0 for each in kept)
    return component(
        figure,
        name="effects",
        title=f"Main effects on {OBJECTIVES[objective].heading}, other axes equal (95 %)",
        label=f"{len(kept)} main effects, {significant} significant",
    )


def _row(effect: Effect) -> str:
    return f"{short(_label(effect.axis))}: {short(effect.choice)}"


def _label(axis: str) -> str:
    """Return the place if an axis chooses a block, else the axis's name."""
    name = AxisName.parse(axis)
    return str(name.place) if name.is_attention else axis


def draw_places(effects: Sequence[Effect], objective: str) -> Figure | None:
    """Draw the effect of each block at each place, compared with no block there; None if no place is open."""
    scale = OBJECTIVES[objective].drawn_per
    cells = {(each.choice, _label(each.axis)): each for each in effects if AxisName.parse(each.axis).is_attention}
    if not cells:
        return None
    blocks, places = sorted({block for block, _ in cells}), list(dict.fromkeys(place for _, place in cells))
    values = [
        [cells[block, place].mean / scale if (block, place) in cells else None for place in places] for block in blocks
    ]
    most = max(abs(value) for row in values for value in row if value is not None) or 1.0
    digits = max(0, 1 - math.floor(math.log10(most)))
    text = [[_cell(cells.get((block, place)), scale, digits) for place in places] for block in blocks]
    figure = canvas(height=150 + 46 * len(blocks))
    figure.add_heatmap(
        x=places,
        y=blocks,
        z=values,
        zmin=-most,
        zmax=most,
        colorscale=DIVERGING,
        xgap=2,
        ygap=2,
        text=text,
        texttemplate="%{text}",
        hovertemplate="%{y} at %{x}: %{text}<extra></extra>",
        textfont={"color": DARK_INK},
        colorbar={"title": {"text": "Change"}, "thickness": 12},
        reversescale=not OBJECTIVES[objective].is_maximized,
    )
    figure.update_xaxes(title="place", showgrid=False)
    figure.update_yaxes(showgrid=False)
    return component(
        figure,
        name="places",
        title=f"Block by place: change of {OBJECTIVES[objective].axis_title} against none (ns: not significant)",
        label=f"heat map of {len(blocks)} blocks at {len(places)} places",
        wide=len(places) > 4,
    )


def _cell(effect: Effect | None, scale: float, digits: int) -> str:
    if effect is None:
        return ""
    mark = "" if effect.low > 0 or effect.high < 0 else " ns"
    return f"{effect.mean / scale:+.{digits}f}{mark}"


def draw_parallel(snapshot: Snapshot, order: Sequence[str], objective: str) -> Figure:
    """Draw each trained trial as a line over axes and objectives; dragging along an axis selects a range."""
    rows = np.flatnonzero(snapshot.comparable)
    axes = [axis for axis in order if axis in snapshot.axes][:MAX_PARALLEL]
    dimensions = []
    for axis in axes:
        choices = np.array(snapshot.choices(axis))[rows]
        seen = [str(each) for each in dict.fromkeys([*map(str, snapshot.axes[axis]), "not present"]) if each in choices]
        codes = np.array([seen.index(each) for each in choices], dtype=np.int16)
        dimensions.append(
            {
                "label": short(_label(axis)),
                "values": codes,
                "tickvals": list(range(len(seen))),
                "ticktext": [short(each) for each in seen],
            }
        )
    for name in snapshot.objectives:
        values = (snapshot.values[name][rows] / OBJECTIVES[name].drawn_per).astype(np.float32)
        dimensions.append({"label": OBJECTIVES[name].axis_title, "values": values})
    figure = canvas(height=460, margin={"l": 80, "r": 60, "t": 90, "b": 30})
    shade = (snapshot.values[objective][rows] / OBJECTIVES[objective].drawn_per).astype(np.float32)
    figure.add_parcoords(
        dimensions=dimensions,
        labelangle=-25,
        rangefont={"color": "rgba(0,0,0,0)"},  # the ends of the range, which the labels would cover
        line={
            "color": shade,
            "colorscale": "Cividis",
            "showscale": True,
            "colorbar": {"thickness": 10, "title": {"text": OBJECTIVES[objective].heading}},
        },
    )
    return component(
        figure,
        name="parallel",
        title="Parallel coordinates (drag along an axis to brush)",
        wide=True,
        label=f"parallel coordinates of {counted(len(rows), 'trial')} over "
        f"{counted(len(dimensions), 'axis', plural='axes')}",
    )

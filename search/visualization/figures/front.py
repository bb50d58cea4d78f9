"""The front figure: all trials on two or three objectives, dominated ones pale, those without a Dice on a strip."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from search.config.objectives import OBJECTIVES
from search.config.units import counted
from search.visualization.components import Figure
from search.visualization.figures.cost_scale import coordinate, is_logarithmic, scale_of
from search.visualization.figures.front_3d import draw_3d
from search.visualization.figures.front_data import STRIP, FrontData, Group
from search.visualization.figures.front_traces import (
    NEAR,
    UNTRAINED,
    columns_of,
    is_near,
    known_untrained,
    reference_style,
)
from search.visualization.figures.style import (
    CONFIRMED,
    FRONT,
    LIMIT,
    MUTED,
    SYMBOLS,
    canvas,
    component,
    sentence,
    short,
)

LABELS = 30  # names of published networks that fit side by side


def draw_front(data: FrontData, *, selection: str = "") -> Figure:
    """Draw the front figure; `selection` is the current lasso as an SVG path in the axes' units."""
    figure = draw_3d(data) if len(data.axes) == 3 else _draw_2d(data, selection)
    across, *up = (OBJECTIVES[name] for name in data.axes)
    up.sort(key=lambda each: not each.learned)
    names = sentence(f"{' and '.join(each.heading for each in up)} against {across.heading}")
    label = (
        f"{names}: {counted(int(data.front.sum()), 'trial')} on the front, "
        f"{sum(len(group.rows) for group in data.groups)} trained, "
        f"{sum(map(len, data.untrained.values()))} not trained to the end"
    )
    lasso = ",".join(data.axes) if len(data.axes) == 2 else ""
    return component(figure, name="front", title=names, label=label, lasso=lasso)


def _draw_2d(data: FrontData, selection: str) -> go.Figure:
    priced = np.asarray(np.isfinite(data.points).any(axis=1))
    strip = OBJECTIVES[data.axes[1]].learned and any(priced[data.untrained[name]].any() for name in STRIP)
    figure = canvas(height=520, dragmode="lasso", hovermode="closest")
    for number, group in enumerate(data.groups):
        _add_group(figure, data, group, number)
    _add_untrained(figure, data, strip)
    _add_confirmed(figure, data)
    _add_presets(figure, data)
    if data.references:
        xs, ys = zip(*data.references.values(), strict=True)
        figure.add_scatter(x=xs, y=ys, **reference_style(data), marker={"symbol": "star", "size": 13, "color": LIMIT})
    _add_knee(figure, data)
    x, y = data.axes
    for name in (x, y):
        if name in data.budgets:
            _add_budget(figure, data, name)
    figure.update_xaxes(title=OBJECTIVES[x].axis_title, zeroline=False, **_scale(data, x))
    domain = [0.13, 1] if strip else [0, 1]
    figure.update_layout(
        yaxis={"title": OBJECTIVES[y].axis_title, "zeroline": False, "domain": domain, **_scale(data, y)}
    )
    if strip:
        named = [(float(name == "over budget"), name) for name in STRIP if priced[data.untrained[name]].any()]
        at, names = zip(*named, strict=True)
        figure.update_layout(
            yaxis2={
                "domain": [0, 0.09],
                "tickvals": at,
                "ticktext": names,
                "range": [-0.7, 1.7],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
                "automargin": True,
            },
            xaxis={"anchor": "y2"},
        )
    if selection:
        figure.update_layout(
            selections=[
                {"type": "path", "path": selection, "xref": "x", "yref": "y", "line": {"color": MUTED, "dash": "dot"}}
            ]
        )
    return figure


def _add_budget(figure: go.Figure, data: FrontData, name: str) -> None:
    """Draw a budget as a line, or, far beyond the points, as an arrow at the edge: the axis follows the points."""
    horizontal, limit = name == data.axes[1], data.budgets[name]
    if is_near(data, name):
        _add_line(figure, data, name, limit, line={"dash": "dash", "color": LIMIT})
        side = {"x": 1, "xanchor": "right"} if horizontal else {"xanchor": "right"}
        _add_label(figure, data, name, limit, text="budget", **side)
        return
    figure.add_annotation(
        text=f"budget {limit:,.4g} {'↑' if horizontal else '→'}",
        **(
            {"x": 0, "xanchor": "left", "y": 1, "yanchor": "top"}
            if horizontal
            else {"x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"}  # above the figure
        ),
        xref="x domain",
        yref="y domain",
        showarrow=False,
        font={"color": LIMIT},
    )


def _add_line(figure: go.Figure, data: FrontData, name: str, value: float, *, line: dict[str, Any]) -> None:
    """Draw a line at a value of an axis, across the figure."""
    add, side = (figure.add_hline, "y") if name == data.axes[1] else (figure.add_vline, "x")
    add(**{side: value}, line=line)


def _add_label(figure: go.Figure, data: FrontData, name: str, value: float, *, text: str, **style: Any) -> None:
    """Write a text beside the line at a value of an axis: above a horizontal one, at the top of a vertical one.

    `style` may place the text elsewhere along the line.
    """
    at = coordinate(data.values(name), value)
    if name == data.axes[1]:
        place = {"y": at, "yref": "y", "yanchor": "bottom", "xref": "x domain"}
    else:
        place = {"x": at, "xref": "x", "y": 1, "yref": "y domain", "yanchor": "top"}
    figure.add_annotation(text=text, showarrow=False, **{**place, **style})


def _scale(data: FrontData, name: str) -> dict[str, Any]:
    """Return an axis's scale, and its automatic range, limited to the range of its objective."""
    low, high = OBJECTIVES[name].range
    clipped = {"autorangeoptions": {"clipmin": low, "clipmax": high}} if math.isfinite(high) else {}
    return clipped or scale_of(data.values(name))


def _add_group(figure: go.Figure, data: FrontData, group: Group, number: int) -> None:
    pale = group.rows[~data.front[group.rows]]
    bright = group.rows[data.front[group.rows]]
    hue = group.color or FRONT
    named = short(group.name)
    x, y = (escape(OBJECTIVES[name].axis_title) for name in data.axes)
    figure.add_scattergl(
        **columns_of(data, pale, xy=True),
        mode="markers",
        name=named or "dominated",
        legendgroup=named,
        showlegend=bool(len(pale)) and not (named and len(bright)),
        marker={"color": hue if named else MUTED, "size": 6, "opacity": 0.3},
        hovertemplate=f"trial %{{customdata}}<br>{x} %{{x}}<br>{y} %{{y}}<extra>{escape(named)}</extra>",
    )
    figure.add_scatter(
        **columns_of(data, bright, xy=True),
        mode="markers",
        name=named or "Pareto front",
        legendgroup=named,
        showlegend=bool(len(bright)),
        hovertext=[data.hover[int(row)] for row in bright],
        hoverinfo="text",
        marker={
            "color": hue,
            "size": 12,
            "symbol": SYMBOLS[number % len(SYMBOLS)] if named else "diamond",
            "line": {"width": 1, "color": "white"},
        },
    )


def _add_knee(figure: go.Figure, data: FrontData) -> None:
    """Name the front's knee, which is chosen by all objectives of the study."""
    if data.knee is None or not np.isfinite(data.points[data.knee]).all():
        return
    at = [coordinate(data.values(name), float(data.points[data.knee, side])) for side, name in enumerate(data.axes)]
    arrow = {"ax": 26, "ay": 30, "arrowhead": 2, "arrowwidth": 1, "arrowcolor": MUTED, "standoff": 7}
    figure.add_annotation(x=at[0], y=at[1], text="knee", xanchor="left", **arrow)


def _add_untrained(figure: go.Figure, data: FrontData, strip: bool) -> None:
    for name, rows in known_untrained(data):
        columns = columns_of(data, rows, xy=True)
        if strip and name in STRIP:
            columns |= {"y": np.full(len(rows), float(name == "over budget"), dtype=np.float32), "yaxis": "y2"}
        symbol, _, hue = UNTRAINED[name]
        note = " (Dice so far)" if name == "stopped" and data.learned is not None else ""
        figure.add_scattergl(
            **columns,
            mode="markers",
            name=f"{name}{note}",
            marker={"symbol": f"{symbol}-open", "color": hue, "size": 7, "opacity": 0.7},
            hovertemplate=f"trial %{{customdata}}: {name}<br>%{{x}}<extra></extra>",
        )


def _add_confirmed(figure: go.Figure, data: FrontData) -> None:
    """Draw confirmed points at their mean Dice, with its interval."""
    at = data.learned
    if not data.confirmed or at is None:
        return
    other = data.axes[1 - at]
    means = [each.mean for each in data.confirmed]
    costs = [(each.record.measurement.value(other) or np.nan) / OBJECTIVES[other].drawn_per for each in data.confirmed]
    error = {
        "type": "data",
        "symmetric": False,
        "thickness": 1.5,
        "width": 5,
        "color": CONFIRMED,
        "array": [(each.high or each.mean) - each.mean for each in data.confirmed],
        "arrayminus": [each.mean - (each.low or each.mean) for each in data.confirmed],
    }
    names = ("x", "y") if at == 0 else ("y", "x")
    figure.add_scatter(
        **{names[0]: means, names[1]: costs, f"error_{names[0]}": error},
        mode="markers",
        name="confirmed (95 %)",
        marker={"symbol": "star", "size": 12, "color": CONFIRMED},
        customdata=[each.record.number for each in data.confirmed],
        hoverinfo="text",
        hovertext=[
            f"<b>trial {each.record.number}</b>, confirmed {each.trainings} times<br>mean Dice {each.mean:.4f}"
            + (f"<br>{each.low:.4f} to {each.high:.4f}" if each.low is not None else "")
            for each in data.confirmed
        ],
    )


def _add_presets(figure: go.Figure, data: FrontData) -> None:
    """Draw the papers' networks at their costs; since their Dice is unknown, at the top of a Dice axis."""
    drawn = data.points[np.isfinite(data.points).all(axis=1)]
    if not len(drawn):
        return
    if data.learned is None:
        names = [name for name, at in data.presets.items() if np.isfinite(at).all()]
        figure.add_scatter(
            x=[data.presets[name][0] for name in names],
            y=[data.presets[name][1] for name in names],
            text=names,
            mode="markers+text",
            name="papers",
            textposition="top center",
            marker={"symbol": "square-open", "size": 10, "color": MUTED},
        )
        return
    side = 1 - data.learned
    axis = data.axes[side]
    limit = NEAR * drawn[:, side].max()
    lines = {name: at[side] for name, at in data.presets.items() if np.isfinite(at[side]) and at[side] <= limit}
    lowest = drawn[:, side].min() if is_logarithmic(data.values(axis)) else 0.0
    gap = (coordinate(data.values(axis), limit) - coordinate(data.values(axis), lowest)) / LABELS
    last = -np.inf
    for name, value in sorted(lines.items(), key=lambda item: item[1]):
        _add_line(figure, data, axis, value, line={"dash": "dot", "width": 1, "color": MUTED})
        at = coordinate(data.values(axis), value)
        if at > last + gap:
            upright = {"xanchor": "left", "textangle": -90, "y": 0, "yanchor": "bottom"}  # the budget's is at the top
            style = {"x": 1, "xanchor": "right"} if side else upright
            _add_label(figure, data, axis, value, text=name, **style)
            last = at

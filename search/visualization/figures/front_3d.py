"""The front figure on three objectives."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go

from search.analysis.snapshot import Numbers
from search.config.objectives import OBJECTIVES
from search.visualization.figures.cost_scale import scale_of
from search.visualization.figures.front_data import FrontData
from search.visualization.figures.front_traces import (
    NEAR,
    UNTRAINED,
    columns_of,
    is_near,
    known_untrained,
    reference_style,
)
from search.visualization.figures.style import FRONT, LIMIT, MUTED, canvas, short

CAMERA = 1.55  # distance along each axis from which the titles of the axes are in the picture


def draw_3d(data: FrontData) -> go.Figure:
    """Draw all trials, the budgets near them, and the papers' and the reference networks."""
    figure = canvas(height=620, margin={"l": 0, "r": 0, "t": 40, "b": 0})
    for group in data.groups:
        hue = group.color or FRONT
        named = short(group.name)
        pale, bright = group.rows[~data.front[group.rows]], group.rows[data.front[group.rows]]
        titles = [escape(OBJECTIVES[name].axis_title) for name in data.axes]
        shown = "<br>".join(f"{title} %{{{side}}}" for title, side in zip(titles, "xyz", strict=True))
        template = f"trial %{{customdata}}<br>{shown}<extra>{escape(named)}</extra>"
        figure.add_scatter3d(
            **columns_of(data, pale),
            mode="markers",
            name=named or "dominated",
            legendgroup=named,
            opacity=0.3,
            marker={"size": 3, "color": hue if named else MUTED},
            hovertemplate=template,
            showlegend=bool(len(pale)) and not (named and len(bright)),
        )
        figure.add_scatter3d(
            **columns_of(data, bright),
            mode="markers",
            name=named or "Pareto front",
            legendgroup=named,
            marker={"size": 6, "color": hue, "symbol": "diamond"},
            hovertemplate=template,
            showlegend=bool(len(bright)),
        )
    inside = data.points[np.isfinite(data.points).all(axis=1)]
    if len(inside):
        _add_floor_3d(figure, data, inside)
    for name, limit in data.budgets.items():
        if len(inside) and is_near(data, name):
            figure.add_scatter3d(
                **_frame(inside, data.axes.index(name), limit),
                mode="lines",
                hoverinfo="skip",
                name=f"budget of {OBJECTIVES[name].heading}",
                line={"color": LIMIT, "dash": "dash"},
            )
    described = [
        {"title": OBJECTIVES[name].axis_title, **({} if OBJECTIVES[name].learned else scale_of(data.values(name)))}
        for name in data.axes
    ]
    axes = dict(zip(("xaxis", "yaxis", "zaxis"), described, strict=True))
    camera = {"eye": dict.fromkeys("xyz", CAMERA)}
    return figure.update_layout(scene={**axes, "camera": camera})


def _add_floor_3d(figure: go.Figure, data: FrontData, inside: Numbers) -> None:
    """Draw points without a Dice, trials and the papers' networks, at the lowest Dice of the figure."""
    floor = np.array([inside[:, at].min() if OBJECTIVES[name].learned else np.nan for at, name in enumerate(data.axes)])
    for name, rows in known_untrained(data):
        points = np.where(np.isnan(data.points[rows]), floor, data.points[rows])
        _, symbol, hue = UNTRAINED[name]
        figure.add_scatter3d(
            **dict(zip("xyz", points.T.astype(np.float32), strict=True)),
            customdata=data.numbers[rows],
            mode="markers",
            name=name,
            marker={"size": 3, "color": hue, "symbol": symbol},
            opacity=0.7,
            hovertemplate=f"trial %{{customdata}}: {name}<extra></extra>",
        )
    if data.references:
        points = np.array([*data.references.values()]).T
        figure.add_scatter3d(
            **dict(zip("xyz", points, strict=True)),
            **reference_style(data),
            marker={"size": 6, "color": LIMIT, "symbol": "diamond"},
        )
    most = NEAR * inside.max(axis=0)
    placed = {name: np.where(np.isnan(at), floor, at) for name, at in data.presets.items()}
    placed = {name: at for name, at in placed.items() if (at <= np.where(np.isnan(floor), most, np.inf)).all()}
    if placed:
        figure.add_scatter3d(
            **dict(zip("xyz", np.array([*placed.values()]).T, strict=True)),
            text=[*placed],
            mode="markers+text",
            name="papers",
            textposition="top center",
            hoverinfo="text",
            marker={"size": 4, "color": MUTED, "symbol": "square-open"},
        )


def _frame(points: Numbers, column: int, limit: float) -> dict[str, list[float]]:
    """Return a rectangle at the limit of one of three columns, as large as the points' extent."""
    low, high = points.min(axis=0), points.max(axis=0)
    one, two = (each for each in range(3) if each != column)
    path = np.array(
        [
            [low[one], low[two]],
            [high[one], low[two]],
            [high[one], high[two]],
            [low[one], high[two]],
            [low[one], low[two]],
        ]
    )
    found = np.full((5, 3), limit)
    found[:, one], found[:, two] = path[:, 0], path[:, 1]
    return {name: found[:, side].tolist() for side, name in enumerate("xyz")}

"""Numbers of a study as Plotly figures: what to draw is worked out first, drawing is apart."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.analysis.runs import Side
from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES, cost_axis, primary
from search.visualization.figures.front_data import trial_text

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "responsive": True,
    "toImageButtonOptions": {"format": "svg"},
}
NO_BAR_IN_PICTURES = "@media (hover: none) { .modebar { display: none } }"  # made by a browser without a mouse
FRONT, DOMINATED, LINE = (
    "#0072B2",
    "#9AA5B1",
    "#D55E00",
)  # Okabe and Ito's palette, safe for colour-blind eyes
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star")
Anytime = tuple[list[int], list[float], list[float], list[float]]
LAYOUT: dict[str, Any] = {
    "template": "simple_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "height": 420,
    "margin": {"l": 64, "r": 24, "t": 16, "b": 56},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "legend": {"orientation": "h", "y": 1.08, "x": 0},
    "hoverlabel": {"align": "left"},
}


def draw_anytime(curves: Sequence[tuple[str, Anytime]], *, title: str) -> go.Figure:
    """Draw the share of the true hypervolume over trainings: each proposer's median, and its quartiles as a band."""
    figure = go.Figure(layout={**LAYOUT, "title": {"text": title}, "margin": {**LAYOUT["margin"], "t": 64}})
    for number, (name, (counts, low, middle, high)) in enumerate(curves):
        color = PALETTE[number % len(PALETTE)]
        band = {"x": [*counts, *reversed(counts)], "y": [*high, *reversed(low)], "fill": "toself", "fillcolor": color}
        figure.add_scatter(**band, opacity=0.15, line={"width": 0}, hoverinfo="skip", showlegend=False)
        figure.add_scatter(
            x=counts, y=middle, name=name, mode="lines", line={"color": color, "width": 3 if number == 0 else 2}
        )
    figure.update_xaxes(title="trainings", automargin=True)
    figure.update_yaxes(title="share of the true hypervolume", tickformat=".0%", automargin=True)
    return figure


def draw_sides(sides: Sequence[Side]) -> go.Figure:
    """Draw runs side by side: their fronts on each plane of two objectives, and hypervolume over hours of trials."""
    pairs = planes(sides[0].snapshot)
    titles = [
        *(f"{OBJECTIVES[y].heading} against {OBJECTIVES[x].heading.lower()}" for x, y in pairs),
        "hypervolume over hours of trials",
    ]
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.07)
    for number, side in enumerate(sides):
        color, symbol = PALETTE[number % len(PALETTE)], SYMBOLS[number % len(SYMBOLS)]
        for column, (x, y) in enumerate(pairs, start=1):
            _add_front(figure, side, (x, y), column=column, marker={"color": color, "symbol": symbol})
        figure.add_scatter(
            x=[hours for hours, _ in side.curve],
            y=[volume for _, volume in side.curve],
            mode="lines",
            name=side.name,
            line={"shape": "hv", "color": color, "width": 3},
            legendgroup=side.name,
            row=1,
            col=len(titles),
        )
    axes = [(OBJECTIVES[x].axis_title, OBJECTIVES[y].axis_title) for x, y in pairs]
    for column, (across, up) in enumerate([*axes, ("hours", "hypervolume")], start=1):
        figure.update_xaxes(title=across, rangemode="tozero", row=1, col=column)
        figure.update_yaxes(title=up, row=1, col=column)
    margin, legend = {**LAYOUT["margin"], "t": 80}, {**LAYOUT["legend"], "y": 1.22}
    return figure.update_layout({**LAYOUT, "margin": margin, "legend": legend})


def _add_front(figure: go.Figure, side: Side, pair: tuple[str, str], *, column: int, marker: dict[str, Any]) -> None:
    """Add a run's trials to a plane: the front large, the others small and pale."""
    snapshot = side.snapshot
    x, y = (snapshot.values[name] / OBJECTIVES[name].drawn_per for name in pair)
    for on_front, size, opacity in ((False, 6, 0.35), (True, 11, 1.0)):
        rows = np.flatnonzero(snapshot.comparable & (snapshot.on_front == on_front))
        figure.add_scatter(
            x=x[rows],
            y=y[rows],
            mode="markers",
            name=side.name,
            marker={**marker, "size": size, "opacity": opacity},
            legendgroup=side.name,
            showlegend=False,
            hovertext=[trial_text(snapshot, int(row)) for row in rows],
            hoverinfo="text",
            row=1,
            col=column,
        )


def write_figures(figures: Sequence[go.Figure], file: Path, *, title: str) -> None:
    """Write figures one below the other as one offline HTML file."""
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0, config=CONFIG)
        for number, figure in enumerate(figures)
    ]
    head = f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title><style>{NO_BAR_IN_PICTURES}</style>"
    file.write_text(head + "\n".join(parts))


def planes(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return the pairs of objectives worth a picture: each other objective against the primary one."""
    up = primary(snapshot.objectives)
    across = [name for name in snapshot.objectives if name != up] or [cost_axis(snapshot.objectives)]
    return [(x, up) for x in across]

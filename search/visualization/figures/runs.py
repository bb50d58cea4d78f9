"""Numbers of a study as Plotly figures: what to draw is worked out first, drawing is apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.analysis.front import Look
from search.analysis.runs import Side
from search.config.objectives import OBJECTIVES, cost_axis, primary, show
from search.trials.pareto import comparable
from search.trials.records import Record

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


@dataclass(frozen=True)
class Point:
    """One trained trial on a plane of two objectives, in the units that are drawn."""

    trial: int
    x: float
    y: float
    on_front: bool
    text: str


def plane(looked: Look, x: str, y: str) -> list[Point]:
    """Return the trained trials on the plane of two objectives."""
    front = {record.number for record in looked.front}
    points = []
    for record in comparable(looked.records, looked.study.directions):
        across, up = record.measurement.value(x), record.measurement.value(y)
        if across is not None and up is not None:
            shown = (across / OBJECTIVES[x].drawn_per, up / OBJECTIVES[y].drawn_per)
            points.append(Point(record.number, *shown, record.number in front, hover(record)))
    return points


def hover(record: Record) -> str:
    """Say a trial in a few lines of HTML: number, network, every value."""
    values = [
        f"{OBJECTIVES[name].heading} {show(name, value)}"
        for name in OBJECTIVES
        if (value := record.measurement.value(name)) is not None
    ]
    network = escape(record.architecture.describe()).replace("; ", "<br>")
    return f"<b>trial {record.number}</b><br>{network}<br>" + "<br>".join(values)


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
    pairs = planes(sides[0].looked)
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
    points = plane(side.looked, *pair)
    for on_front, size, opacity in ((False, 6, 0.35), (True, 11, 1.0)):
        chosen = [each for each in points if each.on_front == on_front]
        figure.add_scatter(
            x=[each.x for each in chosen],
            y=[each.y for each in chosen],
            mode="markers",
            name=side.name,
            marker={**marker, "size": size, "opacity": opacity},
            legendgroup=side.name,
            showlegend=False,
            hovertext=[each.text for each in chosen],
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


def planes(looked: Look) -> list[tuple[str, str]]:
    """Return the pairs of objectives worth a picture: each cost against Dice, or against the first objective."""
    names = list(looked.study.directions)
    up = primary(names)
    across = [name for name in names if name != up] or [cost_axis(names)]
    return [(x, up) for x in across]

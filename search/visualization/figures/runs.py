"""Several runs in one figure: fronts and hypervolume of studies, and anytime curves of simulated proposers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.analysis.runs import ComparedRun, volume_title
from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES, cost_axis, primary
from search.visualization.components import Figure
from search.visualization.figures.cost_scale import scale_over
from search.visualization.figures.front_data import trial_text
from search.visualization.figures.style import LAYOUT, SYMBOLS, canvas, color, component, sentence, tint

Anytime = tuple[list[int], list[float], list[float], list[float]]


def draw_anytime(curves: Sequence[tuple[str, Anytime]], *, title: str) -> Figure:
    """Draw the share of the true hypervolume over trainings: each proposer's median and interquartile band."""
    figure = canvas()
    for number, (name, (counts, low, middle, high)) in enumerate(curves):
        band = {"x": [*counts, *reversed(counts)], "y": [*high, *reversed(low)], "fill": "toself"}
        figure.add_scatter(
            **band, fillcolor=tint(color(number), 0.15), line={"width": 0}, hoverinfo="skip", showlegend=False
        )
        line = {"color": color(number), "width": 3 if number == 0 else 2}
        figure.add_scatter(x=counts, y=middle, name=name, mode="lines", line=line)
    figure.update_xaxes(title="trainings")
    figure.update_yaxes(title="share of the true hypervolume", tickformat=".0%")
    reached = "; ".join(f"{name} {middle[-1]:.1%}" for name, (_, _, middle, _) in curves if middle)
    return component(
        figure, name=title, title=title, label=f"median share of the true hypervolume at the end: {reached}"
    )


def draw_runs(compared: Sequence[ComparedRun]) -> Figure:
    """Draw runs side by side: their fronts on pairs of objectives, and hypervolume over hours of trials."""
    pairs, volume = planes(compared[0].snapshot), volume_title(compared)
    titles = [
        *(sentence(f"{OBJECTIVES[y].heading} against {OBJECTIVES[x].heading}") for x, y in pairs),
        sentence(f"{volume} over hours of trials"),
    ]
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=titles, horizontal_spacing=0.07)
    for number, run in enumerate(compared):
        hue, symbol = color(number), SYMBOLS[number % len(SYMBOLS)]
        for column, (x, y) in enumerate(pairs, start=1):
            _add_front(figure, run, (x, y), column=column, marker={"color": hue, "symbol": symbol})
        figure.add_scatter(
            x=[hours for hours, _ in run.curve],
            y=[volume for _, volume in run.curve],
            mode="lines",
            name=run.name,
            line={"shape": "hv", "color": hue, "width": 3},
            legendgroup=run.name,
            row=1,
            col=len(titles),
        )
    scales = [*(scale_over([run.snapshot for run in compared], x) for x, _ in pairs), {}]
    axes = [(OBJECTIVES[x].axis_title, OBJECTIVES[y].axis_title) for x, y in pairs]
    for column, (across, up) in enumerate([*axes, ("hours", volume)], start=1):
        figure.update_xaxes(title=across, rangemode="tozero", row=1, col=column, **scales[column - 1])
        figure.update_yaxes(title=up, row=1, col=column)
    margin, legend = {**LAYOUT["margin"], "t": 80}, {**LAYOUT["legend"], "y": 1.12}
    figure.update_layout({**LAYOUT, "margin": margin, "legend": legend})
    reached = "; ".join(f"{run.name} {run.curve[-1][1]:.4f}" for run in compared)
    return component(figure, name="runs", title="Runs side by side", label=f"{volume} reached: {reached}", wide=True)


def _add_front(
    figure: go.Figure, run: ComparedRun, pair: tuple[str, str], *, column: int, marker: dict[str, Any]
) -> None:
    """Add a run's trials to a subplot: the front large, the others small and pale."""
    snapshot = run.snapshot
    x, y = (snapshot.shown_values(name) / OBJECTIVES[name].drawn_per for name in pair)
    for on_front, size, opacity in ((False, 6, 0.35), (True, 11, 1.0)):
        rows = np.flatnonzero(snapshot.comparable & (snapshot.on_front == on_front))
        figure.add_scatter(
            x=x[rows],
            y=y[rows],
            mode="markers",
            name=run.name,
            marker={**marker, "size": size, "opacity": opacity},
            legendgroup=run.name,
            showlegend=False,
            hovertext=[trial_text(snapshot, int(row)) for row in rows],
            hoverinfo="text",
            row=1,
            col=column,
        )


def planes(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return the pairs of objectives to plot: each other objective with the primary one."""
    up = primary(snapshot.objectives)
    across = [name for name in snapshot.objectives if name != up] or [cost_axis(snapshot.objectives)]
    return [(x, up) for x in across]

"""Several runs in one figure: fronts and hypervolume of studies, and anytime curves of simulated proposers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from search.analysis.runs import ComparedRun, volume_title
from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES, cost_axis, primary
from search.visualization.components import Figure
from search.visualization.figures.cost_scale import scale_over
from search.visualization.figures.front_data import trial_text
from search.visualization.figures.style import SYMBOLS, canvas, color, component, sentence, tint

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


def draw_runs(compared: Sequence[ComparedRun]) -> list[Figure]:
    """Draw the runs' fronts on pairs of objectives, and their hypervolume over hours of trials, a figure each."""
    figures = [_draw_fronts(compared, x, y) for x, y in planes(compared[0].snapshot)]
    return [*figures, _draw_volumes(compared)]


def _draw_fronts(compared: Sequence[ComparedRun], x: str, y: str) -> Figure:
    figure = canvas(showlegend=True)
    for number, run in enumerate(compared):
        marker = {"color": color(number), "symbol": SYMBOLS[number % len(SYMBOLS)]}
        _add_front(figure, run, (x, y), marker=marker)
    scale = scale_over([run.snapshot for run in compared], x)
    figure.update_xaxes(title=OBJECTIVES[x].axis_title, rangemode="tozero", **scale)
    figure.update_yaxes(title=OBJECTIVES[y].axis_title)
    title = sentence(f"{OBJECTIVES[y].heading} against {OBJECTIVES[x].heading}")
    sizes = "; ".join(f"{run.name}: {len(run.snapshot.front())} on the front" for run in compared)
    return component(figure, name=f"runs-{x}", title=title, label=f"{title}; {sizes}")


def _draw_volumes(compared: Sequence[ComparedRun]) -> Figure:
    figure, volume = canvas(showlegend=True), volume_title(compared)
    for number, run in enumerate(compared):
        figure.add_scatter(
            x=[hours for hours, _ in run.curve],
            y=[volume for _, volume in run.curve],
            mode="lines",
            name=run.name,
            line={"shape": "hv", "color": color(number), "width": 3},
        )
    figure.update_xaxes(title="hours of trials", rangemode="tozero")
    figure.update_yaxes(title="hypervolume")
    reached = "; ".join(f"{run.name} {run.curve[-1][1]:.4f}" for run in compared)
    title = sentence(f"{volume} over hours of trials")
    return component(figure, name="runs-hypervolume", title=title, label=f"{volume} reached: {reached}")


def _add_front(figure: go.Figure, run: ComparedRun, pair: tuple[str, str], *, marker: dict[str, Any]) -> None:
    """Add a run's trials: the front large, the others small and pale."""
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
            showlegend=on_front,
            hovertext=[trial_text(snapshot, int(row)) for row in rows],
            hoverinfo="text",
        )


def planes(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return the pairs of objectives to plot: each other objective with the primary one."""
    up = primary(snapshot.objectives)
    across = [name for name in snapshot.objectives if name != up] or [cost_axis(snapshot.objectives)]
    return [(x, up) for x in across]

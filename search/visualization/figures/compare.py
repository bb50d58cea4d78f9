"""Comparison figures: Dice differences between trials by case, and fronts of several studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.analysis.snapshot import Snapshot
from search.analysis.statistics.pairs import Pairs, compare_pairs
from search.analysis.statistics.scores import case_differences
from search.config.objectives import OBJECTIVES
from search.trials.records import Record
from search.visualization.components import Figure
from search.visualization.figures.cost_scale import scale_over
from search.visualization.figures.style import MUTED, SYMBOLS, canvas, color, component, short


@dataclass(frozen=True)
class Paired:
    """A trial's Dice minus the first trial's, by case, and the statistics of these differences."""

    number: int
    differences: Mapping[str, float]
    pairs: Pairs


def paired(first: Record, other: Record) -> Paired | None:
    """Compare two trials over the cases that both have; None if there are none."""
    differences = case_differences([other], [first])
    return Paired(other.number, differences, compare_pairs([*differences.values()])) if differences else None


def draw_paired(first: int, pairs: Sequence[Paired]) -> Figure:
    """Draw each case's difference to the first trial, and the mean difference with its interval."""
    figure = canvas(height=130 + 90 * len(pairs))
    for at, pair in enumerate(pairs):
        named = f"trial {pair.number}"
        spread = np.linspace(-0.22, 0.22, len(pair.differences)) if len(pair.differences) > 1 else [0.0]
        figure.add_scatter(
            x=[*pair.differences.values()],
            y=[at + each for each in spread],
            mode="markers",
            name=named,
            marker={"color": color(at), "size": 8, "opacity": 0.5},
            text=[*pair.differences],
            hovertemplate="%{text}: %{x:+.4f}<extra></extra>",
            customdata=[pair.number] * len(spread),
        )
        if len(pair.differences) > 1:
            figure.add_scatter(
                x=[pair.pairs.difference],
                y=[at + 0.34],
                mode="markers",
                showlegend=False,
                hoverinfo="x",
                marker={"color": color(at), "size": 11, "symbol": "diamond"},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "color": color(at),
                    "width": 6,
                    "array": [pair.pairs.high - pair.pairs.difference],
                    "arrayminus": [pair.pairs.difference - pair.pairs.low],
                },
            )
    figure.add_vline(x=0, line={"color": MUTED, "dash": "dash"})
    figure.update_xaxes(title=f"Dice, difference to trial {first}", zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(pairs))),
        ticktext=[f"trial {pair.number}" for pair in pairs],
        range=[-0.5, len(pairs) - 0.35],
        zeroline=False,
    )
    means = "; ".join(f"trial {pair.number} {pair.pairs.difference:+.4f}" for pair in pairs)
    return component(
        figure,
        name="paired",
        title="Paired differences by case; diamonds are means (95 %)",
        label=f"mean differences to trial {first}: {means}",
    )


def draw_fronts(snapshots: Sequence[Snapshot], *, x: str, y: str) -> Figure:
    """Draw the fronts of several studies on common axes, with dominated trials pale."""
    figure = canvas(height=480, hovermode="closest")
    for at, snapshot in enumerate(snapshots):
        columns = [(snapshot.values[name] / OBJECTIVES[name].drawn_per).astype(np.float32) for name in (x, y)]
        for on_front, marker in (
            (False, {"size": 5, "opacity": 0.25}),
            (True, {"size": 11, "symbol": SYMBOLS[at % len(SYMBOLS)]}),
        ):
            rows = np.flatnonzero(snapshot.comparable & (snapshot.on_front == on_front))
            figure.add_scatter(
                x=columns[0][rows],
                y=columns[1][rows],
                mode="markers",
                name=short(snapshot.label),
                legendgroup=snapshot.label,
                marker={**marker, "color": color(at)},
                showlegend=on_front,
                text=snapshot.numbers[rows],
                hovertemplate=f"{snapshot.label}, trial %{{text}}<br>%{{x:.4g}}, %{{y:.4g}}<extra></extra>",
            )
    figure.update_xaxes(title=OBJECTIVES[x].axis_title, **scale_over(snapshots, x))
    figure.update_yaxes(title=OBJECTIVES[y].axis_title, **scale_over(snapshots, y))
    sizes = "; ".join(f"{snapshot.label} {int(snapshot.on_front.sum())}" for snapshot in snapshots)
    return component(
        figure,
        name="fronts",
        title=f"Fronts: {OBJECTIVES[y].heading} against {OBJECTIVES[x].heading}",
        label=f"fronts of {len(snapshots)} studies, points: {sizes}",
    )

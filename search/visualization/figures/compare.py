"""Trials side by side: each case's difference in Dice to the first of them; and fronts of several studies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES
from search.trials.records import Record
from search.visualization.components import Figure
from search.visualization.figures.runs import SYMBOLS
from search.visualization.figures.style import OTHERS, canvas, color, part, short


@dataclass(frozen=True)
class Paired:
    """A trial's cases against the first trial's: differences of mean Dice, their mean, and its 95 % interval."""

    number: int
    cases: tuple[str, ...]
    differences: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    p: float | None


def paired(first: Record, other: Record) -> Paired | None:
    """Pair the cases that both have (Wilcoxon's two-sided p); None where there is none."""
    mine, theirs = _means(first), _means(other)
    shared = [case for case in mine if case in theirs]
    if not shared:
        return None
    differences = [theirs[case] - mine[case] for case in shared]
    mean, p = statistics.fmean(differences), None
    low = high = None
    if len(shared) > 1:
        from scipy.stats import t, wilcoxon

        half = float(t.ppf(0.975, len(shared) - 1)) * statistics.stdev(differences) / len(shared) ** 0.5
        low, high = mean - half, mean + half
        p = float(wilcoxon(differences).pvalue) if any(differences) else 1.0
    return Paired(other.number, tuple(shared), tuple(differences), mean, low, high, p)


def _means(record: Record) -> dict[str, float]:
    found = {}
    for case in record.measurement.cases:
        known = [dice for dice in case.dice if dice is not None]
        if known:
            found[case.case] = statistics.fmean(known)
    return found


def draw_paired(first: int, pairs: Sequence[Paired]) -> Figure:
    """Draw each case's difference to the first trial, and their mean with its interval."""
    figure = canvas(height=130 + 90 * len(pairs))
    for at, pair in enumerate(pairs):
        named = f"trial {pair.number}"
        spread = np.linspace(-0.22, 0.22, len(pair.differences)) if len(pair.differences) > 1 else [0.0]
        figure.add_scatter(
            x=pair.differences,
            y=[at + each for each in spread],
            mode="markers",
            name=named,
            marker={"color": color(at), "size": 8, "opacity": 0.5},
            text=pair.cases,
            hovertemplate="%{text}: %{x:+.4f}<extra></extra>",
            customdata=[pair.number] * len(spread),
        )
        if pair.low is not None and pair.high is not None:
            figure.add_scatter(
                x=[pair.mean],
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
                    "array": [pair.high - pair.mean],
                    "arrayminus": [pair.mean - pair.low],
                },
            )
    figure.add_vline(x=0, line={"color": OTHERS, "dash": "dash"})
    figure.update_xaxes(title=f"Dice, difference to trial {first}", zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(pairs))),
        ticktext=[f"trial {pair.number}" for pair in pairs],
        range=[-0.5, len(pairs) - 0.35],
        zeroline=False,
    )
    means = "; ".join(f"trial {pair.number} {pair.mean:+.4f}" for pair in pairs)
    return part(
        figure,
        name="paired",
        title="Paired differences by case; diamonds are means (95 %)",
        label=f"mean differences to trial {first}: {means}",
    )


def draw_fronts(snapshots: Sequence[Snapshot], *, x: str, y: str) -> Figure:
    """Draw the fronts of several studies on common axes, the other trials pale."""
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
    figure.update_xaxes(title=OBJECTIVES[x].axis_title)
    figure.update_yaxes(title=OBJECTIVES[y].axis_title)
    sizes = "; ".join(f"{snapshot.label} {int(snapshot.on_front.sum())}" for snapshot in snapshots)
    return part(
        figure,
        name="fronts",
        title=f"Fronts: {OBJECTIVES[y].heading} against {OBJECTIVES[x].heading}",
        label=f"fronts of {len(snapshots)} studies, points: {sizes}",
    )

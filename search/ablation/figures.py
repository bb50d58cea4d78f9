"""Plotly figures of an ablation: forest plot, Dice against costs, heat map of classes, critical-difference diagram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go

from search.ablation.metrics import CASE_METRICS
from search.ablation.summary import Summary
from search.ablation.tables import show_p, signed
from search.analysis.statistics.ranks import Ranks
from search.config.objectives import OBJECTIVES
from search.visualization.figures.cost_scale import coordinate, scale_of
from search.visualization.figures.labels import FONT, label_places
from search.visualization.figures.style import DARK_INK, DIVERGING, FRONT, LIMIT, MUTED, SKY, canvas, short

ROW = 34  # pixels per arm in a forest plot, a heat map and a critical-difference diagram
HOLDS, ALONE, OPEN = "significant", "significant over the cases only †", "not significant"
WIDEST = 34  # characters of an arm's name that a figure shows


@dataclass(frozen=True)
class EffectInterval:
    """An arm's row of a forest plot; `kind` is HOLDS, ALONE or OPEN."""

    arm: str
    difference: float
    low: float
    high: float
    kind: str
    text: str


def effect_intervals(summary: Summary, metric: str) -> list[EffectInterval]:
    """Return the rows of the forest plot in the order of the arms."""
    found = []
    for line in summary.lines:
        effect = line.effects.get(metric)
        if effect:
            pairs, digits, verdict = effect.pairs, CASE_METRICS[metric].digits, summary.verdict(effect, metric)
            text = (
                f"<b>{escape(line.arm)}</b><br>{signed(pairs.difference, digits)} ({signed(pairs.low, digits)} to "
                f"{signed(pairs.high, digits)})<br>p {show_p(effect.adjusted)}, {pairs.units} units<br>{verdict}"
            )
            kind = ALONE if "†" in verdict else HOLDS if effect.adjusted < summary.design.alpha else OPEN
            found.append(EffectInterval(line.arm, pairs.difference, pairs.low, pairs.high, kind, text))
    return found


def draw_forest(lines: list[EffectInterval], *, metric: str, baseline: str) -> go.Figure:
    """Draw mean paired differences with their intervals; a line at zero marks the baseline."""
    figure = canvas(height=130 + ROW * len(lines), showlegend=True)
    for kind, color in ((HOLDS, FRONT), (ALONE, SKY), (OPEN, MUTED)):
        chosen = [each for each in lines if each.kind == kind]
        figure.add_scatter(
            x=[each.difference for each in chosen],
            y=[_name(each.arm) for each in chosen],
            name=kind,
            mode="markers",
            marker={"color": color, "size": 11, "symbol": "square"},
            showlegend=bool(chosen),
            error_x={
                "type": "data",
                "symmetric": False,
                "color": color,
                "thickness": 2,
                "width": 5,
                "array": [each.high - each.difference for each in chosen],
                "arrayminus": [each.difference - each.low for each in chosen],
            },
            hovertext=[each.text for each in chosen],
            hoverinfo="text",
        )
    zero = {"color": LIMIT, "dash": "dash", "width": 2}
    figure.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, yref="paper", line=zero)
    better = "higher" if CASE_METRICS[metric].higher_is_better else "lower"
    title = f"Δ to {_name(baseline)} ({better} is better)"
    figure.update_xaxes(title=title, zeroline=False)
    _arms_axis(figure, [each.arm for each in lines])
    return figure


@dataclass(frozen=True)
class CostPoint:
    """An arm's point in the plane of a cost (in the unit of the axis) and the primary metric."""

    arm: str
    cost: float
    score: float
    on_front: bool


def cost_points(summary: Summary, cost: str) -> list[CostPoint]:
    """Return the points of the arms for which this cost is known."""
    return [
        CostPoint(
            line.arm, line.costs[cost] / OBJECTIVES[cost].drawn_per, line.means[summary.primary][0], line.on_front
        )
        for line in summary.lines
        if cost in line.costs
    ]


def draw_costs(arms: list[CostPoint], *, cost: str, metric: str, baseline: str) -> go.Figure:
    """Draw the arms in the plane of a cost and the metric, each connected to the baseline.

    Where arms lie close together, some have no label; each shows its name when the pointer is over it.
    """
    figure = canvas(showlegend=True)
    base = next((each for each in arms if each.arm == baseline), None)
    for each in arms:
        if base and each is not base:
            figure.add_scatter(
                x=[base.cost, each.cost],
                y=[base.score, each.score],
                mode="lines",
                hoverinfo="skip",
                line={"color": MUTED, "width": 1},
                showlegend=False,
            )
    costs = np.array([each.cost for each in arms])
    across = np.array([coordinate(costs, each) for each in costs])
    order = sorted(range(len(arms)), key=lambda at: arms[at] is not base)  # the baseline's label is placed first
    scores = np.array([each.score for each in arms])
    found = label_places(across[order], scores[order], [_name(arms[at].arm) for at in order])
    places = {arms[at].arm: place for at, place in zip(order, found, strict=True)}
    kinds = (("dominated", False, MUTED, "circle"), ("Pareto front", True, FRONT, "diamond"))
    for name, on_front, color, symbol in kinds:
        chosen = [each for each in arms if each.on_front == on_front]
        figure.add_scatter(
            x=[each.cost for each in chosen],
            y=[each.score for each in chosen],
            name=name,
            mode="markers+text",
            text=[_name(each.arm) if places[each.arm] else "" for each in chosen],
            textposition=[places[each.arm] or "top center" for each in chosen],
            textfont={"size": FONT},
            marker={"color": color, "size": 11, "symbol": symbol},
            showlegend=bool(chosen),
            hovertext=[f"<b>{escape(each.arm)}</b><br>{each.score:.4f}, {each.cost:.4g}" for each in chosen],
            hoverinfo="text",
            cliponaxis=False,
        )
    figure.update_xaxes(title=OBJECTIVES[cost].axis_title, **scale_of(costs))
    figure.update_yaxes(title=CASE_METRICS[metric].title)
    return figure


def draw_classes(classes: Mapping[str, Mapping[str, float]], *, metric: str) -> go.Figure:
    """Draw a heat map of each arm's mean difference to the baseline by class; blue is better."""
    arms, labels = list(classes), list(dict.fromkeys(label for each in classes.values() for label in each))
    values = [[classes[arm].get(label) for label in labels] for arm in arms]
    most = max((abs(value) for row in values for value in row if value is not None), default=0.0) or 1.0
    figure = canvas(height=130 + ROW * len(arms))
    figure.add_heatmap(
        x=labels,
        y=[_name(arm) for arm in arms],
        z=values,
        zmin=-most,
        zmax=most,
        colorscale=DIVERGING,
        xgap=2,
        ygap=2,
        reversescale=not CASE_METRICS[metric].higher_is_better,
        colorbar={"title": {"text": "Δ"}, "thickness": 12},
        text=[["" if value is None else signed(value, CASE_METRICS[metric].digits) for value in row] for row in values],
        texttemplate="%{text}",
        textfont={"color": DARK_INK},
        hovertemplate="%{y}<br>%{x}: %{text}<extra></extra>",
    )
    figure.update_xaxes(automargin=True, showline=False, ticks="")
    _arms_axis(figure, arms)
    return figure


def draw_ranks(ranks: Ranks) -> go.Figure:
    """Draw the arms by mean rank, best first; thick bars connect arms that do not differ significantly.

    This is the critical-difference diagram of Demšar (2006), rotated so that long names fit.
    """
    names = [_name(arm) for arm, _ in ranks.ranks]
    figure = canvas(height=150 + ROW * len(names), showlegend=True)
    figure.add_scatter(
        x=[rank for _, rank in ranks.ranks],
        y=names,
        mode="markers",
        showlegend=False,
        marker={"color": FRONT, "size": 11},
        hoverinfo="text",
        hovertext=[f"<b>{escape(arm)}</b><br>mean rank {rank:.2f}" for arm, rank in ranks.ranks],
    )
    worst = max(rank for _, rank in ranks.ranks)
    for place, (first, last) in enumerate(ranks.together):
        joined = [name for name, (_, rank) in zip(names, ranks.ranks, strict=True) if first <= rank <= last]
        figure.add_scatter(
            x=[worst + 0.25 * (place + 1)] * len(joined),
            y=joined,
            mode="lines",
            hoverinfo="skip",
            line={"color": MUTED, "width": 5},
            name="not significant",
            showlegend=place == 0,
        )
    figure.add_scatter(
        x=[1, 1 + ranks.critical],
        y=[names[-1]] * 2,
        mode="lines",
        hoverinfo="skip",
        name=f"critical difference {ranks.critical:.2f}",
        line={"color": LIMIT, "width": 3},
    )
    end = max(worst, 1 + ranks.critical) + 0.25 * (len(ranks.together) + 1)
    figure.update_xaxes(title=f"mean rank over {ranks.units} units (1 is best)", range=[0.9, end])
    _arms_axis(figure, [arm for arm, _ in ranks.ranks])
    return figure


def _arms_axis(figure: go.Figure, arms: list[str]) -> None:
    names = [_name(arm) for arm in reversed(arms)]
    figure.update_yaxes(categoryorder="array", categoryarray=names, ticks="")


def _name(arm: str) -> str:
    return short(arm, widest=WIDEST)

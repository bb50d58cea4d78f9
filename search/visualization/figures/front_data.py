"""What a picture of the front shows: the trials' points in drawn units, colours, budgets, papers' networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from search.analysis.confirmation import Confirmed
from search.analysis.snapshot import Numbers, Snapshot
from search.config.objectives import OBJECTIVES, show_named
from search.trials.records import Costs
from search.visualization.figures.style import MUTED, choice_color

MOST_COLOURS = 7  # values of an axis with a colour of their own; the rarest share the last
STRIP = ("over budget", "failed")  # trials without a Dice, on a strip of their own


@dataclass(frozen=True)
class Group:
    """Trials of one colour: rows of the snapshot. Without a name they are all trained trials."""

    name: str
    rows: NDArray[np.int64]
    color: str = ""


@dataclass(frozen=True)
class Scene:
    """What a front's picture shows, in the units that are drawn.

    `axes` are two or three objectives; `points` have a column each. `untrained` are the trials that were not trained
    to their end, by state; the stopped ones have the Dice of their last epoch. `presets` are costs of the papers'
    networks.
    """

    axes: tuple[str, ...]
    points: Numbers
    numbers: NDArray[np.int32]
    front: NDArray[np.bool_]
    groups: tuple[Group, ...]
    untrained: Mapping[str, NDArray[np.int64]]
    budgets: Mapping[str, float]
    confirmed: Sequence[Confirmed]
    presets: Mapping[str, tuple[float, ...]]
    hover: Mapping[int, str]

    @property
    def learned(self) -> int | None:
        """Which axis is known only after training, None where all are costs."""
        return next((at for at, name in enumerate(self.axes) if OBJECTIVES[name].learned), None)


def front_scene(
    snapshot: Snapshot, axes: Sequence[str], *, by: str = "", presets: Mapping[str, Costs] | None = None
) -> Scene:
    """Work out what the picture shows; `by` names the axis of the space that gives the colours, none for one colour."""
    columns = [snapshot.values[name] / OBJECTIVES[name].drawn_per for name in axes]
    points = np.column_stack(columns)
    stopped = snapshot.states == "stopped"
    so_far = np.array([trial.dice_so_far for trial in snapshot.trials], dtype=float)
    for at, name in enumerate(axes):
        if OBJECTIVES[name].learned:
            points[stopped, at] = so_far[stopped]
    untrained = {name: np.flatnonzero(snapshot.states == name) for name in ("stopped", *STRIP)}
    hover = {int(row): trial_text(snapshot, int(row)) for row in snapshot.front_rows}
    placed = {name: tuple(_drawn_cost(costs, axis) for axis in axes) for name, costs in (presets or {}).items()}
    budgets = {
        name: limit / OBJECTIVES[name].drawn_per for name, limit in snapshot.study.budgets.items() if name in axes
    }
    groups = tuple(_groups(snapshot, by, np.flatnonzero(snapshot.states == "trained")))
    return Scene(
        tuple(axes),
        points,
        snapshot.numbers,
        snapshot.on_front,
        groups,
        untrained,
        budgets,
        snapshot.confirmed,
        placed,
        hover,
    )


def _drawn_cost(costs: Costs, name: str) -> float:
    value = None if OBJECTIVES[name].learned else costs.of(name)
    return np.nan if value is None else value / OBJECTIVES[name].drawn_per


def _groups(snapshot: Snapshot, by: str, rows: NDArray[np.int64]) -> list[Group]:
    if by not in snapshot.axes:
        return [Group("", rows)]
    choices = np.array(snapshot.choices(by))[rows]
    names, counts = np.unique(choices, return_counts=True)
    order = [str(name) for name in names[np.argsort(-counts)]]
    kept = order if len(order) <= MOST_COLOURS + 1 else order[:MOST_COLOURS]
    known = [str(value) for value in snapshot.axes[by]]
    kept.sort(key=lambda name: known.index(name) if name in known else len(known))
    groups = [Group(name, rows[choices == name], choice_color(by, name, at)) for at, name in enumerate(kept)]
    rest = rows[~np.isin(choices, kept)]
    return [*groups, Group("others", rest, MUTED)] if len(rest) else groups


def trial_text(snapshot: Snapshot, row: int) -> str:
    """Return a trial's number, network and values as a few lines of HTML."""
    trial = snapshot.trials[row]
    values = [
        show_named(name, value) for name in OBJECTIVES if not np.isnan(value := float(snapshot.values[name][row]))
    ]
    network = escape(trial.network).replace("; ", "<br>")
    mark = " (front)" if snapshot.on_front[row] else ""
    return f"<b>trial {trial.number}</b>{mark}<br>{network}<br>" + "<br>".join(values)

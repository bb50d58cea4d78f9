"""The data of the front figure: points in the axes' units, colour groups, budgets, the papers' networks."""

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

MAX_COLOURS = 7  # of an axis's values; the rarest values share the last colour
STRIP = ("over budget", "failed")  # states of trials without a Dice, drawn on a strip


@dataclass(frozen=True)
class Group:
    """Trained trials of one colour, as rows of the snapshot; the group of all trials has no name."""

    name: str
    rows: NDArray[np.int64]
    color: str = ""


@dataclass(frozen=True)
class FrontData:
    """The data of the front figure, in the axes' units.

    `axes` are two or three objectives, the columns of `points`. `untrained` holds the rows of trials that were not
    fully trained, by state; stopped ones have the Dice of their last epoch. `presets` are the costs of the papers'
    networks, `references` the points of the study's trained reference networks, `knee` the row of the front's knee.
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
    references: Mapping[str, tuple[float, ...]]
    knee: int | None = None

    def values(self, name: str) -> Numbers:
        """The trials' values on an axis."""
        found: Numbers = self.points[:, self.axes.index(name)]
        return found

    @property
    def learned(self) -> int | None:
        """The index of the axis that is known only after training; None if all axes are costs."""
        return next((at for at, name in enumerate(self.axes) if OBJECTIVES[name].learned), None)


def front_figure_data(
    snapshot: Snapshot, axes: Sequence[str], *, by: str = "", presets: Mapping[str, Costs] | None = None
) -> FrontData:
    """Collect the data; `by` names the axis of the space that determines the colours, empty for one colour."""
    points = drawn_points(snapshot, axes)
    untrained = {name: np.flatnonzero(snapshot.states == name) for name in ("stopped", *STRIP)}
    hover = {int(row): trial_text(snapshot, int(row)) for row in snapshot.front_rows}
    placed = {name: tuple(_drawn_cost(costs, axis) for axis in axes) for name, costs in (presets or {}).items()}
    budgets = {
        name: limit / OBJECTIVES[name].drawn_per for name, limit in snapshot.study.budgets.items() if name in axes
    }
    references = {
        record.reference: tuple(_drawn(record.measurement.value(name), name) for name in axes)
        for record in snapshot.networks
        if record.state == "trained"
    }
    placed = {name: at for name, at in placed.items() if name not in references}
    groups = tuple(_groups(snapshot, by, np.flatnonzero(snapshot.states == "trained")))
    return FrontData(
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
        {name: at for name, at in references.items() if np.isfinite(at).all()},
        snapshot.knee_row,
    )


def drawn_points(snapshot: Snapshot, axes: Sequence[str]) -> Numbers:
    """Return the trials' values in the axes' units: expected Dice where it is known, Dice so far if stopped."""
    points = np.column_stack([snapshot.shown_values(name) / OBJECTIVES[name].drawn_per for name in axes])
    stopped = snapshot.states == "stopped"
    so_far = np.array([trial.dice_so_far for trial in snapshot.trials], dtype=float)
    for at, name in enumerate(axes):
        if OBJECTIVES[name].learned:
            points[stopped, at] = so_far[stopped]
    return points


def _drawn_cost(costs: Costs, name: str) -> float:
    return _drawn(None if OBJECTIVES[name].learned else costs.of(name), name)


def _drawn(value: float | None, name: str) -> float:
    return np.nan if value is None else value / OBJECTIVES[name].drawn_per


def _groups(snapshot: Snapshot, by: str, rows: NDArray[np.int64]) -> list[Group]:
    if by not in snapshot.axes:
        return [Group("", rows)]
    choices = np.array(snapshot.choices(by))[rows]
    names, counts = np.unique(choices, return_counts=True)
    order = [str(name) for name in names[np.argsort(-counts)]]
    kept = order if len(order) <= MAX_COLOURS + 1 else order[:MAX_COLOURS]
    known = [str(value) for value in snapshot.axes[by]]
    kept.sort(key=lambda name: known.index(name) if name in known else len(known))
    groups = [Group(name, rows[choices == name], choice_color(by, name, at)) for at, name in enumerate(kept)]
    rest = rows[~np.isin(choices, kept)]
    return [*groups, Group("others", rest, MUTED)] if len(rest) else groups


def trial_text(snapshot: Snapshot, row: int) -> str:
    """Return a trial's number, network and values as HTML for a hover label."""
    trial = snapshot.trials[row]
    values = [
        show_named(name, value) for name in OBJECTIVES if not np.isnan(value := float(snapshot.values[name][row]))
    ]
    network = escape(trial.network).replace("; ", "<br>")
    estimate = snapshot.estimate_of(trial.number)
    if estimate:
        span = f"{estimate['dice_low']:.4f} to {estimate['dice_high']:.4f}"
        chance = f"{estimate['front_probability']:.0%} on the front"
        values.insert(0, f"expected Dice {estimate['expected_dice']:.4f} ({span}), {chance}; measured:")
    mark = " (front)" if snapshot.on_front[row] else ""
    return f"<b>trial {trial.number}</b>{mark}<br>{network}<br>" + "<br>".join(values)

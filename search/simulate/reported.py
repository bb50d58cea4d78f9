"""What a user gets from a simulated search: the reported front and picks, compared with the true Dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import OBJECTIVES, primary
from search.proposers.expected import expect_dice
from search.proposers.observations import training_of
from search.simulate.tables import Table
from search.trials.pareto import knee_of, non_dominated, volume
from search.trials.records import Record
from space.encoding import Coded

Matrix = NDArray[np.float64]
BUDGETS = (25, 50, 100)  # trainings after which the front and the picks are reported


@dataclass(frozen=True)
class Reported:
    """The report after some trainings.

    `share` is the share of the true hypervolume that the reported front has by its true Dice, `optimism` the mean of
    its reported minus its true Dice, and `best_optimism` that of the pick `best`. `best_regret` is the Dice lost
    against the best of the trained networks, `best_gap` that against the best of the table, and `knee_regret` the share
    of the hypervolume by which the table's true front dominates the pick `knee`. `noise` is the estimated standard
    deviation of a training, NaN for measured Dice.
    """

    share: float
    optimism: float
    best_optimism: float
    best_regret: float
    best_gap: float
    knee_regret: float
    noise: float


@dataclass(frozen=True)
class Report:
    """What the user gets after some trainings, by expected and by measured Dice; `repeated` of them were repeats."""

    trainings: int
    repeated: int
    expected: Reported
    measured: Reported


def report(table: Table, records: Sequence[Record], *, trainings: int) -> Report | None:
    """Return the report on some records; None if too few trainings have ended."""
    expected = expect_dice([training_of(each) for each in records], coded=Coded(table.space))
    if expected is None:
        return None
    row_of = {each.architecture.fingerprint: table.row_of[each.architecture] for each in records}
    rows = np.array([row_of[each] for each in expected.networks])
    return Report(
        trainings,
        len(records) - len({record.architecture for record in records}),
        _reported(table, rows, expected.dice, expected.noise),
        _reported(table, rows, expected.measured, float("nan")),
    )


def _reported(table: Table, rows: NDArray[np.int64], dice: Matrix, noise: float) -> Reported:
    column = list(table.directions).index(primary(table.directions))
    points = table.losses[rows].copy()
    points[:, column] = OBJECTIVES["dice"].loss(dice)
    front = np.flatnonzero(non_dominated(points))
    best = front[int(np.argmin(points[front, column]))]
    knee = front[knee_of(points[front])]
    truth = table.truth[rows]
    return Reported(
        share=volume(table.losses[rows[front]], table.worst) / table.best_volume,
        optimism=float((dice - truth)[front].mean()),
        best_optimism=float((dice - truth)[best]),
        best_regret=float(truth.max() - truth[best]),
        best_gap=float(table.truth.max() - truth[best]),
        knee_regret=volume_beyond(table, int(rows[knee])),
        noise=noise,
    )


def volume_beyond(table: Table, row: int) -> float:
    """Return the share of the true hypervolume that dominates a network: 0 if it is on the true front."""
    point = table.losses[row]
    scaled = volume(table.losses, np.maximum(point, 1e-12)) * float(np.prod(point / table.worst))
    return scaled / table.best_volume

"""Main effects: the change of an objective with a choice, all other axes equal, and its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.analysis.snapshot import Numbers, Snapshot

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Effect:
    """The change of an objective from an axis's reference choice (`against`) to another; `trials` took that choice."""

    axis: str
    choice: str
    against: str
    mean: float
    low: float
    high: float
    trials: int


def main_effects(snapshot: Snapshot, objective: str) -> list[Effect]:
    """Fit a linear model of all axes' choices by least squares; empty if there are too few trials.

    The reference choice is `none` if an axis has it, else its first. An inactive axis counts as its reference, so that
    the effect is attributed to the axis that made it inactive.
    """
    values = snapshot.values[objective]
    rows = np.flatnonzero(~np.isnan(values) & (snapshot.states == "trained"))
    columns, named = _design(snapshot, rows)
    found = linear_effects(columns, values[rows])
    return [
        Effect(*name, *effect, trials=int(column.sum()))
        for name, column, effect in zip(named, columns, found, strict=False)
    ]


def linear_effects(columns: list[Numbers], values: Numbers) -> list[tuple[float, float, float]]:
    """Return each column's coefficient in a least-squares model with an intercept, and its interval.

    Empty with fewer than three values more than columns, or no columns.
    """
    if len(values) < len(columns) + 3 or not columns:
        return []
    design = np.column_stack([np.ones(len(values)), *columns])
    inverse = np.linalg.pinv(design.T @ design)
    fitted = inverse @ design.T @ values
    freedom = len(values) - int(np.linalg.matrix_rank(design))
    if freedom < 1:
        return []
    from scipy.stats import t

    variance = float(((values - design @ fitted) ** 2).sum()) / freedom
    half = float(t.ppf(0.5 + CONFIDENCE / 2, freedom)) * np.sqrt(np.clip(variance * np.diag(inverse), 0, None))
    low, high = fitted - half, fitted + half
    return [(float(fitted[at]), float(low[at]), float(high[at])) for at in range(1, len(fitted))]


def _design(
    snapshot: Snapshot, rows: NDArray[np.int64]
) -> tuple[list[NDArray[np.float64]], list[tuple[str, str, str]]]:
    """Return the design matrix, a 0/1 column per choice except reference choices, and the columns' meanings."""
    columns: list[Numbers] = []
    named: list[tuple[str, str, str]] = []
    for axis in snapshot.axes:
        choices = np.array(snapshot.choices(axis))[rows]
        seen = [str(each) for each in snapshot.axes[axis] if str(each) in choices]
        first = "none" if "none" in seen else seen[0] if seen else ""
        for choice in seen:
            column = (choices == choice).astype(float)
            if choice != first and not any(np.array_equal(column, each) for each in columns):
                columns.append(column)
                named.append((axis, choice, first))
    return columns, named

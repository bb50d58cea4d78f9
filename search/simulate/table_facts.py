"""What a table of trainings shows: noise, agreement of seeds, what costs explain, and main effects of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from search.analysis.main_effects import linear_effects
from space.architecture import Value
from space.place import AxisName

Matrix = NDArray[np.float64]
MEDIAN_DIFFERENCE = 0.954  # of two normal values, in standard deviations: sqrt(2) times the normal's third quartile
NONE = "none"  # the choice of a place without a block


@dataclass(frozen=True)
class Results:
    """Networks of a table: decisions, final Dice (networks, seeds) with NaN where untrained, and known costs."""

    decisions: tuple[Mapping[str, Value], ...]
    dice: Matrix
    costs: Mapping[str, Matrix]

    @property
    def means(self) -> Matrix:
        """The mean final Dice of each network, (networks,)."""
        return np.asarray(np.nanmean(self.dice, axis=1))


@dataclass(frozen=True)
class ChoiceEffect:
    """The change of Dice by a choice, other axes equal, with its 95 % interval; `networks` counts those with it.

    For a block it is the change per place that has the block.
    """

    axis: str
    choice: str
    against: str
    mean: float
    low: float
    high: float
    networks: int


def noise_deviation(dice: Matrix) -> tuple[float, int]:
    """Return the standard deviation of a training within its network, and its degrees of freedom.

    NaN if no network has two trainings.
    """
    counts = (~np.isnan(dice)).sum(axis=1)
    repeated = dice[counts > 1]
    freedom = int((counts[counts > 1] - 1).sum())
    if not freedom:
        return float("nan"), 0
    squares = np.nansum((repeated - np.nanmean(repeated, axis=1, keepdims=True)) ** 2)
    return float(np.sqrt(squares / freedom)), freedom


def typical_noise(dice: Matrix) -> float:
    """Return the noise by the median difference of two trainings of a network; a few failed trainings hardly count."""
    differences = [np.abs(dice[:, one] - dice[:, other]) for one, other in combinations(range(dice.shape[1]), 2)]
    known = np.concatenate([each[~np.isnan(each)] for each in differences]) if differences else np.empty(0)
    return float(np.median(known) / MEDIAN_DIFFERENCE) if len(known) else float("nan")


def network_deviation(dice: Matrix) -> float:
    """Return the standard deviation of the networks' expected Dice: that of the means, less the noise in them."""
    noise, _ = noise_deviation(dice)
    counts = (~np.isnan(dice)).sum(axis=1)
    if len(dice) < 2:
        return float("nan")
    variance = float(np.var(np.nanmean(dice, axis=1), ddof=1) - noise**2 * np.mean(1 / counts))
    return float(np.sqrt(max(0.0, variance)))


def seed_correlation(dice: Matrix) -> float:
    """Return Spearman's correlation of the final Dice of two seeds, the mean over pairs of seeds; NaN without pairs."""
    from scipy.stats import spearmanr

    found = []
    for one, other in combinations(range(dice.shape[1]), 2):
        both = ~np.isnan(dice[:, [one, other]]).any(axis=1)
        if both.sum() >= 3 and (np.ptp(dice[both][:, [one, other]], axis=0) > 0).all():
            found.append(float(spearmanr(dice[both, one], dice[both, other]).statistic))
    return float(np.mean(found)) if found else float("nan")


def explained_by_costs(results: Results) -> float:
    """Return the share of the variance of mean Dice that a quadratic in the logarithms of the costs predicts.

    Each network is predicted from the others (leave one out); below zero costs predict worse than the mean does.
    NaN with fewer than twice as many networks as terms.
    """
    logs = [np.log(np.maximum(values, 1e-12)) for values in results.costs.values() if np.ptp(values) > 0]
    logs = [(values - values.mean()) / values.std() for values in logs]
    terms = [np.ones(len(results.dice)), *logs, *(one * other for one, other in _pairs(logs))]
    design, means = np.column_stack(terms), results.means
    if len(means) < 2 * len(terms) or np.ptp(means) == 0:
        return float("nan")
    hat = design @ np.linalg.pinv(design)
    left_out = (means - hat @ means) / np.maximum(1 - np.diag(hat), 1e-9)
    others_mean = (means - means.mean()) * len(means) / (len(means) - 1)
    return float(1 - (left_out**2).sum() / (others_mean**2).sum())


def _pairs(values: Sequence[Matrix]) -> list[tuple[Matrix, Matrix]]:
    return [(values[one], values[other]) for one in range(len(values)) for other in range(one, len(values))]


def choice_effects(results: Results) -> list[ChoiceEffect]:
    """Fit mean Dice by least squares on each block's number of places and each other axis's choices.

    Blocks come first. Empty with too few networks for the model.
    """
    columns, named = _columns(results.decisions)
    found = linear_effects(columns, results.means)
    return [
        ChoiceEffect(*name, *effect, networks=int((column > 0).sum()))
        for name, column, effect in zip(named, columns, found, strict=False)
    ]


def _columns(decisions: Sequence[Mapping[str, Value]]) -> tuple[list[Matrix], list[tuple[str, str, str]]]:
    names = list(dict.fromkeys(name for each in decisions for name in each))
    places = [name for name in names if AxisName.parse(name).is_attention]
    blocks = sorted({str(each[place]) for each in decisions for place in places if place in each} - {NONE})
    columns = [np.array([sum(each.get(place) == block for place in places) for each in decisions]) for block in blocks]
    named = [("block", block, NONE) for block in blocks]
    for name in names:
        if name in places:
            continue
        chosen = [str(each[name]) if name in each else None for each in decisions]
        choices = sorted({choice for choice in chosen if choice is not None}, key=_as_number)
        for choice in choices[1:]:
            columns.append(np.array([each == choice for each in chosen]))
            named.append((name, choice, choices[0]))
    return [column.astype(float) for column in columns], named


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text

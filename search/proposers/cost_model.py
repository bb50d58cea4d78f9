"""Costs of networks that nobody priced yet, learned from those that somebody did; it ranks, it never decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

from search.proposers.gaussian import Inputs, covariance, initial_scales

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
MOST = 400  # priced networks that it learns from
NOISE = 1e-4  # of the standardised logarithms: costs are exact, the kernel is not


@dataclass(frozen=True)
class CostModel:
    """One process a cost, with main and pairwise effects on its logarithm.

    `errors` are median relative errors of leaving one priced network out; `priced` counts what was there to learn
    from.
    """

    parts: tuple[_Part, ...]
    errors: Matrix
    priced: int

    def predict(self, codes: Codes) -> Matrix:
        """Return (n, costs) of free axes' codes; NaN for a cost of which nothing is known."""
        return np.stack([part.predict(codes) for part in self.parts], axis=1)


@dataclass(frozen=True)
class _Part:
    similarities: Sequence[Matrix]
    codes: Codes
    weights: Matrix
    centre: float
    unit: float

    def predict(self, codes: Codes) -> Matrix:
        if not len(self.codes):
            return np.full(len(codes), np.nan)
        across = _kernel(self.similarities, codes, self.codes)
        return np.asarray(np.exp(self.centre + self.unit * (across @ self.weights)))


def learn_costs(similarities: Sequence[Matrix], codes: Codes, costs: Matrix) -> CostModel:
    """Learn from priced networks: (n, free axes) codes and (n, costs), NaN where a cost was not measured."""
    made = [_learn(similarities, codes[known], column[known]) for column in costs.T for known in [~np.isnan(column)]]
    return CostModel(tuple(part for part, _ in made), np.array([error for _, error in made]), len(codes))


def _learn(similarities: Sequence[Matrix], codes: Codes, costs: Matrix) -> tuple[_Part, float]:
    codes, logs = codes[-MOST:], np.log(np.maximum(costs[-MOST:], 1e-12))
    if not len(codes):
        return _Part(similarities, codes, logs, 0.0, 1.0), float("nan")
    centre, unit = float(logs.mean()), float(max(logs.std(), 1e-9))
    matrix = _kernel(similarities, codes, codes)
    matrix[np.diag_indices_from(matrix)] += NOISE
    inverse = cho_solve((cholesky(matrix, lower=True, check_finite=False), True), np.eye(len(codes)))
    weights = inverse @ ((logs - centre) / unit)
    left_out = np.expm1(np.clip(weights / np.diag(inverse) * unit, -20.0, 20.0))
    return _Part(similarities, codes, weights, centre, unit), float(np.median(np.abs(left_out)))


def _kernel(similarities: Sequence[Matrix], ones: Codes, others: Codes) -> Matrix:
    none_one, none_other = np.zeros((len(ones), 0)), np.zeros((len(others), 0))
    scales = initial_scales(len(similarities))
    return covariance(similarities, scales, Inputs(ones, none_one), Inputs(others, none_other))

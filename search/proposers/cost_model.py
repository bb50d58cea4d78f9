"""Costs of networks that nobody priced yet, learned from those that somebody did; it ranks, it never decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

from search.proposers.gaussian import Inputs, covariance, initial_scales
from space.coded import Coded

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
COSTS = ("params", "macs", "memory", "inference_memory", "latency")
FIRST_PRICED = 24  # random networks that are priced before there is anything to learn from
FIRST_ROWS = 2000
MOST = 400  # priced networks that it learns from
NOISE = 1e-4  # of the standardised logarithms: costs are exact, the kernel is not


@dataclass(frozen=True)
class CostModel:
    """A process with main and pairwise effects on the logarithms of costs.

    `errors` are median relative errors of leaving one priced network out; `priced` counts what was there to learn
    from.
    """

    parts: tuple[_Part, ...]
    errors: Matrix
    priced: int

    def predict(self, codes: Codes) -> Matrix:
        """Return (n, costs) of free axes' codes; NaN for a cost of which nothing is known."""
        predicted = np.full((len(codes), len(self.errors)), np.nan)
        for part in self.parts:
            predicted[:, part.columns] = part.predict(codes)
        return predicted


@dataclass(frozen=True)
class _Part:
    """Costs that were measured on the same networks."""

    columns: list[int]
    similarities: Sequence[Matrix]
    codes: Codes
    weights: Matrix
    centre: Matrix
    unit: Matrix

    def predict(self, codes: Codes) -> Matrix:
        across = _kernel(self.similarities, codes, self.codes)
        return np.asarray(np.exp(self.centre + self.unit * (across @ self.weights)))


def first_rows(coded: Coded, seed: int) -> Codes:
    """Return the random rows that a study prices first: the same for its reference and for its proposer."""
    rows = coded.sample(np.random.default_rng(seed), FIRST_ROWS)
    return rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]


def learn_costs(similarities: Sequence[Matrix], codes: Codes, costs: Matrix) -> CostModel:
    """Learn from priced networks: (n, free axes) codes and (n, costs), NaN where a cost was not measured."""
    measured, errors, parts = ~np.isnan(costs), np.full(costs.shape[1], np.nan), []
    for pattern in {column.tobytes(): column for column in measured.T}.values():
        if pattern.any():
            columns = np.flatnonzero((measured == pattern[:, None]).all(axis=0)).tolist()
            part, errors[columns] = _learn(similarities, codes[pattern], costs[pattern][:, columns], columns)
            parts.append(part)
    return CostModel(tuple(parts), errors, len(codes))


def _learn(similarities: Sequence[Matrix], codes: Codes, costs: Matrix, columns: list[int]) -> tuple[_Part, Matrix]:
    codes, logs = codes[-MOST:], np.log(np.maximum(costs[-MOST:], 1e-12))
    centre, unit = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-9)
    matrix = _kernel(similarities, codes, codes)
    matrix[np.diag_indices_from(matrix)] += NOISE
    inverse = cho_solve((cholesky(matrix, lower=True, check_finite=False), True), np.eye(len(codes)))
    weights = inverse @ ((logs - centre) / unit)
    left_out = np.expm1(np.clip(weights / np.diag(inverse)[:, None] * unit, -20.0, 20.0))
    return _Part(columns, similarities, codes, weights, centre, unit), np.median(np.abs(left_out), axis=0)


def _kernel(similarities: Sequence[Matrix], ones: Codes, others: Codes) -> Matrix:
    none_one, none_other = np.zeros((len(ones), 0)), np.zeros((len(others), 0))
    scales = initial_scales(len(similarities))
    return covariance(similarities, scales, Inputs(ones, none_one), Inputs(others, none_other))

"""A cost model learned from priced networks; it ranks candidates, and exact costs decide among the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky

from search.proposers.kernel_terms import Codes, Matrix, features, initial_scales, kernel_terms
from space.encoding import Coded

FIRST_PRICED = 24  # random networks priced before the model is learned
FIRST_ROWS = 2000
MAX_LEARNED = 400  # latest priced networks that the model learns from
NOISE = 1e-4  # variance of the standardised log costs: they are exact, but the kernel can't represent them exactly


@dataclass(frozen=True)
class CostModel:
    """A Gaussian process over log costs with main and pairwise effects of the axes.

    `errors` are the median relative leave-one-out errors per cost; `priced` counts the priced networks.
    """

    parts: tuple[_Part, ...]
    errors: Matrix
    priced: int

    def predict(self, codes: Codes) -> Matrix:
        """Return predicted costs (n, costs) for codes (n, free axes); NaN for a cost that was never measured."""
        predicted = np.full((len(codes), len(self.errors)), np.nan)
        for part in self.parts:
            predicted[:, part.columns] = part.predict(codes)
        return predicted


@dataclass(frozen=True)
class _Part:
    """Costs that were measured on the same networks."""

    columns: list[int]
    similarities: Sequence[Matrix]
    inputs: Matrix
    weights: Matrix
    centre: Matrix
    unit: Matrix

    def predict(self, codes: Codes) -> Matrix:
        standard = _kernel(self.similarities, _inputs(self.similarities, codes), self.inputs) @ self.weights
        return np.asarray(np.exp(self.centre + self.unit * standard))


def first_rows(coded: Coded, seed: int) -> Codes:
    """Return the distinct random rows among which a study prices its first networks."""
    rows = coded.sample(np.random.default_rng(seed), FIRST_ROWS)
    return rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]


def learn_costs(similarities: Sequence[Matrix], codes: Codes, costs: Matrix) -> CostModel:
    """Learn from codes (n, free axes) and costs (n, costs) of priced networks; NaN marks a cost not measured."""
    measured, errors, parts = ~np.isnan(costs), np.full(costs.shape[1], np.nan), []
    for pattern in {column.tobytes(): column for column in measured.T}.values():
        if pattern.any():
            columns = np.flatnonzero((measured == pattern[:, None]).all(axis=0)).tolist()
            part, errors[columns] = _learn(similarities, codes[pattern], costs[pattern][:, columns], columns)
            parts.append(part)
    return CostModel(tuple(parts), errors, len(codes))


def _learn(similarities: Sequence[Matrix], codes: Codes, costs: Matrix, columns: list[int]) -> tuple[_Part, Matrix]:
    codes, logs = codes[-MAX_LEARNED:], np.log(np.maximum(costs[-MAX_LEARNED:], 1e-12))
    centre, unit = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-9)
    inputs = _inputs(similarities, codes)
    lower = cholesky(_kernel(similarities, inputs, inputs) + NOISE * np.eye(len(codes)), lower=True)
    weights = cho_solve((lower, True), (logs - centre) / unit)
    inverse = cho_solve((lower, True), np.eye(len(codes)))
    left_out = np.expm1(np.clip(weights / np.diag(inverse)[:, None] * unit, -20.0, 20.0))
    part = _Part(columns, similarities, inputs, weights, centre, unit)
    return part, np.median(np.abs(left_out), axis=0)


def _kernel(similarities: Sequence[Matrix], ones: Matrix, others: Matrix) -> Matrix:
    scales = np.exp(initial_scales(len(similarities))[:-1])
    return kernel_terms(ones, others, scales=scales, spans=tuple(len(each) for each in similarities)).total


def _inputs(similarities: Sequence[Matrix], codes: Codes) -> Matrix:
    return features(similarities, codes, np.zeros((len(codes), 0)))

"""A Gaussian process over coded decisions and known costs: main effects, pairs, whole networks, and a cost trend.

The kernel is additive (Duvenaud et al. 2011): one term of single axes, one of pairs of axes, one of all axes at
once, a linear trend in the logarithms of the costs and a smooth one. Scales and each axis's relevance are fitted by
the marginal likelihood under priors that keep them sane at ten observations. Numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
TERMS = ("main", "pairs", "whole", "trend", "smooth")
PRIOR = {  # mean and deviation of the logarithms; observations have variance 1
    "relevance": (0.0, 0.7), "main": (np.log(0.5), 1.0), "pairs": (np.log(0.15), 1.0), "whole": (np.log(0.4), 1.0),
    "trend": (np.log(0.3), 1.0), "smooth": (np.log(0.1), 1.0), "decay": (np.log(0.15), 0.5),
    "noise": (np.log(0.02), 1.5),
}  # fmt: skip
SMOOTH = 1.5  # length of the smooth trend, in deviations of the costs' logarithms
JITTER = 1e-6
FIT_AT_MOST = 250  # observations from which the scales are fitted
STEPS = 40


@dataclass(frozen=True)
class Inputs:
    """Free axes' codes (n, axes) and standardised logarithms of costs (n, costs)."""

    codes: Codes
    costs: Matrix

    def take(self, rows: NDArray[np.int64]) -> Inputs:
        """Return some rows."""
        return Inputs(self.codes[rows], self.costs[rows])


@dataclass(frozen=True)
class Posterior:
    """A fitted process: predicts means and deviations of the function beneath the noise."""

    similarities: Sequence[Matrix]
    scales: Matrix
    inputs: Inputs
    factor: Matrix
    weights: Matrix
    centre: float
    unit: float

    @property
    def noise_deviation(self) -> float:
        """The deviation of one observation about the function."""
        return float(self.unit * np.exp(self.scales[-1] / 2))

    def mean(self, inputs: Inputs) -> Matrix:
        """Return the mean alone, at a fraction of what the deviation costs."""
        across = covariance(self.similarities, self.scales, inputs, self.inputs)
        return np.asarray(self.centre + self.unit * (across @ self.weights))

    def predict(self, inputs: Inputs) -> tuple[Matrix, Matrix]:
        """Return mean and deviation of the function at each input."""
        across = covariance(self.similarities, self.scales, inputs, self.inputs)
        solved = solve_triangular(self.factor, across.T, lower=True, check_finite=False)
        variance = _variances(self.scales, inputs) - (solved**2).sum(axis=0)
        mean = self.centre + self.unit * (across @ self.weights)
        return np.asarray(mean), np.asarray(self.unit * np.sqrt(np.maximum(variance, 1e-10)))


def initial_scales(axes: int) -> Matrix:
    """Return the priors' means: an axis's relevance each, the terms, decay, noise."""
    return np.array([PRIOR["relevance"][0]] * axes + [PRIOR[name][0] for name in (*TERMS, "decay", "noise")])


def condition(
    similarities: Sequence[Matrix], scales: Matrix, inputs: Inputs, observed: Matrix, *, extra: Matrix
) -> Posterior:
    """Condition on observations; `extra` are deviations of each beyond the common noise."""
    centre, unit = _centre(observed)
    targets = (observed - centre) / unit
    matrix = covariance(similarities, scales, inputs, inputs)
    matrix[np.diag_indices_from(matrix)] += np.exp(scales[-1]) + (extra / unit) ** 2 + JITTER
    factor = cholesky(matrix, lower=True, check_finite=False)
    weights = cho_solve((factor, True), targets, check_finite=False)
    return Posterior(similarities, scales, inputs, factor, weights, centre, unit)


def fit_scales(
    similarities: Sequence[Matrix], start: Matrix, inputs: Inputs, observed: Matrix, *, extra: Matrix
) -> Matrix:
    """Return the scales of the largest marginal likelihood times prior, from a start (the last fit)."""
    centre, unit = _centre(observed)
    targets, spread = (observed - centre) / unit, (extra / unit) ** 2
    alike = _alike(similarities, inputs.codes, inputs.codes)
    products, distances = _cost_terms(inputs.costs, inputs.costs)
    axes = len(alike)
    names = ["relevance"] * axes + [*TERMS, "decay", "noise"]
    prior_mean, prior_deviation = (np.array([PRIOR[name][part] for name in names]) for part in (0, 1))

    def loss(scales: Matrix) -> tuple[float, Matrix]:
        parts, relevance, main, whole = _parts(scales, alike, products, distances)
        matrix = np.sum(list(parts.values()), axis=0)
        matrix[np.diag_indices_from(matrix)] += np.exp(scales[-1]) + spread + JITTER
        try:
            factor = cholesky(matrix, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(scales)
        inverse = cho_solve((factor, True), np.eye(len(targets)), check_finite=False)
        weights = inverse @ targets
        pull = np.outer(weights, weights) - inverse
        slope = _slopes(scales, alike, parts, relevance, main, whole, pull)
        away = (scales - prior_mean) / prior_deviation
        value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * (away**2).sum()
        return float(value), -0.5 * slope + away / prior_deviation

    bounds = [(mean - 4 * deviation, mean + 4 * deviation) for mean, deviation in zip(
        prior_mean, prior_deviation, strict=True)]  # fmt: skip
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return np.asarray(found.x)


def _centre(observed: Matrix) -> tuple[float, float]:
    return float(observed.mean()), float(max(observed.std(), 1e-6))


def _alike(similarities: Sequence[Matrix], ones: Codes, others: Codes) -> Matrix:
    """Similarity of each pair of rows on each axis: (axes, n, m)."""
    made = [table[ones[:, axis]][:, others[:, axis]] for axis, table in enumerate(similarities)]
    return np.stack(made) if made else np.zeros((0, len(ones), len(others)))


def _cost_terms(ones: Matrix, others: Matrix) -> tuple[Matrix, Matrix]:
    products = ones @ others.T / max(ones.shape[1], 1)
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * ones @ others.T
    return products, np.exp(-0.5 * np.maximum(squares, 0.0) / max(ones.shape[1], 1) / SMOOTH**2)


def _parts(
    scales: Matrix, alike: Matrix, products: Matrix, distances: Matrix
) -> tuple[dict[str, Matrix], Matrix, Matrix, Matrix]:
    axes = len(alike)
    relevance = np.exp(scales[:axes])
    variance = dict(zip(TERMS, np.exp(scales[axes : axes + len(TERMS)]), strict=True))
    decay = np.exp(scales[-2])
    count = max(axes, 1)
    main = np.tensordot(relevance, alike, axes=1) / count
    squares = np.tensordot(relevance**2, alike**2, axes=1) / count**2
    far = relevance.sum() - count * main
    whole = np.exp(-decay * far)
    parts = {
        "main": variance["main"] * main, "pairs": variance["pairs"] * (main**2 - squares),
        "whole": variance["whole"] * whole, "trend": variance["trend"] * products,
        "smooth": variance["smooth"] * distances,
    }  # fmt: skip
    return parts, relevance, main, whole


def _slopes(
    scales: Matrix, alike: Matrix, parts: dict[str, Matrix], relevance: Matrix, main: Matrix, whole: Matrix,
    pull: Matrix,
) -> Matrix:  # fmt: skip
    """Return the sum of `pull` times the kernel's derivative by the logarithm of each scale."""
    axes, count = len(alike), max(len(alike), 1)
    variance = dict(zip(TERMS, np.exp(scales[axes : axes + len(TERMS)]), strict=True))
    decay = np.exp(scales[-2])
    flat = alike.reshape(axes, -1)
    single = flat @ (pull * (variance["main"] / count + 2 * variance["pairs"] * main / count)).ravel()
    single -= relevance * ((flat**2) @ (2 * variance["pairs"] / count**2 * pull).ravel())
    far_pull = pull * parts["whole"] * -decay
    single += far_pull.sum() - flat @ far_pull.ravel()
    terms = [float((pull * parts[name]).sum()) for name in TERMS]
    far = relevance.sum() - count * main
    by_decay = float((pull * parts["whole"] * -decay * far).sum())
    by_noise = float(np.exp(scales[-1]) * np.trace(pull))
    return np.array([*(relevance * single), *terms, by_decay, by_noise])


def covariance(similarities: Sequence[Matrix], scales: Matrix, ones: Inputs, others: Inputs) -> Matrix:
    """Return the kernel between two sets of inputs.

    Similarities are products of roots looked up by code, so that the sums over axes are matrix products.
    """
    axes = len(similarities)
    relevance, count = np.exp(scales[:axes]), max(axes, 1)
    main = _rooted(similarities, relevance, ones.codes) @ _rooted(similarities, relevance, others.codes).T / count
    doubled = [similarity**2 for similarity in similarities]
    squares = _rooted(doubled, relevance**2, ones.codes) @ _rooted(doubled, relevance**2, others.codes).T / count**2
    variance = dict(zip(TERMS, np.exp(scales[axes : axes + len(TERMS)]), strict=True))
    matrix = variance["main"] * main + variance["pairs"] * (main**2 - squares)
    matrix += variance["whole"] * np.exp(-np.exp(scales[-2]) * (relevance.sum() - count * main))
    if ones.costs.shape[1]:
        products, distances = _cost_terms(ones.costs, others.costs)
        matrix += variance["trend"] * products + variance["smooth"] * distances
    return np.asarray(matrix)


def _rooted(similarities: Sequence[Matrix], relevance: Matrix, codes: Codes) -> Matrix:
    """Return rows whose products are the sums over axes of relevance times similarity."""
    made = [
        np.sqrt(weight) * _root(similarity)[codes[:, axis]]
        for axis, (similarity, weight) in enumerate(zip(similarities, relevance, strict=True))
    ]
    return np.concatenate(made, axis=1) if made else np.zeros((len(codes), 1))


def _root(similarity: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(similarity)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _variances(scales: Matrix, inputs: Inputs) -> Matrix:
    """The kernel of each input with itself: a constant, and the trend."""
    axes = len(scales) - len(TERMS) - 2
    relevance = np.exp(scales[:axes])
    variance = dict(zip(TERMS, np.exp(scales[axes : axes + len(TERMS)]), strict=True))
    main = relevance.sum() / max(axes, 1)
    pairs = main**2 - (relevance**2).sum() / max(axes, 1) ** 2
    steady = variance["main"] * main + variance["pairs"] * pairs + variance["whole"] + variance["smooth"]
    return np.asarray(steady + variance["trend"] * (inputs.costs**2).sum(axis=1) / max(inputs.costs.shape[1], 1))

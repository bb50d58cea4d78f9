"""A Gaussian process (scikit-learn's, with its own kernel) over coded decisions and known costs.

The kernel is additive (Duvenaud et al., 2011). Its terms are single axes, pairs of axes and all axes at once, which
share one relevance per axis, and a linear and a smooth trend in the log costs. Scales and relevances are maximum a
posteriori estimates; the priors keep them reasonable from ten observations on.

scikit-learn's kernels can't share relevances between terms; studies/notes/known_cost.md compares some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel, WhiteKernel

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
TERMS = ("main", "pairs", "whole", "trend", "smooth")
PRIOR = {  # mean and standard deviation of the logarithms, for observations of variance 1
    "relevance": (0.0, 0.7),
    "main": (np.log(0.5), 1.0),
    "pairs": (np.log(0.15), 1.0),
    "whole": (np.log(0.4), 1.0),
    "trend": (np.log(0.3), 1.0),
    "smooth": (np.log(0.1), 1.0),
    "decay": (np.log(0.15), 0.5),
    "noise": (np.log(0.02), 1.5),
}
BOUND = 4.0  # bounds of the optimisation, in standard deviations of the prior
SMOOTH = 1.5  # length scale of the smooth trend, in standard deviations of the log costs
JITTER = 1e-6
MAX_FITTED = 250  # observations that the scales are fitted to
STEPS = 40


class Effects(Kernel):  # type: ignore[misc]  # scikit-learn has no types
    """The kernel on rows of `features`; `spans` holds the number of columns of each axis, costs come after them."""

    def __init__(self, scales: Matrix, spans: tuple[int, ...]) -> None:
        self.scales, self.spans = scales, spans

    @property
    def hyperparameter_scales(self) -> Hyperparameter:
        """The relevance of each axis, the variance of each term, and the decay, all positive."""
        return Hyperparameter("scales", "numeric", (1e-9, 1e9), len(self.scales))

    def __call__(self, X: Matrix, Y: Matrix | None = None, eval_gradient: bool = False) -> Any:
        """Return the kernel matrix, with `eval_gradient` also its derivatives with respect to the log scales."""
        others = X if Y is None else Y
        axes, costs = len(self.spans), sum(self.spans)
        relevance, (main, pairs, whole, trend, smooth, decay) = self.scales[:axes], self.scales[axes:]
        mean = (X[:, :costs] * np.repeat(relevance, self.spans)) @ others[:, :costs].T / max(axes, 1)
        far = np.exp(-decay * (relevance.sum() - axes * mean))
        product, near = _cost_terms(X[:, costs:], others[:, costs:])
        terms = [main * mean, pairs * mean**2, whole * far, trend * product, smooth * near]
        if not eval_gradient:
            return sum(terms)
        slopes = []
        for weight, start, stop in zip(relevance, np.cumsum((0, *self.spans)), np.cumsum(self.spans), strict=False):
            alike = X[:, start:stop] @ others[:, start:stop].T
            by_mean = (main + 2 * pairs * mean) / axes
            slopes.append(weight * (alike * by_mean - decay * terms[2] * (1 - alike)))
        by_decay = -decay * (relevance.sum() - axes * mean) * terms[2]
        return sum(terms), np.stack([*slopes, *terms, by_decay], axis=2)

    def diag(self, X: Matrix) -> Matrix:
        """Return the kernel of each row with itself."""
        axes, costs = len(self.spans), X[:, sum(self.spans) :]
        mean = self.scales[:axes].sum() / max(axes, 1)
        main, pairs, whole, trend, smooth, _ = self.scales[axes:]
        steady = main * mean + pairs * mean**2 + whole + smooth
        return np.asarray(steady + trend * (costs**2).sum(axis=1) / max(costs.shape[1], 1))

    def is_stationary(self) -> bool:
        """Return False, because of the linear trend."""
        return False


def _cost_terms(ones: Matrix, others: Matrix) -> tuple[Matrix, Matrix]:
    count = max(ones.shape[1], 1)
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * ones @ others.T
    return ones @ others.T / count, np.exp(-0.5 * np.maximum(squares, 0.0) / count / SMOOTH**2)


def features(similarities: Sequence[Matrix], codes: Codes, costs: Matrix) -> Matrix:
    """Return the kernel's input rows: columns per axis, whose dot products are its similarities, then the costs."""
    axes = [_root(similarity)[codes[:, axis]] for axis, similarity in enumerate(similarities)]
    return np.concatenate([*axes, costs], axis=1)


def _root(similarity: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(similarity)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def kernel_of(similarities: Sequence[Matrix], scales: Matrix) -> Kernel:
    """Return the kernel with these log scales; the last is the noise variance."""
    *own, noise = np.exp(scales)
    return Effects(np.array(own), tuple(len(each) for each in similarities)) + WhiteKernel(noise, (1e-9, 1e9))


@dataclass(frozen=True)
class Posterior:
    """A fitted process: predicts means and standard deviations of the noise-free function."""

    process: GaussianProcessRegressor
    centre: float
    unit: float

    def mean(self, inputs: Matrix) -> Matrix:
        """Return only the mean, which is much cheaper than the deviation."""
        return np.asarray(self.centre + self.unit * self.process.predict(inputs))

    def predict(self, inputs: Matrix) -> tuple[Matrix, Matrix]:
        """Return mean and standard deviation of the function at each input."""
        mean, deviation = self.process.predict(inputs, return_std=True)
        variance = np.maximum(deviation**2 - self.process.kernel_.k2.noise_level, 1e-10)
        return np.asarray(self.centre + self.unit * mean), np.asarray(self.unit * np.sqrt(variance))


def initial_scales(axes: int) -> Matrix:
    """Return the prior means of the log scales: relevance of each axis, terms, decay, noise."""
    return np.array([PRIOR[name][0] for name in _names(axes)])


def _names(axes: int) -> list[str]:
    return ["relevance"] * axes + [*TERMS, "decay", "noise"]


def condition(
    similarities: Sequence[Matrix], scales: Matrix, inputs: Matrix, observed: Matrix, *, extra: Matrix
) -> Posterior:
    """Condition on observations; `extra` is the standard deviation of each beyond the common noise."""
    return _fitted(similarities, scales, inputs, observed, extra=extra, optimizer=None)


def fit_scales(
    similarities: Sequence[Matrix], start: Matrix, inputs: Matrix, observed: Matrix, *, extra: Matrix
) -> Matrix:
    """Return the log scales that maximise marginal likelihood times prior, optimised from `start`."""
    prior = np.array([PRIOR[name] for name in _names(len(similarities))]).T
    most_probable = _most_probable(*prior)
    fitted = _fitted(similarities, start, inputs, observed, extra=extra, optimizer=most_probable)
    return np.asarray(fitted.process.kernel_.theta)


def _fitted(
    similarities: Sequence[Matrix], scales: Matrix, inputs: Matrix, observed: Matrix, *, extra: Matrix, optimizer: Any
) -> Posterior:
    centre, unit = float(observed.mean()), float(max(observed.std(), 1e-6))
    process = GaussianProcessRegressor(
        kernel_of(similarities, scales), alpha=JITTER + (extra / unit) ** 2, optimizer=optimizer
    )
    return Posterior(process.fit(inputs, (observed - centre) / unit), centre, unit)


def _most_probable(mean: Matrix, deviation: Matrix) -> Callable[..., tuple[Matrix, float]]:
    """Return an optimiser of the log likelihood plus the log prior."""

    def optimise(loss: Any, start: Matrix, bounds: Matrix) -> tuple[Matrix, float]:
        def with_prior(scales: Matrix) -> tuple[float, Matrix]:
            value, slope = loss(scales)
            away = (scales - mean) / deviation
            return float(value + 0.5 * (away**2).sum()), slope + away / deviation

        within = np.stack([mean - BOUND * deviation, mean + BOUND * deviation], axis=1)
        found = minimize(with_prior, start, jac=True, method="L-BFGS-B", bounds=within, options={"maxiter": STEPS})
        return found.x, float(found.fun)

    return optimise

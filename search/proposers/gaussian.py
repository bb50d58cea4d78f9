"""A Gaussian process (scikit-learn's, with its own kernel) over coded decisions and known costs.

Scales and relevances (see `kernel_terms`) are maximum a posteriori estimates; the priors keep them reasonable from ten
observations on.

scikit-learn's kernels can't share relevances between terms; studies/notes/known_cost.md compares some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from search.proposers.kernel_terms import PRIOR, KernelTerms, Matrix, kernel_slopes, kernel_terms, scale_names

BOUND = 4.0  # bounds of the optimisation, in standard deviations of the prior
KNOWN_NOISE = 0.01  # standard deviation of the logarithm of a known noise variance
JITTER = 1e-6
LEAN = 1.0  # prior mean of a hint's coefficient; its prior deviation is 1
SPREAD_WEIGHT = 4  # observations that the expected spread counts as
MAX_FITTED = 250  # observations that the scales are fitted to
STEPS = 40
ROWS = 512  # whose means are computed at once


class Effects(Kernel):  # type: ignore[misc]  # scikit-learn has no types
    """The kernel on `features`: `spans` are the numbers of columns of each axis; then costs, hints, noise weight.

    It is linear in the hints, with a variance of 1.
    """

    def __init__(self, scales: Matrix, spans: tuple[int, ...], hints: int = 0) -> None:
        self.scales, self.spans, self.hints = scales, spans, hints

    @property
    def hyperparameter_scales(self) -> Hyperparameter:
        """The relevance of each axis, the variance of each term, and the decay, all positive."""
        return Hyperparameter("scales", "numeric", (1e-9, 1e9), len(self.scales))

    def __call__(self, X: Matrix, Y: Matrix | None = None) -> Matrix:
        """Return the kernel matrix between two sets of rows."""
        return self.terms(X, X if Y is None else Y).total

    def terms(self, ones: Matrix, others: Matrix) -> KernelTerms:
        """Return the kernel and its terms."""
        return kernel_terms(ones, others, scales=self.scales, spans=self.spans, hints=self.hints)

    def diag(self, X: Matrix) -> Matrix:
        """Return the kernel of each row with itself."""
        axes, first = len(self.spans), X.shape[1] - 1 - self.hints
        costs, hints = X[:, sum(self.spans) : first], X[:, first:-1]
        mean = self.scales[:axes].sum() / max(axes, 1)
        main, pairs, whole, trend, smooth, _ = self.scales[axes:]
        steady = main * mean + pairs * mean**2 + whole + smooth
        return np.asarray(steady + (hints**2).sum(axis=1) + trend * (costs**2).sum(axis=1) / max(costs.shape[1], 1))

    def is_stationary(self) -> bool:
        """Return False, because of the linear trend."""
        return False


class TrainingNoise(Kernel):  # type: ignore[misc]  # scikit-learn has no types
    """Independent noise of each observation: `level` times its weight, the last column of the features."""

    def __init__(self, level: float) -> None:
        self.level = level

    @property
    def hyperparameter_level(self) -> Hyperparameter:
        """The variance of an observation of weight 1."""
        return Hyperparameter("level", "numeric", (1e-12, 1e9))

    def __call__(self, X: Matrix, Y: Matrix | None = None) -> Matrix:
        """Return the noise's covariance: none between two sets of rows."""
        return np.diag(self.diag(X)) if Y is None else np.zeros((len(X), len(Y)))

    def diag(self, X: Matrix) -> Matrix:
        """Return the noise of each row."""
        return np.asarray(self.level * X[:, -1])

    def is_stationary(self) -> bool:
        """Tell scikit-learn that rows have weights of their own."""
        return False


def kernel_of(similarities: Sequence[Matrix], scales: Matrix, *, hints: int = 0) -> Kernel:
    """Return the kernel with these log scales; the last is the noise variance."""
    *own, noise = np.exp(scales)
    return Effects(np.array(own), tuple(len(each) for each in similarities), hints) + TrainingNoise(noise)


class Process(GaussianProcessRegressor):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's process with its own likelihood, whose derivatives need no matrix for each scale.

    Scales that are not optimised have none: it would take half of the time of `fit`.
    """

    def log_marginal_likelihood(self, theta: Matrix, eval_gradient: bool = False, clone_kernel: bool = True) -> Any:
        """Return the log marginal likelihood of log scales and its derivatives; NaN if they are not optimised."""
        if self.optimizer is None:
            return np.nan
        if not eval_gradient:
            return super().log_marginal_likelihood(theta, clone_kernel=clone_kernel)
        kernel, inputs, observed = self.kernel_.clone_with_theta(theta), self.X_train_, self.y_train_
        effects, noise = kernel.k1, kernel.k2.diag(inputs)
        found = effects.terms(inputs, inputs)
        try:
            factor = cho_factor(found.total + np.diag(noise + self.alpha), lower=True)
        except np.linalg.LinAlgError:
            return -np.inf, np.zeros(len(theta))
        solved = cho_solve(factor, observed)
        weights = 0.5 * (np.outer(solved, solved) - cho_solve(factor, np.eye(len(inputs))))
        slopes = kernel_slopes(inputs, found, weights, scales=effects.scales, spans=effects.spans)
        value = -0.5 * observed @ solved - np.log(np.diag(factor[0])).sum() - 0.5 * len(inputs) * np.log(2 * np.pi)
        return value, np.append(slopes, np.diag(weights) @ noise)


@dataclass(frozen=True)
class Expectation:
    """What is expected before the first observation: the number of hints, and the function's standard deviation."""

    hints: int = 0
    spread: float | None = None

    def lean(self, inputs: Matrix) -> Matrix:
        """Return the expected value of the function by its hints, up to a constant, in units of its deviation."""
        return np.asarray(LEAN * inputs[:, -1 - self.hints : -1].sum(axis=1))

    def unit(self, observed: Matrix) -> float:
        """Return the deviation of the observations, pooled with the expected one."""
        if self.spread is None:
            return float(max(observed.std(), 1e-6))
        variance = (SPREAD_WEIGHT * self.spread**2 + len(observed) * observed.var()) / (SPREAD_WEIGHT + len(observed))
        return float(max(np.sqrt(variance), 1e-6))


NOTHING = Expectation()


@dataclass(frozen=True)
class Posterior:
    """A fitted process: predicts means and standard deviations of the noise-free function."""

    process: GaussianProcessRegressor
    centre: float
    unit: float
    expected: Expectation = NOTHING

    def mean(self, inputs: Matrix) -> Matrix:
        """Return only the mean, which is much cheaper than the deviation; blocks of rows fit into the cache."""
        blocks = np.array_split(inputs, 1 + (len(inputs) - 1) // ROWS)
        return self._scaled(inputs, np.concatenate([self.process.predict(each) for each in blocks]))

    def _scaled(self, inputs: Matrix, values: Matrix) -> Matrix:
        return np.asarray(self.centre + self.unit * (values.T + self.expected.lean(inputs)).T)

    def predict(self, inputs: Matrix) -> tuple[Matrix, Matrix]:
        """Return mean and standard deviation of the function at each input."""
        mean, deviation = self.process.predict(inputs, return_std=True)
        return self._scaled(inputs, mean), np.asarray(self.unit * np.maximum(deviation, 1e-5))

    @property
    def noise(self) -> float:
        """The deviation of an observation of weight 1."""
        return self.unit * float(np.sqrt(self.process.kernel_.k2.level))

    def draw(self, inputs: Matrix, *, count: int, seed: int) -> Matrix:
        """Draw the function jointly at all inputs: (inputs, count)."""
        return self._scaled(inputs, self.process.sample_y(inputs, count, random_state=seed))

    @property
    def coefficients(self) -> Matrix:
        """The expected coefficients of the hints."""
        hints = self.process.X_train_[:, -1 - self.expected.hints : -1]
        return np.asarray(LEAN + hints.T @ self.process.alpha_)


def condition(
    similarities: Sequence[Matrix],
    scales: Matrix,
    inputs: Matrix,
    observed: Matrix,
    *,
    extra: Matrix,
    expected: Expectation = NOTHING,
) -> Posterior:
    """Condition on observations; `extra` is the standard deviation of each beyond the common noise."""
    return _fitted(similarities, scales, inputs, observed, extra=extra, expected=expected, optimizer=None)


def fit_scales(
    similarities: Sequence[Matrix],
    inputs: Matrix,
    observed: Matrix,
    *,
    extra: Matrix,
    noise: float | None = None,
    expected: Expectation = NOTHING,
) -> Matrix:
    """Return the scales of the largest marginal likelihood times prior.

    `noise` is the standard deviation of an observation of weight 1, if it is known.
    """
    prior = np.array([PRIOR[name] for name in scale_names(len(similarities))])
    if noise is not None:
        prior[-1] = 2 * np.log(noise / expected.unit(observed)), KNOWN_NOISE
    best = _most_probable(*prior.T)
    fitted = _fitted(similarities, prior[:, 0], inputs, observed, extra=extra, expected=expected, optimizer=best)
    return np.asarray(fitted.process.kernel_.theta)


def _fitted(
    similarities: Sequence[Matrix],
    scales: Matrix,
    inputs: Matrix,
    observed: Matrix,
    *,
    extra: Matrix,
    expected: Expectation,
    optimizer: Any,
) -> Posterior:
    unit = expected.unit(observed)
    values = observed - unit * expected.lean(inputs)
    centre = float(values.mean())
    process = Process(
        kernel_of(similarities, scales, hints=expected.hints), alpha=JITTER + (extra / unit) ** 2, optimizer=optimizer
    )
    return Posterior(process.fit(inputs, (values - centre) / unit), centre, unit, expected)


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

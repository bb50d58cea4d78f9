"""The acquisition function of the known-cost proposer, on plain arrays.

The surrogate models only Dice, because costs are exact. It models the logarithm of the Dice loss (1 - Dice), since
improvements remove a fraction of the remaining loss and the loss falls as a power of the cost. A network in training
counts with its expected Dice, so that simultaneous asks propose different networks.

studies/notes/known_cost.md lists the variants that were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

from search.proposers.gain import expected_gains
from search.proposers.gaussian import MAX_FITTED, Posterior, condition, features, fit_scales, initial_scales

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
MAX_CONDITIONED = 1500  # observations that the process is conditioned on
MIN_LOSS = 0.005  # smaller Dice losses are noise, which the logarithm would magnify
DEFAULT_DEVIATION = 0.05  # standard deviation of a stopped curve's expected Dice with fewer than four complete curves
MIN_DEVIATION = 0.005  # and its lower bound with more
REFIT = 0.1  # fraction of new observations after which the scales are fitted again


@dataclass(frozen=True)
class Evidence:
    """Observations, a row per network: codes of the free axes, logarithms of costs, and Dice.

    `extra` is the standard deviation of each Dice beyond training noise, for instance of an extrapolated curve.
    `pending` marks networks in training; their Dice is ignored.
    """

    codes: Codes
    log_costs: Matrix
    dice: Matrix
    extra: Matrix
    pending: NDArray[np.bool_]


@dataclass(frozen=True)
class Surrogate:
    """A posterior over the logarithm of the Dice loss; costs are standardised by `centre` and `unit`."""

    posterior: Posterior
    similarities: Sequence[Matrix]
    centre: Matrix
    unit: Matrix

    def mean(self, codes: Codes, log_costs: Matrix) -> Matrix:
        """Return the mean of the logarithm of the Dice loss."""
        return self.posterior.mean(self._inputs(codes, log_costs))

    def predict(self, codes: Codes, log_costs: Matrix) -> tuple[Matrix, Matrix]:
        """Return mean and standard deviation of the logarithm of the Dice loss."""
        return self.posterior.predict(self._inputs(codes, log_costs))

    def _inputs(self, codes: Codes, log_costs: Matrix) -> Matrix:
        return features(self.similarities, codes, (log_costs - self.centre) / self.unit)


def fit_dice(similarities: Sequence[Matrix], evidence: Evidence, *, rng: np.random.Generator) -> Matrix:
    """Fit the surrogate's scales to the observations, without the pending networks."""
    data = _observed(similarities, evidence)
    rows = _best_and_random(data.log_loss, MAX_FITTED, rng)
    start = initial_scales(len(similarities))
    return fit_scales(similarities, start, data.inputs[rows], data.log_loss[rows], extra=data.extra[rows])


def condition_dice(
    similarities: Sequence[Matrix], evidence: Evidence, *, scales: Matrix, rng: np.random.Generator
) -> Surrogate:
    """Condition the surrogate with these scales on the observations, and on pending networks as expected."""
    data = _observed(similarities, evidence)
    rows = _best_and_random(data.log_loss, MAX_CONDITIONED, rng)
    known, log_loss, extra = data.inputs[rows], data.log_loss[rows], data.extra[rows]
    posterior = condition(similarities, scales, known, log_loss, extra=extra)
    pending = data.pending
    if len(pending):  # observed at the expected value: the mean is unchanged, the deviation nearby shrinks
        expected = posterior.mean(pending)
        posterior = condition(
            similarities,
            scales,
            np.concatenate([known, pending]),
            np.concatenate([log_loss, expected]),
            extra=np.concatenate([extra, np.zeros(len(pending))]),
        )
    return Surrogate(posterior, similarities, data.centre, data.unit)


@dataclass(frozen=True)
class _Observed:
    """Inputs, logarithms of the Dice loss and extra deviations of the observations; inputs of pending networks."""

    inputs: Matrix
    log_loss: Matrix
    extra: Matrix
    pending: Matrix
    centre: Matrix
    unit: Matrix


def _observed(similarities: Sequence[Matrix], evidence: Evidence) -> _Observed:
    centre, unit = evidence.log_costs.mean(axis=0), np.maximum(evidence.log_costs.std(axis=0), 1e-9)
    inputs = features(similarities, evidence.codes, (evidence.log_costs - centre) / unit)
    seen = ~evidence.pending
    loss = np.maximum(1.0 - evidence.dice[seen], MIN_LOSS)
    return _Observed(inputs[seen], np.log(loss), evidence.extra[seen] / loss, inputs[evidence.pending], centre, unit)


def gains(
    surrogate: Surrogate,
    candidates: Codes,
    log_costs: Matrix,
    *,
    objectives: Matrix,
    front: Matrix,
    worst_dice: float,
) -> Matrix:
    """Return each candidate's expected hypervolume improvement.

    `log_costs` are those of the surrogate's trend; `objectives` are the costs among the objectives, as fractions of the
    reference. `front` has a row (log Dice loss by the surrogate's mean, fractions) per network known or in training.
    """
    mean, deviation = surrogate.predict(candidates, log_costs)
    scale = 1.0 - worst_dice
    losses = front.copy()
    losses[:, 0] = np.exp(front[:, 0]) / scale
    return expected_gains(mean - np.log(scale), deviation, objectives, front=losses)


def spread_design(log_cost: Matrix, codes: Codes, *, taken: Codes, count: int) -> int:
    """Return the row of the next network of an initial design that spans the costs; `count` networks exist already.

    The first two are the cheapest and the most expensive. The others aim at 1/2, 1/4, 3/4, 1/8, ... of the range of the
    log cost, and take the row near there that differs most from those already taken.
    """
    if count < 2:
        return int(np.argmin(log_cost) if count == 0 else np.argmax(log_cost))
    aim = _van_der_corput(count - 1)
    low, high = log_cost.min(), log_cost.max()
    near = np.argsort(np.abs(log_cost - (low + aim * (high - low))))[: max(10, len(log_cost) // 20)]
    differs = (codes[near][:, None, :] != taken[None]).mean(axis=2).min(axis=1) if len(taken) else np.zeros(len(near))
    return int(near[np.argmax(differs)])


def _van_der_corput(number: int) -> float:
    """Return the van der Corput sequence in base 2: 1/2, 1/4, 3/4, 1/8, 5/8, ... for 1, 2, 3, ..."""
    value, base = 0.0, 0.5
    while number:
        value += base * (number & 1)
        number >>= 1
        base /= 2
    return value


def extrapolate(curves: Sequence[Matrix], stopped: Sequence[Matrix]) -> tuple[Matrix, Matrix]:
    """Return the expected final Dice of stopped curves and its standard deviation, learned from complete curves.

    Bayesian ridge regression predicts the remaining gain from the gains in each third of the epochs so far. With fewer
    than four complete curves, their mean remaining gain is used.
    """
    expected, deviation = np.empty(len(stopped)), np.full(len(stopped), DEFAULT_DEVIATION)
    for number, curve in enumerate(stopped):
        age = len(curve)
        longer = [complete for complete in curves if len(complete) > age and complete[age - 1] >= 0]
        remaining = np.array([complete[-1] - complete[age - 1] for complete in longer])
        if len(longer) < 4:
            expected[number] = curve[-1] + (remaining.mean() if len(longer) else 0.0)
            continue
        model = BayesianRidge().fit([_gains_by_third(complete, age) for complete in longer], remaining)
        (rest,), deviation[number : number + 1] = model.predict([_gains_by_third(curve, age)], return_std=True)
        expected[number] = curve[-1] + rest
    return np.clip(expected, 0.0, 1.0), np.maximum(deviation, MIN_DEVIATION)


def _gains_by_third(curve: Matrix, age: int) -> list[float]:
    """Return the gain in each third of the first `age` epochs, the last third first; unknown Dice counts as 0."""
    ends = np.maximum(curve[[max(0, age - 1 - back) for back in (0, age // 3, 2 * age // 3, age - 1)]], 0.0)
    return list(ends[:-1] - ends[1:])


def _best_and_random(loss: Matrix, limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most `limit` indices in ascending order: half of them the best, half random among the others."""
    if len(loss) <= limit:
        return np.arange(len(loss))
    order = np.argsort(loss)
    rest = rng.permutation(order[limit // 2 :])[: limit - limit // 2]
    return np.sort(np.concatenate([order[: limit // 2], rest]))

"""The acquisition of the known-cost proposer, on plain numbers; real studies and simulations both call it.

The surrogate models Dice alone, because costs are exact. It models the logarithm of the Dice loss (1 - Dice):
improvements remove a share of the remaining loss, and the loss falls as a power of the cost. A network in training
counts with its expected Dice, which spreads out simultaneous asks.

studies/notes/known_cost.md lists the variants that were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

from search.proposers.gain import expected_gains
from search.proposers.gaussian import FIT_AT_MOST, Posterior, condition, features, fit_scales, initial_scales

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
CONDITION_AT_MOST = 1500  # observations that the process is conditioned on
LEAST_LOSS = 0.005  # of Dice: smaller losses are noise, which the logarithm would magnify
UNSURE, SUREST = 0.05, 0.005  # deviation of a stopped curve's expected Dice: with few whole curves, and at least
REFIT = 0.1  # the scales are fitted again after this share of new observations


@dataclass(frozen=True)
class Evidence:
    """The observations: free axes' codes, logarithms of costs, and Dice.

    `extra` is the deviation of each Dice beyond a training's own noise: of an extrapolated curve, say.
    `pending` marks networks in training, whose Dice is not read.
    """

    codes: Codes
    log_costs: Matrix
    dice: Matrix
    extra: Matrix
    pending: NDArray[np.bool_]


@dataclass(frozen=True)
class Surrogate:
    """A posterior over the logarithm of the Dice loss, and how costs are standardised for it."""

    posterior: Posterior
    similarities: Sequence[Matrix]
    centre: Matrix
    unit: Matrix

    def mean(self, codes: Codes, log_costs: Matrix) -> Matrix:
        """Return the mean of the logarithm of the Dice loss."""
        return self.posterior.mean(self._inputs(codes, log_costs))

    def predict(self, codes: Codes, log_costs: Matrix) -> tuple[Matrix, Matrix]:
        """Return mean and deviation of the logarithm of the Dice loss."""
        return self.posterior.predict(self._inputs(codes, log_costs))

    def _inputs(self, codes: Codes, log_costs: Matrix) -> Matrix:
        return features(self.similarities, codes, (log_costs - self.centre) / self.unit)


@dataclass(frozen=True)
class Scales:
    """Fitted scales and the number of observations that they were fitted to."""

    values: Matrix
    fitted_to: int


def learn_dice(
    similarities: Sequence[Matrix], evidence: Evidence, *, scales: Scales | None, rng: np.random.Generator
) -> tuple[Surrogate, Scales]:
    """Fit the surrogate; the scales are fitted again only after a tenth more observations."""
    centre, unit = evidence.log_costs.mean(axis=0), np.maximum(evidence.log_costs.std(axis=0), 1e-9)
    inputs = features(similarities, evidence.codes, (evidence.log_costs - centre) / unit)
    seen = np.flatnonzero(~evidence.pending)
    loss = np.maximum(1.0 - evidence.dice[seen], LEAST_LOSS)
    log_loss, extra = np.log(loss), evidence.extra[seen] / loss
    if scales is None or len(seen) >= scales.fitted_to * (1 + REFIT):
        start = initial_scales(len(similarities)) if scales is None else scales.values
        some = _best_and_some(loss, FIT_AT_MOST, rng)
        values = fit_scales(similarities, start, inputs[seen[some]], log_loss[some], extra=extra[some])
        scales = Scales(values, len(seen))
    some = _best_and_some(loss, CONDITION_AT_MOST, rng)
    known, log_loss, extra = inputs[seen[some]], log_loss[some], extra[some]
    posterior = condition(similarities, scales.values, known, log_loss, extra=extra)
    waiting = inputs[evidence.pending]
    if len(waiting):  # a pending network is taken to end as expected: the mean stays, the deviation near it shrinks
        expected = posterior.mean(waiting)
        posterior = condition(
            similarities,
            scales.values,
            np.concatenate([known, waiting]),
            np.concatenate([log_loss, expected]),
            extra=np.concatenate([extra, np.zeros(len(waiting))]),
        )
    return Surrogate(posterior, similarities, centre, unit), scales


def gains(
    surrogate: Surrogate,
    candidates: Codes,
    costs: Matrix,
    *,
    objectives: Matrix,
    front: Matrix,
    worst_dice: float,
) -> Matrix:
    """Return each candidate's expected gain of hypervolume.

    `costs` are all known costs (for the trend), `objectives` those on the front, as shares of the reference;
    `front` holds (logarithm of the Dice loss, shares) of the networks known or in training, by the surrogate's mean.
    """
    mean, deviation = surrogate.predict(candidates, np.log(np.maximum(costs, 1e-12)))
    scale = 1.0 - worst_dice
    losses = front.copy()
    losses[:, 0] = np.exp(front[:, 0]) / scale
    return expected_gains(mean - np.log(scale), deviation, objectives, front=losses)


def spread_design(log_cost: Matrix, codes: Codes, *, taken: Codes, count: int) -> int:
    """Return the row for place `count` of a first design: both ends of the cost, then halves between, far from others.

    Places 0 and 1 are the cheapest and the most expensive; the others aim at the quantiles 1/2, 1/4, 3/4, 1/8, ...
    of the logarithm of the cost, and take the row there that differs most from the rows taken.
    """
    if count < 2:
        return int(np.argmin(log_cost) if count == 0 else np.argmax(log_cost))
    aim = _van_der_corput(count - 1)
    low, high = log_cost.min(), log_cost.max()
    near = np.argsort(np.abs(log_cost - (low + aim * (high - low))))[: max(10, len(log_cost) // 20)]
    differs = (codes[near][:, None, :] != taken[None]).mean(axis=2).min(axis=1) if len(taken) else np.zeros(len(near))
    return int(near[np.argmax(differs)])


def _van_der_corput(number: int) -> float:
    """1/2, 1/4, 3/4, 1/8, 5/8, ... for 1, 2, 3, ..."""
    value, base = 0.0, 0.5
    while number:
        value += base * (number & 1)
        number >>= 1
        base /= 2
    return value


def extrapolate(curves: Sequence[Matrix], stopped: Sequence[Matrix]) -> tuple[Matrix, Matrix]:
    """Return expected final Dice of stopped curves, and its deviation, from curves that went to their end.

    The remaining gain is regressed on the gains in each third of the epochs so far. With fewer than four whole curves
    it is their mean.
    """
    expected, deviation = np.empty(len(stopped)), np.full(len(stopped), UNSURE)
    for number, curve in enumerate(stopped):
        age = len(curve)
        older = [whole for whole in curves if len(whole) > age and whole[age - 1] >= 0]
        to_come = np.array([whole[-1] - whole[age - 1] for whole in older])
        if len(older) < 4:
            expected[number] = curve[-1] + (to_come.mean() if len(older) else 0.0)
            continue
        line = BayesianRidge().fit([_climbs(whole, age) for whole in older], to_come)
        (rest,), deviation[number : number + 1] = line.predict([_climbs(curve, age)], return_std=True)
        expected[number] = curve[-1] + rest
    return np.clip(expected, 0.0, 1.0), np.maximum(deviation, SUREST)


def _climbs(curve: Matrix, age: int) -> list[float]:
    """Return what each third of the epochs so far added, the last third first; before it is known, Dice counts as 0."""
    ends = np.maximum(curve[[max(0, age - 1 - back) for back in (0, age // 3, 2 * age // 3, age - 1)]], 0.0)
    return list(ends[:-1] - ends[1:])


def _best_and_some(loss: Matrix, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose half of `most` as the best and half at random, in their order; all if there are no more than `most`."""
    if len(loss) <= most:
        return np.arange(len(loss))
    order = np.argsort(loss)
    rest = rng.permutation(order[most // 2 :])[: most - most // 2]
    return np.sort(np.concatenate([order[: most // 2], rest]))

"""The acquisition function of the known-cost proposer, on plain arrays.

The surrogate models only Dice, because costs are exact. It models the logarithm of the Dice loss (1 - Dice), since
improvements remove a fraction of the remaining loss and the loss falls as a power of the cost. A network in training
counts with its expected Dice, so that simultaneous asks propose different networks.

studies/notes/known_cost.md lists the variants that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

from search.proposers.gain import expected_gains
from search.proposers.gaussian import MAX_FITTED, NOTHING, Expectation, Posterior, condition, features, fit_scales

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
MAX_CONDITIONED = 1500  # observations that the process is conditioned on
MIN_LOSS = 0.005  # of Dice: smaller losses are noise, which the logarithm would magnify
DEFAULT_DEVIATION = 0.05  # standard deviation of a stopped curve's expected Dice with fewer than four complete curves
MIN_DEVIATION = 0.005  # and its lower bound with more
# Prior of a training's standard deviation of Dice: in 150 public trainings of nnU-Net (3 networks, 10 data sets, 5
# folds) two networks on one fold differ with a standard deviation of 0.0078.
PRIOR_NOISE, PRIOR_REPEATS = 0.0078, 5
NO_NOISE = 1e-5  # where repeats give exactly the same Dice
MAX_WEIGHT = 25.0  # most that the noise of one observation exceeds a typical one's, as variances
REFIT = 0.1  # the scales are fitted again after this share of new observations


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
class Memory:
    """What earlier studies say about a new one; see `search.proposers.memory`.

    `hints` returns hints, (rows, sources), of codes; `shares` are their prior standard deviations. `spread` is the
    expected deviation of the log Dice loss; `centre` and `unit` standardise log costs.
    """

    hints: Callable[[Codes], Matrix]
    shares: Matrix
    spread: float
    centre: Matrix
    unit: Matrix

    @property
    def expected(self) -> Expectation:
        """What the surrogate expects before the first training."""
        return Expectation(len(self.shares), self.spread)


@dataclass(frozen=True)
class Surrogate:
    """A posterior over the logarithm of the Dice loss; `typical_loss` is the Dice loss whose noise has weight 1."""

    posterior: Posterior
    similarities: Sequence[Matrix]
    centre: Matrix
    unit: Matrix
    typical_loss: float
    memory: Memory | None = None

    @property
    def weights(self) -> Matrix:
        """The weight of each source: the coefficient of its standardised hint for the standardised log Dice loss."""
        if self.memory is None:
            return np.empty(0)
        return self.posterior.coefficients * self.memory.shares

    @property
    def noise(self) -> float:
        """The deviation of one training's Dice from the network's expected Dice."""
        return self.posterior.noise * self.typical_loss

    def mean(self, codes: Codes, log_costs: Matrix) -> Matrix:
        """Return the mean of the logarithm of the Dice loss."""
        return self.posterior.mean(self.inputs(codes, log_costs))

    def predict(self, codes: Codes, log_costs: Matrix) -> tuple[Matrix, Matrix]:
        """Return mean and standard deviation of the logarithm of the Dice loss."""
        return self.posterior.predict(self.inputs(codes, log_costs))

    def foresee(self, codes: Codes, log_costs: Matrix) -> Foreseen:
        """Return what one more training of each network would teach."""
        mean, deviation = self.predict(codes, log_costs)
        noise = self.posterior.noise * np.sqrt(_noise_weights(np.exp(mean), self.typical_loss))
        learned = deviation**2 / np.sqrt(deviation**2 + noise**2)
        return Foreseen(mean + 0.5 * deviation**2, mean + 0.5 * (deviation**2 - learned**2), learned)

    def inputs(self, codes: Codes, log_costs: Matrix) -> Matrix:
        """Return the posterior's inputs."""
        hints = self.memory.hints(codes) if self.memory else None
        return features(self.similarities, codes, (log_costs - self.centre) / self.unit, hints=hints)


@dataclass(frozen=True)
class Foreseen:
    """The logarithm of each network's expected Dice loss: now, and after one more training of it.

    The expected loss after the training is lognormal: `after` is the mean of its logarithm, `learned` the deviation.
    Noise keeps `learned` below the deviation of the loss itself.
    """

    now: Matrix
    after: Matrix
    learned: Matrix


def fit_dice(
    similarities: Sequence[Matrix], evidence: Evidence, *, rng: np.random.Generator, memory: Memory | None = None
) -> Matrix:
    """Fit the surrogate's scales and noise to the observations, without the pending networks."""
    data = _observed(similarities, evidence, memory)
    rows = _best_and_random(data.log_loss, MAX_FITTED, rng)
    noise = noise_from_repeats(evidence) / data.typical_loss
    expected = memory.expected if memory else NOTHING
    inputs, log_loss, extra = data.inputs[rows], data.log_loss[rows], data.extra[rows]
    return fit_scales(similarities, inputs, log_loss, extra=extra, noise=noise, expected=expected)


def noise_from_repeats(evidence: Evidence) -> float:
    """Return the standard deviation of one training's Dice, by the study's repeats and the prior.

    The variance within networks is pooled with the prior's, which counts as PRIOR_REPEATS repeats. Other residuals
    don't count: where the kernel fits badly, they would be taken for noise.
    """
    by_network: dict[bytes, list[float]] = {}
    for row in np.flatnonzero(~evidence.pending & (evidence.extra == 0)):
        key = evidence.codes[row].tobytes() + evidence.log_costs[row].tobytes()
        by_network.setdefault(key, []).append(float(evidence.dice[row]))
    within = [np.array(dice) - np.mean(dice) for dice in by_network.values()]
    squares, repeats = sum(float((each**2).sum()) for each in within), sum(len(each) - 1 for each in within)
    if repeats and squares == 0.0:
        return NO_NOISE
    variance = (PRIOR_REPEATS * PRIOR_NOISE**2 + squares) / (PRIOR_REPEATS + repeats)
    return float(np.sqrt(variance))


def condition_dice(
    similarities: Sequence[Matrix],
    evidence: Evidence,
    *,
    scales: Matrix,
    rng: np.random.Generator,
    memory: Memory | None = None,
) -> Surrogate:
    """Condition the surrogate with these scales on the observations, and on pending networks as expected."""
    data = _observed(similarities, evidence, memory)
    rows = _best_and_random(data.log_loss, MAX_CONDITIONED, rng)
    known, log_loss, extra = data.inputs[rows], data.log_loss[rows], data.extra[rows]
    expected_before = memory.expected if memory else NOTHING
    posterior = condition(similarities, scales, known, log_loss, extra=extra, expected=expected_before)
    pending = data.pending
    if len(pending):  # observed at the expected value: the mean is unchanged, the deviation nearby shrinks
        expected = posterior.mean(pending)
        pending[:, -1] = _noise_weights(np.exp(expected), data.typical_loss)
        posterior = condition(
            similarities,
            scales,
            np.concatenate([known, pending]),
            np.concatenate([log_loss, expected]),
            extra=np.concatenate([extra, np.zeros(len(pending))]),
            expected=expected_before,
        )
    return Surrogate(posterior, similarities, data.centre, data.unit, data.typical_loss, memory)


@dataclass(frozen=True)
class _Observed:
    """Inputs, logarithms of the Dice loss and extra deviations of the observations; inputs of pending networks."""

    inputs: Matrix
    log_loss: Matrix
    extra: Matrix
    pending: Matrix
    centre: Matrix
    unit: Matrix
    typical_loss: float


def _observed(similarities: Sequence[Matrix], evidence: Evidence, memory: Memory | None) -> _Observed:
    centre, unit = evidence.log_costs.mean(axis=0), np.maximum(evidence.log_costs.std(axis=0), 1e-9)
    hints = np.empty((len(evidence.codes), 0))
    if memory is not None:  # the first training alone has no deviation
        centre, unit, hints = memory.centre, memory.unit, memory.hints(evidence.codes)
    seen, waiting = ~evidence.pending, evidence.pending
    loss = np.maximum(1.0 - evidence.dice[seen], MIN_LOSS)
    typical = float(np.exp(np.log(loss).mean()))
    costs = (evidence.log_costs - centre) / unit
    weights = _noise_weights(loss, typical)
    inputs = features(similarities, evidence.codes[seen], costs[seen], noise=weights, hints=hints[seen])
    pending = features(similarities, evidence.codes[waiting], costs[waiting], hints=hints[waiting])
    return _Observed(inputs, np.log(loss), evidence.extra[seen] / loss, pending, centre, unit, typical)


def _noise_weights(loss: Matrix, typical: float) -> Matrix:
    """Return the variance of the logarithm of each Dice loss, relative to a typical one: noise is equal in Dice."""
    return np.asarray(np.clip((typical / loss) ** 2, 1 / MAX_WEIGHT, MAX_WEIGHT))


def gains(foreseen: Foreseen, *, objectives: Matrix, front: Matrix, worst_dice: float) -> Matrix:
    """Return the expected gain of hypervolume of one training of each candidate that was never trained.

    `objectives` are the costs on the front as shares of the reference; `front` holds (logarithm of the expected Dice
    loss, shares) of the networks known or in training.
    """
    scale = np.log(1.0 - worst_dice)
    return expected_gains(foreseen.after - scale, foreseen.learned, objectives, front=_losses(front, scale))


def repeat_gains(foreseen: Foreseen, *, objectives: Matrix, front: Matrix, worst_dice: float) -> Matrix:
    """Return the expected gain of hypervolume of one more training of each network.

    A network on the front is compared with the front without it: the training moves its expected Dice up or down, and
    a move down costs no more than the networks that then take its place.
    """
    scale = np.log(1.0 - worst_dice)
    found = np.empty(len(objectives))
    for row, shares in enumerate(objectives):
        others = front[~((front[:, 1:] == shares).all(axis=1) & np.isclose(front[:, 0], foreseen.now[row]))]
        losses = _losses(others, scale)
        now, after = foreseen.now[[row]] - scale, foreseen.after[[row]] - scale
        gained = expected_gains(after, foreseen.learned[[row]], shares[None], front=losses)
        found[row] = (gained - expected_gains(now, np.zeros(1), shares[None], front=losses))[0]
    return np.maximum(found, 0.0)


def _losses(front: Matrix, scale: float) -> Matrix:
    losses = front.copy()
    losses[:, 0] = np.exp(front[:, 0] - scale)
    return losses


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

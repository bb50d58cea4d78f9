"""The surrogate of the known-cost proposer, on plain arrays: a posterior over the Dice of every network.

It models only Dice, because costs are exact: the logarithm of the Dice loss (1 - Dice), since improvements remove a
fraction of the remaining loss and the loss falls as a power of the cost. A warp compresses the logarithms of networks
that fail. A network in training counts with its expected Dice, so that simultaneous asks propose different networks.

studies/notes/known_cost.md lists the variants that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.proposers.gaussian import MAX_FITTED, NOTHING, Expectation, Posterior, condition, fit_scales
from search.proposers.kernel_terms import features
from search.proposers.warp import Warp, warp_of

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
MAX_CONDITIONED = 1500  # observations that the process is conditioned on
MIN_LOSS = 0.005  # of Dice: smaller losses are noise, which the logarithm would magnify
# Prior of a training's standard deviation of Dice: in 150 public trainings of nnU-Net (3 networks, 10 data sets, 5
# folds) two networks on one fold differ with a standard deviation of 0.0078.
PRIOR_NOISE, PRIOR_REPEATS = 0.0078, 5
NO_NOISE = 1e-5  # where repeats give exactly the same Dice
MIN_WEIGHT, MAX_WEIGHT = 1e-4, 25.0  # bounds of the noise of one observation relative to a typical one's, as variances
INTERVAL = 1.96  # standard deviations of half a 95 % interval
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(15)  # for expectations under a normal distribution


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
    """A posterior over the logarithm of the Dice loss as compressed by `warp`, here called the value.

    `typical_loss` is the Dice by which the surrogate's value changes by 1 where an observation's noise has weight 1.
    """

    posterior: Posterior
    similarities: Sequence[Matrix]
    centre: Matrix
    unit: Matrix
    typical_loss: float
    warp: Warp
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
        """Return the logarithm of the Dice loss at the mean of the value."""
        return self.warp.expand(self.value(codes, log_costs))

    def value(self, codes: Codes, log_costs: Matrix) -> Matrix:
        """Return the mean of the value."""
        return self.posterior.mean(self.inputs(codes, log_costs))

    def predict(self, codes: Codes, log_costs: Matrix) -> tuple[Matrix, Matrix]:
        """Return mean and standard deviation of the logarithm of the Dice loss; the warp counts as linear there."""
        value, deviation = self.posterior.predict(self.inputs(codes, log_costs))
        log_loss = self.warp.expand(value)
        return log_loss, np.asarray(deviation / self.warp.slope(log_loss))

    def dice(self, codes: Codes, log_costs: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Return each network's expected Dice and the ends of its 95 % interval."""
        value, deviation = self.posterior.predict(self.inputs(codes, log_costs))
        drawn = np.exp(self.warp.expand(value[:, None] + deviation[:, None] * NODES))
        ends = [np.exp(self.warp.expand(value + sign * INTERVAL * deviation)) for sign in (1, -1)]
        return 1.0 - drawn @ NODE_WEIGHTS / NODE_WEIGHTS.sum(), 1.0 - ends[0], 1.0 - ends[1]

    def draw(self, codes: Codes, log_costs: Matrix, *, count: int, seed: int) -> Matrix:
        """Draw the Dice of networks jointly from the posterior: (networks, count)."""
        drawn = self.posterior.draw(self.inputs(codes, log_costs), count=count, seed=seed)
        return np.asarray(1.0 - np.exp(self.warp.expand(drawn)))

    def foresee(self, codes: Codes, log_costs: Matrix) -> Foreseen:
        """Return what one more training of each network would teach."""
        mean, deviation = self.predict(codes, log_costs)
        slope = self.warp.slope(mean)
        noise = self.posterior.noise * np.sqrt(_noise_weights(np.exp(mean) / slope, self.typical_loss)) / slope
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
    rows = _best_and_random(data.values, MAX_FITTED, rng)
    noise = noise_from_repeats(evidence) / data.typical_loss
    expected = memory.expected if memory else NOTHING
    inputs, values, extra = data.inputs[rows], data.values[rows], data.extra[rows]
    return fit_scales(similarities, inputs, values, extra=extra, noise=noise, expected=expected)


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
    rows = _best_and_random(data.values, MAX_CONDITIONED, rng)
    known, values, extra = data.inputs[rows], data.values[rows], data.extra[rows]
    expected_before = memory.expected if memory else NOTHING
    posterior = condition(similarities, scales, known, values, extra=extra, expected=expected_before)
    pending = data.pending
    if len(pending):  # observed at the expected value: the mean is unchanged, the deviation nearby shrinks
        expected = posterior.mean(pending)
        log_loss = data.warp.expand(expected)
        pending[:, -1] = _noise_weights(np.exp(log_loss) / data.warp.slope(log_loss), data.typical_loss)
        posterior = condition(
            similarities,
            scales,
            np.concatenate([known, pending]),
            np.concatenate([values, expected]),
            extra=np.concatenate([extra, np.zeros(len(pending))]),
            expected=expected_before,
        )
    return Surrogate(posterior, similarities, data.centre, data.unit, data.typical_loss, data.warp, memory)


@dataclass(frozen=True)
class _Observed:
    """Inputs, values (warped log Dice losses) and extra deviations of the observations; inputs of pending networks."""

    inputs: Matrix
    values: Matrix
    extra: Matrix
    pending: Matrix
    centre: Matrix
    unit: Matrix
    typical_loss: float
    warp: Warp


def _observed(similarities: Sequence[Matrix], evidence: Evidence, memory: Memory | None) -> _Observed:
    centre, unit = evidence.log_costs.mean(axis=0), np.maximum(evidence.log_costs.std(axis=0), 1e-9)
    hints = np.empty((len(evidence.codes), 0))
    if memory is not None:  # the first training alone has no deviation
        centre, unit, hints = memory.centre, memory.unit, memory.hints(evidence.codes)
    seen, waiting = ~evidence.pending, evidence.pending
    log_loss = np.log(_loss(evidence.dice[seen]))
    warp = warp_of(log_loss)
    per_value = _loss(evidence.dice[seen]) / warp.slope(log_loss)  # the Dice by which the value changes by 1
    typical = float(np.exp(np.log(per_value).mean()))
    costs = (evidence.log_costs - centre) / unit
    weights = _noise_weights(per_value, typical)
    inputs = features(similarities, evidence.codes[seen], costs[seen], noise=weights, hints=hints[seen])
    pending = features(similarities, evidence.codes[waiting], costs[waiting], hints=hints[waiting])
    extra = evidence.extra[seen] / per_value
    return _Observed(inputs, warp.compress(log_loss), extra, pending, centre, unit, typical, warp)


def _loss(dice: Matrix) -> Matrix:
    return np.asarray(np.maximum(1.0 - dice, MIN_LOSS))


def _noise_weights(per_value: Matrix, typical: float) -> Matrix:
    """Return the variance of each value's noise, relative to a typical one: noise is equal in Dice.

    `per_value` is the Dice by which a value changes by 1; without a warp it is the Dice loss.
    """
    return np.asarray(np.clip((typical / per_value) ** 2, MIN_WEIGHT, MAX_WEIGHT))


def _best_and_random(loss: Matrix, limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most `limit` indices in ascending order: half of them the best, half random among the others."""
    if len(loss) <= limit:
        return np.arange(len(loss))
    order = np.argsort(loss)
    rest = rng.permutation(order[limit // 2 :])[: limit - limit // 2]
    return np.sort(np.concatenate([order[: limit // 2], rest]))

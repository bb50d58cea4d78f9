"""Memory of earlier studies: what their trainings say about the effects of choices, as hints for the surrogate.

Each source has a surrogate of its own, on the axes that it shares with the new study. Axes are matched by name and
choices by value; a choice that a source never trained counts as its average. Costs are matched by rank. A hint is the
value of a source's surrogate (the compressed logarithm of the Dice loss), standardised over random networks of the new
space: the level of Dice is the new study's own.

The new surrogate is linear in the hints. The prior of each coefficient is positive but wide, so a few trainings of the
new study decide what a source is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from search.proposers.evidence import dice_of, trend
from search.proposers.sources import Source, shared_axes
from search.proposers.surrogate import Evidence, Memory, Surrogate, condition_dice, fit_dice
from space.axes import Axis
from space.canonical import Context
from space.encoding import Coded
from space.space import Space

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
TRUST = 0.7  # prior deviation of the sum of all hints, in deviations of the values
Costs = Callable[[Codes], Matrix]
LEAST_LOSS = 1e-6  # a Dice of 1 has no logarithm of its loss
CHUNK = 4000  # listed networks whose hints are computed at a time
PROVEN = 60  # best networks of a source that are candidates
MAX_LEARNED = 300  # trainings of a source that its surrogate is conditioned on
NO_CONTEXT = Context((1, 1, 1), (1.0, 1.0, 1.0), 1, 1)  # a placeholder: no network is built


@dataclass(frozen=True)
class Recalled:
    """A source seen from a new space: its surrogate, and the places of the shared axes among the new free axes.

    `deviation` is that of the values of its trainings. What a source expects deviates less, the less its
    trainings say about other networks.
    """

    surrogate: Surrogate
    places: Codes
    deviation: float

    def expected(self, codes: Codes, scores: Matrix) -> Matrix:
        """Return the expected value of the source's surrogate, by new codes and the normal scores of new costs."""
        return self.surrogate.value(codes[:, self.places], scores)


@dataclass(frozen=True)
class Hints:
    """The hints of all sources, in units in which the prior deviation of each coefficient is 1."""

    recalled: tuple[Recalled, ...]
    predict: Costs
    log_costs: Matrix  # of random networks of the new space, among which costs are ranked
    centre: Matrix
    unit: Matrix

    def __call__(self, codes: Codes) -> Matrix:
        """Return the hints of networks: (rows, sources)."""
        return (self.expected(codes) - self.centre) / self.unit

    def expected(self, codes: Codes) -> Matrix:
        """Return the expected value of each source's surrogate."""
        scores = normal_scores(trend(self.predict(codes)), among=self.log_costs)
        return np.stack([each.expected(codes, scores) for each in self.recalled], axis=1)


@dataclass(frozen=True)
class ListedHints:
    """The hints of all networks of a table, computed once."""

    known: Matrix
    row_of: dict[bytes, int]

    @staticmethod
    def of(hints: Hints, codes: Codes) -> ListedHints:
        """Return the hints of these codes."""
        parts = np.array_split(codes, 1 + len(codes) // CHUNK)
        known = np.concatenate([hints(part) for part in parts])
        return ListedHints(known, {row.tobytes(): number for number, row in enumerate(codes)})

    def __call__(self, codes: Codes) -> Matrix:
        """Return the hints of networks: (rows, sources)."""
        return self.known[[self.row_of[row.tobytes()] for row in codes]]


def remember(sources: Sequence[Source], coded: Coded, *, codes: Codes, predict: Costs, listed: Codes) -> Memory:
    """Fit the surrogate of each source.

    `codes` are random networks of the new space, `predict` predicts costs of codes, and `listed` are the only networks
    whose hints are needed, if there are any.
    """
    recalled, log_costs = tuple(recall(source, coded) for source in sources), trend(predict(codes))
    found = Hints(recalled, predict, log_costs, np.zeros(1), np.ones(1)).expected(codes)
    centre, unit = found.mean(axis=0), np.maximum(found.std(axis=0), 1e-9)
    together = max(((found - centre) / unit).sum(axis=1).std(), 1e-9)  # sources that agree share the trust
    unit = np.maximum(unit, [each.deviation for each in recalled])  # an uncertain source gives small hints
    hints = Hints(recalled, predict, log_costs, centre, unit * together / TRUST)
    return Memory(
        hints=ListedHints.of(hints, listed) if len(listed) else hints,
        shares=np.full(len(sources), TRUST / together),
        spread=float(unit.mean()),
        centre=log_costs.mean(axis=0),
        unit=np.maximum(log_costs.std(axis=0), 1e-9),
    )


def proven_rows(sources: Sequence[Source], coded: Coded, *, rng: np.random.Generator) -> Codes:
    """Return the best networks of the sources as rows of the new space: those on and next to each source's front.

    Axes that a source doesn't share are drawn at random.
    """
    rows = []
    for source in sources:
        dice, _ = dice_of(source.trainings)
        for place in _by_rank(dice, _log_costs(source))[:PROVEN]:
            decisions = source.trainings[place].decisions
            row = coded.sample(rng, 1)[0]
            for column, axis in enumerate(coded.space.axes):
                if decisions.get(axis.name) in axis.choices:
                    row[column] = 1 + axis.choices.index(decisions[axis.name])
            rows.append(row)
    return np.unique(coded.repair(np.stack(rows)), axis=0)


def normal_scores(values: Matrix, *, among: Matrix) -> Matrix:
    """Return the normal scores of each column's ranks among other rows; equal values have their middle rank."""
    found = np.empty(values.shape)
    for column, (own, others) in enumerate(zip(values.T, among.T, strict=True)):
        known = np.sort(others)
        below, up_to = np.searchsorted(known, own, side="left"), np.searchsorted(known, own, side="right")
        found[:, column] = ndtri((0.5 * (below + up_to) + 0.5) / (len(known) + 1))
    return found


def recall(source: Source, coded: Coded) -> Recalled:
    """Fit a source's surrogate on the shared axes.

    These have the new choices first, so that the new codes are codes of the source's surrogate.
    """
    names = shared_axes(coded.space, source)
    free = [coded.space.axes[column] for column in coded.free]
    places = np.array([place for place, axis in enumerate(free) if axis.name in names], dtype=np.int64)
    own = Coded(Space(tuple(_widened(free[place], source) for place in places), NO_CONTEXT))
    dice, extra = dice_of(source.trainings)
    log_costs = _log_costs(source)
    rng = np.random.default_rng(0)  # a source says the same in every study
    rows = _front_and_random(dice, log_costs, rng)
    codes = own.encode([source.trainings[row].decisions for row in rows])
    scores = normal_scores(log_costs[rows], among=log_costs)
    evidence = Evidence(codes, scores, dice[rows], extra[rows], np.zeros(len(rows), dtype=bool))
    scales = fit_dice(own.similarities, evidence, rng=rng)
    surrogate = condition_dice(own.similarities, evidence, scales=scales, rng=rng)
    deviation = float(surrogate.warp.compress(np.log(np.maximum(1.0 - dice, LEAST_LOSS))).std())
    return Recalled(surrogate, places, deviation)


def _widened(axis: Axis, source: Source) -> Axis:
    """Return an axis with the choices that only the source has at its end."""
    others = {each.decisions[axis.name] for each in source.trainings if axis.name in each.decisions}
    return Axis(axis.name, (*axis.choices, *sorted(others - set(axis.choices), key=repr)), "")


def _log_costs(source: Source) -> Matrix:
    return trend(np.nan_to_num(np.array([each.costs for each in source.trainings]), nan=1.0))


def _by_rank(dice: Matrix, log_costs: Matrix) -> NDArray[np.int64]:
    """Return the rows in the order of the fronts that they are on, the first front first."""
    return np.argsort(moocore.pareto_rank(np.column_stack([-dice, log_costs])), kind="stable")


def _front_and_random(dice: Matrix, log_costs: Matrix, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most MAX_LEARNED rows: half of them on and next to the front, the others at random."""
    if len(dice) <= MAX_LEARNED:
        return np.arange(len(dice))
    order = _by_rank(dice, log_costs)
    rest = rng.permutation(order[MAX_LEARNED // 2 :])[: MAX_LEARNED - MAX_LEARNED // 2]
    return np.sort(np.concatenate([order[: MAX_LEARNED // 2], rest]))

"""The front of expected Dice: what networks achieve on average, not what one lucky training of each achieved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import OBJECTIVES
from search.config.units import counted
from search.proposers.observations import FEWEST, Training, training_of
from search.trials.pareto import non_dominated
from search.trials.records import Record

if TYPE_CHECKING:
    from search.proposers.expected import Expected

Numbers = NDArray[np.float64]
MAX_TRAININGS = 600  # that the surrogate learns from: those nearest to the front
MAX_DRAWN = 300  # networks whose probability of being on the front is estimated; that of the others is 0
DRAWS = 400


@dataclass(frozen=True)
class Estimates:
    """Expected Dice of each trial with its 95 % interval and its probability of being on the front; NaN if unknown.

    `noise` is the standard deviation of one training's Dice, estimated from `repeats` and a prior. `optimism` is the
    mean of measured minus expected Dice over the front of measured Dice.
    """

    dice: Numbers
    low: Numbers
    high: Numbers
    probability: Numbers
    noise: float
    repeats: int
    optimism: float

    def describe(self) -> str:
        """Return the noise and the optimism in a sentence each."""
        source = (
            f"from {counted(self.repeats, 'repeat')} and public trainings"
            if self.repeats
            else "assumed, as in long public trainings, since no network was trained twice; short ones vary more"
        )
        return (
            f"two trainings of one network differ: the standard deviation of one training is {self.noise:.4f} Dice "
            f"({source}).\n"
            f"On the front of measured Dice the measured values are on average {self.optimism:+.4f} above the expected."
        )

    @property
    def shown_noise(self) -> str:
        """The noise, and whether the study's own repeats support it."""
        source = f"from {counted(self.repeats, 'repeat')}" if self.repeats else "assumed: no network was trained twice"
        return f"{self.noise:.4f} Dice ({source})"


@dataclass(frozen=True)
class Learned:
    """Estimates, and what they were made from, for a later snapshot of the study.

    These are the numbers of its trials, a mask of the comparable ones, and its trainings.
    """

    estimates: Estimates | None
    numbers: NDArray[np.int32]
    comparable: NDArray[np.bool_]
    trainings: tuple[object, ...]

    def at(self, numbers: NDArray[np.int32]) -> Estimates | None:
        """Return the estimates of trials by their numbers; they are unknown for later trials."""
        if self.estimates is None:
            return None
        found, rows = self.estimates, np.full((4, len(numbers)), np.nan)
        _, here, there = np.intersect1d(numbers, self.numbers, return_indices=True)
        rows[:, here] = np.stack([found.dice, found.low, found.high, found.probability])[:, there]
        dice, low, high, probability = rows
        return replace(found, dice=dice, low=low, high=high, probability=probability)

    def knows(self, numbers: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which trials could be on the front when the estimates were made; all if there are none."""
        return np.isin(numbers, self.numbers[self.comparable]) if self.estimates else np.ones(len(numbers), dtype=bool)

    def count_others(self, trainings: Sequence[object]) -> int:
        """Return how many trainings the estimates don't include, as they have ended since, or changed."""
        known = {id(each) for each in self.trainings}
        return sum(id(each) not in known for each in trainings)


def estimate(
    trials: Sequence[Training], repeats: Sequence[Training], losses: Numbers, *, dice_column: int
) -> Estimates | None:
    """Estimate the expected Dice of `trials`, a row each of `losses` (NaN if a trial can't be on a front).

    `repeats` are further trainings of the same networks on the same fold. None with too few trained networks.
    """
    comparable = np.flatnonzero(~np.isnan(losses).any(axis=1))
    if len(comparable) < FEWEST:
        return None
    from search.proposers.expected import expect_dice  # scikit-learn takes a while to import

    near = comparable[_nearest(losses[comparable], dice_column, MAX_TRAININGS)]
    stopped = [each for each in trials if each.state == "stopped"][-MAX_TRAININGS:]
    expected = expect_dice([*(trials[row] for row in near), *stopped, *repeats])
    if expected is None:
        return None
    place = {network: number for number, network in enumerate(expected.networks)}
    places = np.array([place[trials[row].network] for row in near])
    found = np.full((3, len(trials)), np.nan)
    found[:, near] = expected.dice[places], expected.low[places], expected.high[places]
    front = comparable[non_dominated(losses[comparable])]
    shown = front[~np.isnan(found[0, front])]
    measured = 1.0 - losses[shown, dice_column]
    return Estimates(
        dice=found[0],
        low=found[1],
        high=found[2],
        probability=_probability(expected, near, places, losses, dice_column),
        noise=expected.noise,
        repeats=int((expected.trainings - 1).sum()),
        optimism=float((measured - found[0, shown]).mean()) if len(shown) else 0.0,
    )


def _nearest(losses: Numbers, dice_column: int, most: int) -> NDArray[np.int64]:
    """Return the rows that lose the least Dice against the networks that cost no more."""
    if len(losses) <= most:
        return np.arange(len(losses))
    costs, dice = np.delete(losses, dice_column, axis=1), losses[:, dice_column]
    behind = np.zeros(len(losses))
    for row in np.flatnonzero(non_dominated(losses)):
        dearer = (costs >= costs[row]).all(axis=1)
        behind = np.maximum(behind, np.where(dearer, dice - dice[row], 0.0))
    return np.sort(np.argsort(behind, kind="stable")[:most])


def _probability(
    expected: Expected, near: NDArray[np.int64], places: NDArray[np.int64], losses: Numbers, dice_column: int
) -> Numbers:
    """Return how often each trial is on the front, over draws of the Dice of all networks from the posterior."""
    found = np.full(len(losses), np.nan)
    found[near] = 0.0
    points = losses[near].copy()
    points[:, dice_column] = 1.0 - expected.dice[places]
    some = _nearest(points, dice_column, MAX_DRAWN)
    drawn = expected.draw(places[some], count=DRAWS)
    kept = np.zeros(len(some))
    for column in drawn.T:
        points[some, dice_column] = 1.0 - column
        kept += non_dominated(points[some])
    found[near[some]] = kept / DRAWS
    return found


def with_expected(records: Sequence[Record], expected: Mapping[int, float]) -> list[Record]:
    """Return trained records with the expected Dice, where it is known, in place of the measured."""
    return [
        replace(each, measurement=replace(each.measurement, dice=expected[each.number]))
        if each.number in expected and each.state == "trained"
        else each
        for each in records
    ]


def estimate_records(
    records: Sequence[Record], repeats: Sequence[Record], directions: Mapping[str, str]
) -> dict[int, float]:
    """Return the expected Dice of comparable records by trial number; empty if Dice is no objective or too few ran."""
    if "dice" not in directions:
        return {}
    losses = np.full((len(records), len(directions)), np.nan)
    for row, record in enumerate(records):
        values = [record.measurement.value(name) for name in directions]
        if record.state == "trained" and None not in values:
            pairs = zip(directions, values, strict=True)
            losses[row] = [OBJECTIVES[name].loss(value) for name, value in pairs if value is not None]
    found = estimate(
        [training_of(each) for each in records],
        [training_of(each) for each in repeats],
        losses,
        dice_column=list(directions).index("dice"),
    )
    if found is None:
        return {}
    known = zip(records, found.dice.tolist(), strict=True)
    return {record.number: dice for record, dice in known if not np.isnan(dice)}

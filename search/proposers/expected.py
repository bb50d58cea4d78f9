"""The expected Dice of trained networks, estimated from all trainings of a study, beside what was measured.

One training of a network differs from its expected Dice by noise, and the networks at the top of a study were lucky.
The posterior shrinks each measured value towards what similar networks, and repeats of the network itself, achieved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.proposers.evidence import dice_of, trend
from search.proposers.observations import FEWEST, Training
from search.proposers.surrogate import Evidence, Surrogate, condition_dice, fit_dice
from search.proposers.threads import single_threaded
from space.axes import Axis
from space.canonical import Context
from space.encoding import Coded
from space.space import Space

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
NO_CONTEXT = Context((1, 1, 1), (1.0, 1.0, 1.0), 1, 1)  # a placeholder: no network is built


@dataclass(frozen=True)
class Expected:
    """The networks that were trained to their end: expected Dice with its 95 % interval, and the mean of the measured.

    `noise` is the standard deviation of one training's Dice.
    """

    networks: tuple[str, ...]
    dice: Matrix
    low: Matrix
    high: Matrix
    measured: Matrix
    trainings: NDArray[np.int64]
    noise: float
    surrogate: Surrogate
    codes: Codes
    log_costs: Matrix

    def draw(self, rows: NDArray[np.int64], *, count: int, seed: int = 0) -> Matrix:
        """Draw the Dice of some networks jointly from the posterior: (rows, count)."""
        return self.surrogate.draw(self.codes[rows], self.log_costs[rows], count=count, seed=seed)


@single_threaded
def expect_dice(trainings: Sequence[Training], *, coded: Coded | None = None, seed: int = 0) -> Expected | None:
    """Fit the surrogate to the trainings of one fold; None with fewer than FEWEST trained networks.

    Stopped trainings count with their extrapolated Dice. Without a coded space the axes are those of the decisions.
    """
    used = [each for each in trainings if each.state in ("trained", "stopped")]
    places: dict[str, list[int]] = {}
    for place, each in enumerate(used):
        if each.state == "trained":
            places.setdefault(each.network, []).append(place)
    if len(places) < FEWEST:
        return None
    coded = coded or observed_axes(used)
    codes = coded.encode([each.decisions for each in used])[:, coded.free]
    log_costs = trend(np.nan_to_num(np.array([each.costs for each in used]), nan=1.0))
    dice, extra = dice_of(used)
    evidence = Evidence(codes, log_costs, dice, extra, np.zeros(len(used), dtype=bool))
    rng = np.random.default_rng(seed)
    scales = fit_dice(coded.similarities, evidence, rng=rng)
    surrogate = condition_dice(coded.similarities, evidence, scales=scales, rng=rng)
    first = np.array([of[0] for of in places.values()])
    expected, low, high = surrogate.dice(codes[first], log_costs[first])
    return Expected(
        networks=tuple(places),
        dice=expected,
        low=low,
        high=high,
        measured=np.array([dice[of].mean() for of in places.values()]),
        trainings=np.array([len(of) for of in places.values()]),
        noise=surrogate.noise,
        surrogate=surrogate,
        codes=codes[first],
        log_costs=log_costs[first],
    )


def observed_axes(trainings: Sequence[Training]) -> Coded:
    """Return a space of the choices that occur in trainings, each axis independent of the others."""
    choices: dict[str, set[object]] = {}
    for each in trainings:
        for name, value in each.decisions.items():
            choices.setdefault(name, set()).add(value)
    axes = [Axis(name, tuple(sorted(found, key=_order)), "") for name, found in choices.items()]  # type: ignore[arg-type]
    return Coded(Space(tuple(axes), NO_CONTEXT))


def _order(value: object) -> tuple[bool, float, str]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (not is_number, float(value) if isinstance(value, (int, float)) else 0.0, str(value))

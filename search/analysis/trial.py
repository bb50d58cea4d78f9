"""A trial's summary in a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search.config.objectives import COSTS, OBJECTIVES
from search.proposers.observations import Training, curve_of
from search.trials.epochs import Epochs
from search.trials.records import State
from space.architecture import Value


@dataclass(frozen=True, slots=True)
class Trial:
    """A summary of a trial: values in the order of OBJECTIVES (NaN if unknown) and its epochs.

    `dice_so_far` is the Dice of the last validated epoch, also for a stopped trial; NaN before the first one. `dice_sd`
    is the standard deviation over the trial's trainings. Times are seconds since 1970. `attempts` lists why earlier
    attempts were lost. `machine` is that of the last attempt; empty if the record doesn't name it.
    """

    number: int
    state: State
    values: tuple[float, ...]
    dice_so_far: float
    dice_sd: float
    iqr_s: float
    device: str
    network: str
    fingerprint: str
    decisions: Mapping[str, Value]
    reason: str
    started: float
    ended: float
    spent_s: float
    epochs: Epochs
    driver: str
    attempts: tuple[str, ...]
    machine: str

    def training(self) -> Training:
        """Return what the surrogate for Dice learns from the trial."""
        values = dict(zip(OBJECTIVES, self.values, strict=True))
        dice = None if np.isnan(values["dice"]) else values["dice"]
        curve = curve_of(self.epochs.first_dice)
        costs = np.array([values[name] for name in COSTS])
        return Training(self.fingerprint, self.decisions, costs, self.state, dice, curve)

"""Dice by class over cases: mean, interval and range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.analysis.confirmation import interval
from search.trials.records import CaseDice

BOTH_EMPTY = (
    "A class that is in neither a case's label nor its mask has no Dice there: the case's mean is that of its other "
    "classes, and a case without any such class doesn't count. In only one of label and mask, its Dice is 0."
)
HEADINGS = ("class", "mean", "95 % interval", "lowest", "highest", "cases")


@dataclass(frozen=True)
class ClassDice:
    """One class's Dice over the cases that have it; None without such cases, or too few for an interval."""

    name: str
    mean: float | None
    low: float | None
    high: float | None
    lowest: float | None
    highest: float | None
    cases: int

    @property
    def cells(self) -> tuple[str, ...]:
        """The values as text, in the order of HEADINGS."""
        between = "-" if self.low is None or self.high is None else f"{self.low:.4f} to {self.high:.4f}"
        mean, lowest, highest = (
            "-" if value is None else f"{value:.4f}" for value in (self.mean, self.lowest, self.highest)
        )
        return (self.name, mean, between, lowest, highest, str(self.cases))


def dice_by_class(cases: Sequence[CaseDice], names: Sequence[str]) -> list[ClassDice]:
    """Summarise each class; `names` are without background."""
    rows = []
    for index, name in enumerate(names):
        known = [value for case in cases if (value := case.dice[index]) is not None]
        if known:
            rows.append(ClassDice(name, float(np.mean(known)), *interval(known), min(known), max(known), len(known)))
        else:
            rows.append(ClassDice(name, None, None, None, None, None, 0))
    return rows

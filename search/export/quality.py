"""Warnings about a network that segments too poorly to be of use, or whose Dice rests on too few cases."""

from __future__ import annotations

from collections.abc import Sequence

from search.config.units import counted
from search.training.validation import mean_dice
from search.trials.records import CaseDice

POOR_MEAN, POOR_CLASS = 0.7, 0.5  # a Dice below these is called poor
FEW_CASES = 5


def quality_warnings(cases: Sequence[CaseDice], names: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence on each weakness of a Dice estimate; `names` are the foreground classes."""
    if not cases:
        return ("no Dice was measured for these weights",)
    found, mean = [], mean_dice(cases)
    if mean < POOR_MEAN:
        found.append(f"the mean Dice is only {mean:.4f}: train longer, on more cases, or choose another network")
    for index, name in enumerate(names):
        known = [value for case in cases if (value := case.dice[index]) is not None]
        average = sum(known) / len(known) if known else None
        if average is not None and average < POOR_CLASS:
            found.append(f"the Dice of {name} is only {average:.4f}: its masks are wrong more often than right")
    if len(cases) < FEW_CASES:
        found.append(f"the Dice rests on {counted(len(cases), 'case')}: another split may give another Dice")
    return tuple(found)

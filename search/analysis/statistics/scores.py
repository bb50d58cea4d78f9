"""Case scores, and their means over classes, the cases of a patient, and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from search.trials.records import Record

Training = tuple[int, int]  # seed, fold
Scored = Mapping[Training, Mapping[str, float]]  # each training's units (patients, or cases) with their score


@dataclass(frozen=True)
class Score:
    """The score of one class of one case in one training of an arm; None if truth and mask both lack the class."""

    arm: str
    seed: int
    fold: int
    case: str
    unit: str
    metric: str
    label: str
    value: float | None


def by_training(scores: Iterable[Score], *, metric: str) -> dict[str, dict[Training, dict[str, float]]]:
    """Return the score of each arm, training and unit: averaged over the classes of a case, then over the cases."""
    found: dict[str, dict[Training, dict[str, dict[str, list[float]]]]] = {}
    for each in scores:
        if each.metric == metric and each.value is not None:
            trainings = found.setdefault(each.arm, {}).setdefault((each.seed, each.fold), {})
            trainings.setdefault(each.unit, {}).setdefault(each.case, []).append(each.value)
    return {
        arm: {
            training: {unit: fmean(fmean(values) for values in cases.values()) for unit, cases in units.items()}
            for training, units in trainings.items()
        }
        for arm, trainings in found.items()
    }


def paired(arm: Scored, baseline: Scored) -> dict[str, float]:
    """Return each unit's difference to the baseline, averaged over the trainings (seed, fold) that both have."""
    differences: dict[str, list[float]] = {}
    for training in arm.keys() & baseline.keys():
        for unit in arm[training].keys() & baseline[training].keys():
            differences.setdefault(unit, []).append(arm[training][unit] - baseline[training][unit])
    return {unit: fmean(differences[unit]) for unit in sorted(differences)}


def case_means(records: Sequence[Record]) -> dict[str, float]:
    """Return each validation case's mean Dice over classes, seeds and folds."""
    found: dict[str, list[float]] = {}
    for record in records:
        for case in record.measurement.cases:
            if case.mean is not None:
                found.setdefault(case.case, []).append(case.mean)
    return {case: fmean(values) for case, values in found.items()}


def case_differences(ones: Sequence[Record], others: Sequence[Record]) -> dict[str, float]:
    """Return the first trainings' mean Dice minus the others', for each case that both have."""
    mine, theirs = case_means(ones), case_means(others)
    return {case: mine[case] - theirs[case] for case in mine if case in theirs}


def mean_and_sd(scored: Scored) -> tuple[float, float | None]:
    """Return the mean over trainings and their standard deviation (None for a single training)."""
    means = [fmean(units.values()) for units in scored.values()]
    return fmean(means), stdev(means) if len(means) > 1 else None


def per_unit(scored: Scored) -> dict[str, float]:
    """Return each unit's mean over trainings."""
    found: dict[str, list[float]] = {}
    for units in scored.values():
        for unit, value in units.items():
            found.setdefault(unit, []).append(value)
    return {unit: fmean(values) for unit, values in found.items()}


def only(scores: Sequence[Score], *, label: str) -> list[Score]:
    """Return the scores of one class."""
    return [each for each in scores if each.label == label]

"""A confirmed front: mean and interval of each point's Dice, and whether its place on the front is significant.

A point belongs on the front if its Dice is higher than that of every point that costs no more. Each point is therefore
compared with the best of those, over the validation cases that both have, with Dice averaged over seeds
(`compare_pairs`). The search's own training is left out, because it was selected for its Dice and is biased upwards.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.analysis.statistics.pairs import Pairs, compare_pairs
from search.analysis.statistics.scores import case_differences
from search.config.objectives import costs_among
from search.trials.records import Record

SIGNIFICANT = 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Confirmed:
    """A front point after confirmation.

    `low` and `high` are the 95 % interval of the mean over trainings (Student's t; both None for one training).
    `rival` is the best trial that costs no more, None if there is none; `against` compares the two over the cases that
    both have, None if they share none.
    """

    record: Record
    trainings: int
    mean: float
    low: float | None
    high: float | None
    rival: int | None
    against: Pairs | None

    @property
    def significant(self) -> bool:
        """Whether the point's Dice is significantly above its rival's; true without a rival."""
        if self.rival is None:
            return True
        return self.against is not None and self.against.p < SIGNIFICANT and self.against.difference > 0


def confirmed_front(
    chosen: Sequence[Record], confirmations: Sequence[Record], directions: Mapping[str, str]
) -> list[Confirmed]:
    """Return the points of the front that were confirmed, the highest mean Dice first."""
    again: dict[str, list[Record]] = {}
    for record in confirmations:
        if record.state == "trained" and record.measurement.dice is not None:
            again.setdefault(record.architecture.fingerprint, []).append(record)
    kept = [record for record in chosen if record.architecture.fingerprint in again]
    trainings = {record.number: again[record.architecture.fingerprint] for record in kept}
    means = {number: statistics.fmean(_dice(each) for each in of) for number, of in trainings.items()}
    costs = costs_among(directions)
    found = [_confirmed(record, kept, trainings, means, costs) for record in kept]
    return sorted(found, key=lambda each: -each.mean)


def _confirmed(
    record: Record,
    kept: Sequence[Record],
    trainings: Mapping[int, list[Record]],
    means: Mapping[int, float],
    costs: Sequence[str],
) -> Confirmed:
    own = [_dice(each) for each in trainings[record.number]]
    low, high = interval(own)
    cheaper = [other for other in kept if other.number != record.number and _costs_no_more(other, record, costs)]
    rival = max(cheaper, key=lambda other: means[other.number], default=None)
    differences = [*case_differences(trainings[record.number], trainings[rival.number]).values()] if rival else []
    against = compare_pairs(differences) if differences else None
    mean = means[record.number]
    return Confirmed(record, len(own), mean, low, high, rival.number if rival else None, against)


def _costs_no_more(one: Record, other: Record, costs: Sequence[str]) -> bool:
    pairs = [(one.measurement.value(name), other.measurement.value(name)) for name in costs]
    return all(a is not None and b is not None and a <= b for a, b in pairs)


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95 % interval of the mean, clipped to 0 and 1; (None, None) for a single value."""
    if len(values) < 2:
        return None, None
    from scipy.stats import t

    mean = statistics.fmean(values)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return max(0.0, mean - half), min(1.0, mean + half)


def _dice(record: Record) -> float:
    if record.measurement.dice is None:
        raise ValueError(f"trial {record.number} has no Dice")
    return record.measurement.dice

"""Mean ranks of arms over units, Friedman's test, and Nemenyi's critical difference (Demsar, JMLR 2006)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search.analysis.statistics.scores import Scored, per_unit


@dataclass(frozen=True)
class Ranks:
    """Mean ranks (1 is best), the difference at which two are significantly different, and Friedman's p.

    `together` holds the largest groups of arms that do not differ significantly, each from its best rank to its worst.
    """

    units: int
    ranks: tuple[tuple[str, float], ...]
    critical: float
    p: float
    together: tuple[tuple[float, float], ...]


def rank_arms(scored: Mapping[str, Scored], *, alpha: float, higher_is_better: bool) -> Ranks | None:
    """Rank the arms over the units that all of them have; None with under three arms or under three units."""
    means = {arm: per_unit(trainings) for arm, trainings in scored.items()}
    shared = sorted(set.intersection(*(set(each) for each in means.values()))) if means else []
    if len(means) < 3 or len(shared) < 3:
        return None
    from scipy.stats import friedmanchisquare, rankdata

    table = np.array([[means[arm][unit] for arm in means] for unit in shared])
    ranks = rankdata(-table if higher_is_better else table, axis=1).mean(axis=0)
    ordered = sorted(zip(means, ranks.tolist(), strict=True), key=lambda each: each[1])
    critical = critical_difference(arms=len(means), units=len(shared), alpha=alpha)
    same = bool((table == table[:, :1]).all())
    p = 1.0 if same else float(friedmanchisquare(*table.T).pvalue)
    return Ranks(len(shared), tuple(ordered), critical, p, _together([rank for _, rank in ordered], critical))


def critical_difference(*, arms: int, units: int, alpha: float) -> float:
    """Return Nemenyi's critical difference of mean ranks."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, arms, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(arms * (arms + 1) / (6 * units))


def _together(ranks: list[float], critical: float) -> tuple[tuple[float, float], ...]:
    spans: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(place for place in range(first, len(ranks)) if ranks[place] - ranks[first] < critical)
        if last > first and not any(last <= end for _, end in spans):
            spans.append((first, last))
    return tuple((ranks[first], ranks[last]) for first, last in spans)

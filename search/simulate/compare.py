"""Compare proposers on a table: medians, ratios, and the significance of differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from search.simulate.clock import Rules, Run, simulate
from search.simulate.reported import BUDGETS
from search.simulate.tables import Table

SHARES = (0.9, 0.95, 0.99)  # of the true hypervolume
MAIN = 0.95
OURS = "known-cost"


@dataclass(frozen=True)
class Summary:
    """One proposer's runs on one table; a median is infinite if half of the runs never reached the share."""

    proposer: str
    runs: int
    trainings: tuple[float, ...]
    hours: tuple[float, ...]
    reached: tuple[int, ...]
    shares: tuple[float, ...]
    repeats: float
    ask_median_s: float
    ask_most_s: float
    busy: float


@dataclass(frozen=True)
class Rival:
    """OURS against another proposer, in trainings and hours to MAIN: ratio of medians, Holm-corrected Wilcoxon p."""

    proposer: str
    ratio: float
    hours_ratio: float
    p: float
    hours_p: float


@dataclass(frozen=True)
class Comparison:
    """All proposers on one table; `rules` holds the training limit at which unsuccessful runs were censored."""

    table: str
    character: str
    size: int
    rules: Rules
    summaries: tuple[Summary, ...]
    rivals: tuple[Rival, ...]
    runs: tuple[Run, ...]


def compare(
    table: Table, proposers: Sequence[str], *, seeds: int, rules: Rules, each: Callable[[Run], None] = lambda run: None
) -> Comparison:
    """Run all proposers with all seeds and compare them; calls `each` with every run."""
    runs: dict[str, list[Run]] = {name: [] for name in proposers}
    for name in proposers:
        for seed in range(seeds):
            runs[name].append(simulate(table, name, seed=seed, rules=rules))
            each(runs[name][-1])
    return comparison(table, runs, rules=rules)


def comparison(table: Table, runs: Mapping[str, Sequence[Run]], *, rules: Rules) -> Comparison:
    """Compare runs; all proposers must have the same seeds in the same order."""
    summaries = tuple(_summary(name, of) for name, of in runs.items())
    everything = tuple(run for of in runs.values() for run in of)
    return Comparison(table.name, table.character, table.size, rules, summaries, _rivals(runs), everything)


def best_ratio(compared: Comparison, *, hours: bool = False) -> float:
    """Return the ratio of OURS to the best other proposer; NaN without runs of OURS or of another proposer."""
    ratios = [rival.hours_ratio if hours else rival.ratio for rival in compared.rivals]
    return max(ratios, default=math.nan)


def anytime(runs: Sequence[Run], *, until: int) -> tuple[list[int], list[float], list[float], list[float]]:
    """Return trainings 1 to `until`, and the lower quartile, median and upper quartile of the share reached."""
    counts = list(range(1, until + 1))
    curves = np.array([[share_after(run, count) for count in counts] for run in runs])
    low, middle, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
    return counts, low.tolist(), middle.tolist(), high.tolist()


def share_after(run: Run, trainings: int) -> float:
    """Return the share of the true hypervolume after this many trainings; after a run's end, its final share."""
    reached = [step.share for step in run.steps if step.trainings <= trainings]
    return max(reached, default=0.0)


def _summary(name: str, runs: Sequence[Run]) -> Summary:
    asks = np.concatenate([np.array(run.ask_s) for run in runs])
    started = sum(len(run.ask_s) for run in runs)
    repeats = sum(run.repeats for run in runs)
    return Summary(
        proposer=name,
        runs=len(runs),
        trainings=tuple(_median([run.trainings_to(share) for run in runs]) for share in SHARES),
        hours=tuple(_median([run.hours_to(share) for run in runs]) for share in SHARES),
        reached=tuple(sum(math.isfinite(run.trainings_to(share)) for run in runs) for share in SHARES),
        shares=tuple(_median([share_after(run, budget) for run in runs]) for budget in BUDGETS),
        repeats=repeats / max(1, repeats + started),
        ask_median_s=float(np.median(asks)),
        ask_most_s=float(asks.max()),
        busy=float(np.mean([run.busy for run in runs])),
    )


def _median(values: Sequence[float]) -> float:
    """Return the median of values that may be infinite; infinity if either middle value is."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _rivals(runs: Mapping[str, Sequence[Run]]) -> tuple[Rival, ...]:
    others = [name for name in runs if name != OURS]
    if OURS not in runs or not others:
        return ()
    found = []
    for to in ("trainings_to", "hours_to"):
        ours = [getattr(run, to)(MAIN) for run in runs[OURS]]
        # Another proposer's censored run counts only up to its end, which is conservative for OURS
        theirs = {name: _censored_values(runs[name], to) for name in others}
        raw = {name: less(ours, theirs[name]) for name in others}
        found.append((holm(raw), {name: _ratio(_median(ours), _median(theirs[name])) for name in others}))
    (p, ratio), (hours_p, hours_ratio) = found
    return tuple(Rival(name, ratio[name], hours_ratio[name], p[name], hours_p[name]) for name in others)


def _censored_values(runs: Sequence[Run], to: str) -> list[float]:
    """Return the trainings or hours to MAIN; runs that never reached it count with all that they spent."""
    spent = [run.steps[-1].trainings if to == "trainings_to" else run.steps[-1].trained_s / 3600 for run in runs]
    values = [getattr(run, to)(MAIN) for run in runs]
    return [value if math.isfinite(value) else total for value, total in zip(values, spent, strict=True)]


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if math.isfinite(theirs) and theirs > 0 else math.nan


def less(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the one-sided p-value of Wilcoxon's signed-rank test over pairs, with the alternative that ours is less.

    Infinite values are censored: they count as the largest finite value plus 1. Pairs of infinite values are ties.
    """
    finite = [value for value in (*ours, *theirs) if math.isfinite(value)]
    most = max(finite, default=0.0) + 1.0
    differences = [min(one, most) - min(other, most) for one, other in zip(ours, theirs, strict=True)]
    if not any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="less").pvalue)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected by Holm's step-down procedure."""
    adjusted, worst = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda each: p[each])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p}

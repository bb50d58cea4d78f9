"""The numbers of an ablation: each arm's means, its differences to the baseline, its costs, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from search.ablation.metrics import CASE_METRICS
from search.ablation.results import Missing, Result
from search.analysis.statistics.mixed import Mixed, mixed_model
from search.analysis.statistics.pairs import Pairs, adjust, compare_pairs, detectable
from search.analysis.statistics.ranks import Ranks, rank_arms
from search.analysis.statistics.scores import Score, Scored, by_training, mean_and_sd, only, paired
from search.config.objectives import COSTS
from search.trials.pareto import non_dominated


@dataclass(frozen=True)
class Design:
    """The design of an ablation: distinct arms in order, the baseline, metrics, and the test's correction and level."""

    arms: tuple[str, ...]
    baseline: str
    case_metrics: tuple[str, ...]
    cost_metrics: tuple[str, ...]
    correction: str
    alpha: float


@dataclass(frozen=True)
class Effect:
    """An arm compared with the baseline in one metric.

    `adjusted` and `mixed_adjusted` are p-values corrected over the arms. `detectable` is the smallest difference that
    is detected with a power of 0.8 at the strictest corrected level. `mixed_adjusted` and `detectable` are None if the
    design does not allow them.
    """

    pairs: Pairs
    adjusted: float
    mixed: Mixed | None
    mixed_adjusted: float | None
    detectable: float | None


@dataclass(frozen=True)
class Line:
    """One arm: (mean, sd) over trainings and effect by metric (the baseline has no effects), costs by name."""

    arm: str
    trainings: int
    means: Mapping[str, tuple[float, float | None]]
    effects: Mapping[str, Effect]
    costs: Mapping[str, float]
    on_front: bool


@dataclass(frozen=True)
class Summary:
    """An ablation's numbers; `classes` holds each arm's mean difference by class in the primary metric."""

    design: Design
    lines: tuple[Line, ...]
    missing: tuple[Missing, ...]
    ranks: Ranks | None
    classes: Mapping[str, Mapping[str, float]]

    @property
    def primary(self) -> str:
        """The first metric that is scored case by case."""
        return self.design.case_metrics[0]

    @property
    def base(self) -> Line | None:
        """The baseline's line, None if it was never trained."""
        return next((line for line in self.lines if line.arm == self.design.baseline), None)

    def verdict(self, effect: Effect, metric: str) -> str:
        """Return `better`, `worse` or `not significant`.

        A dagger marks a difference that is significant over the cases but not in the mixed model: another seed may not
        show it.
        """
        if effect.adjusted >= self.design.alpha:
            return "not significant"
        better = (effect.pairs.rank_biserial > 0) == CASE_METRICS[metric].higher_is_better
        holds = effect.mixed_adjusted is not None and effect.mixed_adjusted < self.design.alpha
        return ("better" if better else "worse") + ("" if holds else "†")


def summarise(
    design: Design, scores: Sequence[Score], results: Sequence[Result], missing: Sequence[Missing]
) -> Summary:
    """Compute the numbers of an ablation; arms without a finished training have no line."""
    trained = {metric: by_training(scores, metric=metric) for metric in design.case_metrics}
    primary = trained[design.case_metrics[0]]
    arms = [arm for arm in design.arms if arm in primary]
    effects = {metric: _effects(design, trained[metric]) for metric in design.case_metrics}
    costs = {arm: _costs(arm, results) for arm in arms}
    front = _front(design, {arm: mean_and_sd(primary[arm])[0] for arm in arms}, costs)
    lines = tuple(
        Line(
            arm,
            len(primary[arm]),
            {metric: mean_and_sd(trained[metric][arm]) for metric in design.case_metrics if arm in trained[metric]},
            {metric: effects[metric][arm] for metric in design.case_metrics if arm in effects[metric]},
            costs[arm],
            arm in front,
        )
        for arm in arms
    )
    higher = CASE_METRICS[design.case_metrics[0]].higher_is_better
    ranks = rank_arms({arm: primary[arm] for arm in arms}, alpha=design.alpha, higher_is_better=higher)
    return Summary(design, lines, tuple(missing), ranks, _classes(design, scores, arms))


def _effects(design: Design, trained: Mapping[str, Scored]) -> dict[str, Effect]:
    """Compare every arm with the baseline; p-values are corrected over the arms of one metric."""
    baseline = trained.get(design.baseline)
    if baseline is None:
        return {}
    others = [arm for arm in design.arms if arm in trained and arm != design.baseline]
    found = {arm: list(paired(trained[arm], baseline).values()) for arm in others}
    differences = {arm: values for arm, values in found.items() if values}
    pairs = {arm: compare_pairs(values) for arm, values in differences.items()}
    adjusted = adjust({arm: each.p for arm, each in pairs.items()}, correction=design.correction)
    mixed = mixed_model(trained, baseline=design.baseline)
    mixed = {arm: mixed[arm] for arm in pairs if arm in mixed}
    mixed_adjusted = adjust({arm: each.p for arm, each in mixed.items()}, correction=design.correction)
    strictest = design.alpha if design.correction == "none" else design.alpha / max(1, len(pairs))
    return {
        arm: Effect(
            each,
            adjusted[arm],
            mixed.get(arm),
            mixed_adjusted.get(arm),
            detectable(differences[arm], alpha=strictest),
        )
        for arm, each in pairs.items()
    }


def _costs(arm: str, results: Sequence[Result]) -> dict[str, float]:
    """Return an arm's costs, as medians over its trainings (only latencies differ)."""
    records = [each.record for each in results if each.arm == arm]
    values = {name: [record.measurement.value(name) for record in records] for name in COSTS}
    return {
        name: float(np.median(known))
        for name, found in values.items()
        if (known := [value for value in found if value is not None])
    }


def _front(design: Design, means: Mapping[str, float], costs: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Return the arms that no other arm dominates in the primary metric and the ablation's costs."""
    sign = -1.0 if CASE_METRICS[design.case_metrics[0]].higher_is_better else 1.0
    arms = [arm for arm in means if all(name in costs[arm] for name in design.cost_metrics)]
    if not arms:
        return set()
    points = [[sign * means[arm], *(costs[arm][name] for name in design.cost_metrics)] for arm in arms]
    return {arm for arm, kept in zip(arms, non_dominated(np.array(points)), strict=True) if kept}


def _classes(design: Design, scores: Sequence[Score], arms: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return {arm: {class: mean paired difference}} of the primary metric, without the baseline."""
    found: dict[str, dict[str, float]] = {}
    for label in dict.fromkeys(each.label for each in scores):
        trained = by_training(only(scores, label=label), metric=design.case_metrics[0])
        baseline = trained.get(design.baseline, {})
        for arm in arms:
            differences = paired(trained.get(arm, {}), baseline)
            if arm != design.baseline and differences:
                found.setdefault(arm, {})[label] = fmean(differences.values())
    return found


def percent(value: float, of: float) -> float:
    """Return a cost's difference to the baseline in percent; infinite if the baseline's cost is zero."""
    return 100 * (value - of) / of if of else math.inf

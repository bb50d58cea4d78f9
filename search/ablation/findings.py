"""The findings of an ablation: results, statistics, tables and the methods paragraph."""

from __future__ import annotations

from dataclasses import dataclass

from search.ablation.cases import scores_of
from search.ablation.methods import methods
from search.ablation.plan import AblationPlan
from search.ablation.results import Missing, Result, results_of
from search.ablation.summary import Design, Summary, summarise
from search.ablation.tables import Table, tables
from search.analysis.statistics.scores import Score
from search.config.errors import RunError
from search.storage.price_cache import Device


@dataclass(frozen=True)
class Findings:
    """Results and missing trainings, all scores, their statistics, the tables, and the methods paragraph."""

    results: tuple[Result, ...]
    missing: tuple[Missing, ...]
    scores: tuple[Score, ...]
    summary: Summary
    tables: tuple[Table, ...]
    methods: str


def collect_findings(plan: AblationPlan, device: Device) -> Findings:
    """Evaluate an ablation's finished trainings. Raises RunError if there are none."""
    ablation, data = plan.loaded.ablation, plan.plans[0]
    results, missing = results_of(plan, device)
    if not results:
        reasons = dict.fromkeys(f"{each.arm}: {each.why}" for each in missing)
        raise RunError([f"{ablation.name} has no finished training yet", *reasons])
    design = Design(
        tuple(arm.name for arm in plan.distinct),
        plan.baseline.name,
        ablation.case_metrics,
        ablation.cost_metrics,
        ablation.correction,
        ablation.alpha,
    )
    scores = scores_of(results, metrics=ablation.case_metrics, labels=data.dataset.labels[1:], units=data.facts.groups)
    summary = summarise(design, scores, results, missing)
    same = [(arm.name, arm.same_as) for arm in plan.arms if arm.same_as]
    return Findings(
        tuple(results),
        tuple(missing),
        tuple(scores),
        summary,
        tables(summary, same=same),
        methods(plan, summary, results),
    )

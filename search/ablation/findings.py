"""All that an ablation's records say, and the files that say it: tables, cases, methods, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.ablation.cases import scores_of, write_cases
from search.ablation.methods import methods
from search.ablation.plan import AblationPlan
from search.ablation.results import Missing, Result, results_of
from search.ablation.summary import Design, Summary, summarise
from search.ablation.tables import Table, tables, to_csv, to_latex, to_markdown
from search.page import FINDINGS, write_whole
from search.prices import Device
from search.statistics.scores import Score
from search.study import UserError

CASES, REPORT = "cases.parquet", "report.html"


@dataclass(frozen=True)
class Findings:
    """Results and what is missing, every score, the numbers made of them, as tables, and how it was done."""

    results: tuple[Result, ...]
    missing: tuple[Missing, ...]
    scores: tuple[Score, ...]
    summary: Summary
    tables: tuple[Table, ...]
    methods: str


def find(plan: AblationPlan, device: Device) -> Findings:
    """Work out what an ablation found so far. Raises UserError where no training of it ended."""
    ablation, data = plan.loaded.ablation, plan.plans[0]
    results, missing = results_of(plan, device)
    if not results:
        reasons = dict.fromkeys(f"{each.arm}: {each.why}" for each in missing)
        raise UserError([f"{ablation.name} has no finished training yet", *reasons])
    design = Design(
        tuple(arm.name for arm in plan.distinct), plan.baseline.name, ablation.case_metrics, ablation.cost_metrics,
        ablation.correction, ablation.alpha,
    )  # fmt: skip
    scores = scores_of(
        results, metrics=ablation.case_metrics, labels=data.dataset.labels[1:], units=data.facts.groups
    )
    summary = summarise(design, scores, results, missing)
    same = [(arm.name, arm.same_as) for arm in plan.arms if arm.same_as]
    return Findings(
        tuple(results), tuple(missing), tuple(scores), summary, tables(summary, same=same),
        methods(plan, summary, results),
    )  # fmt: skip


def write_findings(plan: AblationPlan, found: Findings) -> list[Path]:
    """Write tables (Markdown, LaTeX, CSV), cases (Parquet), the methods paragraph and the report; return the paths."""
    from search.ablation.report import render, to_json

    folder = plan.folder
    texts = {
        "table.md": "\n".join(to_markdown(table) for table in found.tables),
        "table.tex": "\n".join(to_latex(table) for table in found.tables),
        "table.csv": to_csv(found.summary),
        "methods.txt": found.methods,
        REPORT: render(plan, found),
        FINDINGS: to_json(plan, found),
    }
    paths = [write_whole(folder / name, text) for name, text in texts.items()]
    write_cases(found.scores, folder / CASES)
    return [*paths, folder / CASES]

"""An ablation's report.html: tables, figures, the arms with their changes, and the methods paragraph."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from search.ablation.cases import write_cases
from search.ablation.figures import cost_points, draw_classes, draw_costs, draw_forest, draw_ranks, effect_intervals
from search.ablation.findings import Findings
from search.ablation.metrics import CASE_METRICS
from search.ablation.plan import AblationPlan
from search.ablation.tables import to_csv, to_html, to_latex, to_markdown
from search.config.objectives import OBJECTIVES
from search.files import write_text
from search.files.digests import sealed
from search.visualization.components import Figure
from search.visualization.figures.style import component
from search.visualization.html import FINDINGS, figure_html, render_page

CASES, REPORT = "cases.parquet", "report.html"
ARM_HEADINGS = ("arm", "network", "trained with")
TEMPLATE = Path(__file__).with_name("report.html")


def tiles(plan: AblationPlan, found: Findings) -> list[tuple[str, str]]:
    """Return the ablation's key facts as (term, value)."""
    summary = found.summary
    effects = [line.effects[summary.primary] for line in summary.lines if summary.primary in line.effects]
    verdicts = [summary.verdict(effect, summary.primary) for effect in effects]
    return [
        ("arms", str(len(plan.distinct))),
        ("trainings", str(len(found.results))),
        ("missing", str(len(found.missing))),
        ("baseline", summary.design.baseline),
        ("primary metric", CASE_METRICS[summary.primary].title),
        ("significant", str(sum(word in ("better", "worse") for word in verdicts))),
        ("significant over the cases only", str(sum("†" in word for word in verdicts))),
    ]


def render(plan: AblationPlan, found: Findings) -> str:
    """Return the report as HTML."""
    drawn = [figure_html(each) for each in figures(found)]
    values = {
        "name": plan.loaded.ablation.name,
        "tiles": tiles(plan, found),
        "methods": found.methods,
        "figures": drawn,
        "tables": [(table.title, to_html(table), table.notes) for table in found.tables],
        "arms": (ARM_HEADINGS, arms(plan)),
    }
    return render_page(TEMPLATE, values)


def arms(plan: AblationPlan) -> list[tuple[str, str, str]]:
    """Return each arm's name, network and training settings."""
    return [
        (
            arm.name,
            arm.architecture.describe() + (f" (same as {arm.same_as})" if arm.same_as else ""),
            plan.loaded.settings[arm.plan].name or "the settings of the file",
        )
        for arm in plan.arms
    ]


def to_json(plan: AblationPlan, found: Findings) -> str:
    """Return the ablation's key facts, figures, tables and methods as JSON, for the dashboard."""
    drawn = [asdict(each) for each in figures(found)]
    values = {
        "tiles": tiles(plan, found),
        "figures": drawn,
        "tables": [asdict(table) for table in found.tables],
        "arms": {"headings": ARM_HEADINGS, "rows": arms(plan)},
        "methods": found.methods,
    }
    return json.dumps(sealed(values))


def figures(found: Findings) -> list[Figure]:
    """Return all figures that the results suffice for."""
    summary, design = found.summary, found.summary.design
    drawn = []
    for metric in design.case_metrics:
        lines = effect_intervals(summary, metric)
        if lines:
            title = f"{CASE_METRICS[metric].title}: paired differences, 95 % intervals"
            drawn.append((title, draw_forest(lines, metric=metric, baseline=design.baseline)))
    for cost in design.cost_metrics:
        figure = draw_costs(cost_points(summary, cost), cost=cost, metric=summary.primary, baseline=design.baseline)
        drawn.append((f"{CASE_METRICS[summary.primary].title} against {OBJECTIVES[cost].heading}", figure))
    if summary.classes:
        title = f"{CASE_METRICS[summary.primary].title} by class: difference to {design.baseline}"
        drawn.append((title, draw_classes(summary.classes, metric=summary.primary)))
    if summary.ranks:
        p = summary.ranks.p
        title = f"Critical difference (Friedman p {'< 0.0001' if p < 0.0001 else f'= {p:.2g}'}; bars: not significant)"
        drawn.append((title, draw_ranks(summary.ranks)))
    return [
        component(figure, name=f"ablation-{at}", title=title, label=f"{title}; the tables contain the same numbers")
        for at, (title, figure) in enumerate(drawn)
    ]


def write_findings(plan: AblationPlan, found: Findings) -> list[Path]:
    """Write tables (Markdown, LaTeX, CSV), cases (Parquet), the methods paragraph and the report; return the paths."""
    folder = plan.folder
    texts = {
        "table.md": "\n".join(to_markdown(table) for table in found.tables),
        "table.tex": "\n".join(to_latex(table) for table in found.tables),
        "table.csv": to_csv(found.summary),
        "methods.txt": found.methods,
        REPORT: render(plan, found),
        FINDINGS: to_json(plan, found),
    }
    paths = [write_text(folder / name, text) for name, text in texts.items()]
    write_cases(found.scores, folder / CASES)
    return [*paths, folder / CASES]

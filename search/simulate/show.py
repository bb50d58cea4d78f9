"""Comparisons as terminal tables and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table as Grid

from search.config.units import show_seconds
from search.simulate.clock import Step
from search.simulate.compare import MAIN, OURS, SHARES, Comparison, best_ratio
from search.simulate.compare_reports import report_summaries
from search.simulate.reported import BUDGETS


def comparison_tables(compared: Comparison) -> list[Grid]:
    """Return tables of trainings, of time and, if OURS ran, of OURS against the others; none is over 100 wide."""
    grids = [_trainings_table(compared), _time_table(compared)]
    return [*grids, _rivals_table(compared)] if compared.rivals else grids


def _trainings_table(compared: Comparison) -> Grid:
    title = f"{compared.table}: {compared.size:,} architectures, {compared.character}; medians over seeds"
    budgets = [budget for budget in BUDGETS if budget <= compared.rules.trainings]
    grid = _grid(
        title,
        "proposer",
        *(f"trainings\nto {share:.0%}" for share in SHARES),
        f"reached\n{MAIN:.0%}",
        *(f"share\nafter {budget}" for budget in budgets),
    )
    for each in compared.summaries:
        grid.add_row(
            each.proposer,
            *(_count(value, compared.rules.trainings) for value in each.trainings),
            f"{each.reached[SHARES.index(MAIN)]} of {each.runs}",
            *(f"{share:.1%}" for share in each.shares[: len(budgets)]),
        )
    return grid


def _time_table(compared: Comparison) -> Grid:
    grid = _grid(
        "time: seconds of training, summed over workers",
        "proposer",
        *(f"time\nto {share:.0%}" for share in SHARES),
        "proposals\nrepeated",
        "ask,\nmedian",
        "ask,\nlongest",
        "workers\nbusy",
    )
    for each in compared.summaries:
        grid.add_row(
            each.proposer,
            *(_time(value) for value in each.hours),
            f"{each.repeats:.0%}",
            show_seconds(each.ask_median_s),
            show_seconds(each.ask_most_s),
            f"{each.busy:.1%}",
        )
    return grid


def _rivals_table(compared: Comparison) -> Grid:
    best, hours = best_ratio(compared), best_ratio(compared, hours=True)
    title = (
        f"{OURS} to {MAIN:.0%}, as a ratio of medians: {_ratio(best)} of the trainings and {_ratio(hours)} of the time "
        "of the best other proposer\n(p: one-sided Wilcoxon test over seeds, Holm-corrected)"
    )
    grid = _grid(title, "relative to", "trainings", "p (trainings)", "time", "p (time)")
    for each in compared.rivals:
        grid.add_row(
            each.proposer, _ratio(each.ratio), f"{each.p:.2g}", _ratio(each.hours_ratio), f"{each.hours_p:.2g}"
        )
    return grid


def _grid(title: str, first: str, *headings: str) -> Grid:
    grid = Grid(title=title or None, title_justify="left")
    grid.add_column(first)
    for heading in headings:
        grid.add_column(heading, justify="right")
    return grid


def _count(value: float, cap: int) -> str:
    return f"{value:.0f}" if math.isfinite(value) else f"> {cap}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _time(hours: float) -> str:
    return show_seconds(hours * 3600) if math.isfinite(hours) else "-"


def comparisons_json(comparisons: Sequence[Comparison]) -> str:
    """Return all numbers as JSON; shares never reached are null.

    `reports` holds what each proposer's users get: medians after each of BUDGETS, as in the printed tables.
    """
    found = []
    for each in comparisons:
        reports = [asdict(summary) for summary in report_summaries(each)]
        found.append(_plain(asdict(_without_detail(each)) | {"reports": reports}))
    return json.dumps(found, indent=2)


def _without_detail(compared: Comparison) -> Comparison:
    return replace(compared, runs=tuple(replace(run, ask_s=(), steps=_thinned(run.steps)) for run in compared.runs))


def _thinned(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Keep the steps at which the hypervolume increased."""
    kept, reached = [], -1.0
    for step in steps:
        if step.share > reached:
            kept.append(step)
            reached = step.share
    return tuple(kept)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

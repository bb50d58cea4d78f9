"""Comparisons as terminal tables and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table as Grid

from search.simulate.clock import Step
from search.simulate.compare import BUDGETS, OURS, SHARES, Comparison, best_ratio


def comparison_tables(compared: Comparison) -> list[Grid]:
    """Return the table of medians and, if OURS ran, the table of OURS against each other proposer."""
    title = f"{compared.table}: {compared.size:,} architectures, {compared.character}"
    grid = Grid(title=title, title_justify="left")
    grid.add_column("proposer")
    percents = [f"{share:.0%}" for share in SHARES]
    for heading in (
        *(f"trainings to {percent}" for percent in percents),
        f"reached {' / '.join(percents)}",
        *(f"hours to {percent}" for percent in percents),
        f"share after {' / '.join(map(str, BUDGETS))}",
        "repeats",
        "ask median / max",
        "busy",
    ):
        grid.add_column(heading, justify="right")
    for each in compared.summaries:
        grid.add_row(
            each.proposer,
            *(_count(value, compared.rules.trainings) for value in each.trainings),
            f"{' / '.join(map(str, each.reached))} of {each.runs}",
            *(_hours(value) for value in each.hours),
            " / ".join(f"{share:.1%}" for share in each.shares),
            f"{each.repeats:.0%}",
            f"{each.ask_median_s * 1e3:.0f} / {each.ask_most_s * 1e3:.0f} ms",
            f"{each.busy:.1%}",
        )
    return [grid, _rivals_table(compared)] if compared.rivals else [grid]


def _rivals_table(compared: Comparison) -> Grid:
    best, hours = best_ratio(compared), best_ratio(compared, hours=True)
    title = (
        f"{OURS} relative to each other proposer, to {SHARES[1]:.0%} (ratios of medians; one-sided Wilcoxon over "
        f"seeds, Holm-corrected): {best:.2f} of the trainings and {hours:.2f} of the hours of the best other proposer"
    )
    grid = Grid(title=title, title_justify="left")
    for heading in ("relative to", "trainings", "p (trainings)", "hours", "p (hours)"):
        grid.add_column(heading, justify="left" if heading == "relative to" else "right")
    for each in compared.rivals:
        grid.add_row(
            each.proposer, f"{each.ratio:.2f}", f"{each.p:.2g}", f"{each.hours_ratio:.2f}", f"{each.hours_p:.2g}"
        )
    return grid


def _count(value: float, cap: int) -> str:
    return f"{value:.0f}" if math.isfinite(value) else f"> {cap}"


def _hours(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "-"


def comparisons_json(comparisons: Sequence[Comparison]) -> str:
    """Return all numbers as JSON; shares never reached are null."""
    return json.dumps([_plain(asdict(_without_detail(each))) for each in comparisons], indent=2)


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

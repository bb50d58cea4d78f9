"""Compare what proposers' users get: medians of the reports over seeds, and the significance of OURS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median

from rich.table import Table as Grid

from search.simulate.clock import Run
from search.simulate.compare import OURS, Comparison, holm, less
from search.simulate.reported import BUDGETS, Report, Reported

# Figures by expected and by measured Dice, and how their signs are shown
SHOWN = (("optimism", "+"), ("best_optimism", "+"), ("best_regret", ""), ("best_gap", ""), ("knee_regret", ""))


@dataclass(frozen=True)
class ReportSummary:
    """One proposer's reports after some trainings: medians over its runs, by expected and by measured Dice.

    `p` is that of OURS having a larger true hypervolume of the reported front (one-sided Wilcoxon over seeds, Holm),
    None for OURS itself and without OURS.
    """

    proposer: str
    trainings: int
    runs: int
    repeated: float
    expected: Reported
    measured: Reported
    p: float | None


def report_summaries(compared: Comparison) -> tuple[ReportSummary, ...]:
    """Return the summaries of all proposers after each of BUDGETS that the runs reached."""
    found: list[ReportSummary] = []
    for trainings in BUDGETS:
        reports = {each.proposer: _reports(compared.runs, each.proposer, trainings) for each in compared.summaries}
        reports = {name: of for name, of in reports.items() if of}
        p = _significance(reports)
        found += [_summary(name, trainings, of, p.get(name)) for name, of in reports.items()]
    return tuple(found)


def _reports(runs: Sequence[Run], proposer: str, trainings: int) -> dict[int, Report]:
    """Return a proposer's reports by seed."""
    own = [run for run in runs if run.proposer == proposer]
    return {run.seed: each for run in own for each in run.reports if each.trainings == trainings}


def _significance(reports: dict[str, dict[int, Report]]) -> dict[str, float]:
    ours, raw = reports.get(OURS, {}), {}
    for name, theirs in reports.items():
        seeds = sorted(ours.keys() & theirs.keys())
        if name != OURS and seeds:
            lost = [[-of[seed].expected.share for seed in seeds] for of in (ours, theirs)]
            raw[name] = less(*lost)
    return holm(raw)


def _summary(name: str, trainings: int, reports: dict[int, Report], p: float | None) -> ReportSummary:
    of = list(reports.values())
    expected, measured = ([getattr(each, by) for each in of] for by in ("expected", "measured"))
    repeated = median(each.repeated for each in of)
    return ReportSummary(name, trainings, len(of), repeated, _medians(expected), _medians(measured), p)


def _medians(of: Sequence[Reported]) -> Reported:
    return Reported(*(median(getattr(each, field.name) for each in of) for field in fields(Reported)))


def reports_tables(compared: Comparison) -> list[Grid]:
    """Return the reports as two tables, the reported front and its picks; none if the runs have no reports."""
    summaries = report_summaries(compared)
    if not summaries:
        return []
    noise = compared.rules.noise
    how = "" if noise is None else f", noise {noise:g}"
    front = _grid(
        f"{compared.table}: the reported front by expected Dice (by measured Dice){how}, medians",
        ("repeats", "true volume", "p", "optimism", "noise found"),
    )
    picks = _grid(
        "Its picks: best loses Dice to the best trained network and to the table's; knee loses the volume beyond it",
        ("optimism of best", "lost to trained", "lost to the table", "lost by knee"),
    )
    for each in summaries:
        one, other = each.expected, each.measured
        optimism, best_optimism, best, gap, knee = (
            f"{getattr(one, name):{sign}.4f} ({getattr(other, name):{sign}.4f})" for name, sign in SHOWN
        )
        front.add_row(
            str(each.trainings),
            each.proposer,
            f"{each.repeated:.0f}",
            f"{one.share:.1%} ({other.share:.1%})",
            "" if each.p is None else f"{each.p:.2g}",
            optimism,
            "" if math.isnan(one.noise) else f"{one.noise:.4f}",
        )
        picks.add_row(str(each.trainings), each.proposer, best_optimism, best, gap, knee)
    return [front, picks]


def _grid(title: str, headings: Sequence[str]) -> Grid:
    grid = Grid(title=title, title_justify="left")
    for heading in ("after", "proposer", *headings):
        grid.add_column(heading, justify="left" if heading == "proposer" else "right")
    return grid

"""`voxnas ablate`: the arms before a run, and the tables after it."""

from __future__ import annotations

from dataclasses import asdict

from search.ablation.findings import Findings, collect_findings
from search.ablation.plan import AblationPlan
from search.ablation.preview import estimate_arms, print_estimates
from search.ablation.report import write_findings
from search.ablation.run import ablation_device, missing_count, run_ablation
from search.ablation.tables import to_rich
from search.api.running import make_executor, own_cluster
from search.api.terminal import open_console, print_json, print_text
from search.cli.running import following


def preview_ablation(plan: AblationPlan, *, json: bool) -> None:
    """Show the arms, their costs and the expected time."""
    found = estimate_arms(plan)
    if not json:
        print_estimates(plan, found, open_console())
        return
    arms = [
        {
            "arm": each.arm.name,
            "changes": dict(each.arm.changes),
            "costs": asdict(each.costs),
            "trainings_left": each.left,
            "seconds_each": each.each_s,
            "measured": each.measured,
        }
        for each in found
    ]
    same = {each.name: each.same_as for each in plan.arms if each.same_as}
    print_json({"ablation": plan.loaded.ablation.name, "baseline": plan.baseline.name, "arms": arms, "same_as": same})


@own_cluster()
def run_arms(plan: AblationPlan, *, quiet: bool, json: bool) -> None:
    """Run or resume an ablation with live progress, and show its findings."""
    with following(plan.loaded.ablation.name, trials=missing_count(plan), quiet=quiet, to_stderr=json) as view:
        run_ablation(plan, view=view, make_executor=make_executor)
    _show_findings(plan, collect_findings(plan, ablation_device(plan)), json=json)


def _show_findings(plan: AblationPlan, found: Findings, *, json: bool) -> None:
    """Write an ablation's files, and show its tables."""
    written = write_findings(plan, found)
    if json:
        tables = [asdict(table) for table in found.tables]
        print_json({"tables": tables, "methods": found.methods, "files": [str(path) for path in written]})
        return
    console = open_console()
    for table in found.tables:
        console.print(to_rich(table))
    console.print(found.methods)
    for path in written:
        print_text(path)

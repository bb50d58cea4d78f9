"""`voxnas demo`: a small study on synthetic volumes, through the same reader as real ones."""

from __future__ import annotations

from pathlib import Path

from search.analysis.front import look
from search.cli.fronts import show_front, write_study_report
from search.cli.running import export_network, load_plan, run_trials
from search.data.phantom import write_phantom

STUDY = Path(__file__).with_name("demo.yaml")
CASES = 16


def run_demo(runs: Path) -> None:
    """Write the volumes unless they exist, run the study, show its front and report, export the knee."""
    root = runs / "demo-data"
    if not (root / "phantom" / "dataset.json").exists():
        write_phantom(root / "phantom", cases=CASES, seed=0)
    plan = load_plan(STUDY, root, None, runs)
    run_trials(plan, plan.study.search.trials)
    looked = look(plan.loaded, runs=runs)
    show_front(looked, json=False)
    write_study_report(looked, slices=False)
    export_network(plan, "knee", plan.folder / "export", "trial")

"""`voxnas demo`: a small study on synthetic volumes, through the same reader as real ones."""

from __future__ import annotations

import shlex
from pathlib import Path

from search.api.terminal import print_text
from search.cli.fronts import show_front, write_study_report
from search.cli.running import export_network, load_study, run_trials
from search.data.phantom import write_phantom

STUDY = Path(__file__).with_name("demo.yaml")
CASES = 16


def run_demo(runs: Path) -> None:
    """Write the volumes unless they exist, run the study, show its front and report, export the knee."""
    root = runs / "demo-data"
    if not (root / "phantom" / "dataset.json").exists():
        write_phantom(root / "phantom", cases=CASES, seed=0)
    study = load_study(STUDY, root, None, runs)
    run_trials(study, None)
    show_front(study, json=False, csv=None)
    write_study_report(study, slices=False)
    export_network(study, "knee", study.folder / "export", "trial", force=True)
    print_text(
        f"Next:\n  open {study.folder / 'report.html'} in a browser\n"
        f"  {shlex.join(['voxnas', 'dashboard', '--runs', str(runs)])}\n"
        "  voxnas init FOLDER --hours 8    # a study of your own volumes"
    )

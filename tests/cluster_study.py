"""`voxnas run --executor ray` with trials of `cluster_trials`, in a process of its own."""

import os
import sys
from pathlib import Path

import cluster_trials
from forked import Command
from rich.console import Console

from search.api.progress import RunView
from search.config import load_study
from search.config.errors import UserError
from search.runner.cluster.executor import RayExecutor
from search.runner.plan import make_plan
from search.runner.run import run_study


def start_driver(plan, cluster, trials, trial):
    """Start a driver of a study in its own process; `trial` names a class of `cluster_trials`."""
    arguments = (plan.loaded.file, plan.runs, cluster.address, trials, trial)
    return Command(drive, *arguments, environment=dict(os.environ))


def drive(file, runs, address, trials, trial):
    """Run a study as the command does, with its exit codes."""
    try:
        plan = make_plan(load_study(Path(file)), runs=Path(runs))
        trial, stopwatch = getattr(cluster_trials, trial), cluster_trials.Watch
        executor = RayExecutor(plan, address=address, trial=trial, stopwatch=stopwatch)
        with RunView(Console(), name=plan.study.name, trials=int(trials)) as view:
            print(run_study(plan, trials=int(trials), view=view, executor=executor).why)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

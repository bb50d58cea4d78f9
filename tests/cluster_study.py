"""`voxnas run --executor ray` with trials of `cluster_trials`: FILE RUNS ADDRESS TRIALS CLASS."""

import sys
from pathlib import Path

import cluster_trials
from rich.console import Console

from search.api.progress import RunView
from search.config import load_study
from search.config.errors import UserError
from search.runner.cluster.executor import RayExecutor
from search.runner.plan import make_plan
from search.runner.run import run_study


def main(file, runs, address, trials, trial):
    plan = make_plan(load_study(Path(file)), runs=Path(runs))
    executor = RayExecutor(plan, address=address, trial=getattr(cluster_trials, trial), stopwatch=cluster_trials.Watch)
    with RunView(Console(), name=plan.study.name, trials=int(trials)) as view:
        print(run_study(plan, trials=int(trials), view=view, executor=executor).why)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

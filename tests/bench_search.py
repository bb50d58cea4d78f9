"""The search's targets: known-cost compared with every other proposer on synthetic tables.

Run: make bench-search. The whole benchmark takes hours on two cores, most of them in Optuna's Gaussian process.
`--without gp` skips it and `--tables` selects tables. `--keep FOLDER` stores all runs but ours and resumes an
interrupted call (empty the folder if anything but known-cost has changed). The figures with their limits come last.
"""

import argparse
import hashlib
import math
import os
import pickle
import time
from pathlib import Path

import numpy as np
from bench_figures import report
from rich.console import Console

from search.config.schema import Halving
from search.proposers.known_cost import KnownCostProposer
from search.proposers.propose import PROPOSERS
from search.simulate.call import TableSource, Task, all_runs
from search.simulate.clock import Rules, problem_of_table, simulate
from search.simulate.compare import OURS, best_ratio, comparison
from search.simulate.show import comparison_tables
from search.simulate.synthetic import RECIPES, synthetic_table
from search.trials.records import Measurement, Record

SLOW = ("gp", "tpe")  # up to a second per ask: cut off and counted where they exceed ours by the limit
MOST = 400  # maximum number of trainings of a run
HALVING = Halving(min_epochs=9, reduction=3.0)  # of 27 epochs: earlier, the synthetic curves predict their ends poorly
LIMIT, UNSEEN_LIMIT, HOURS_LIMIT, WITHIN = 0.4, 0.5, 0.35, 0.8


def runs_of(name, proposers, *, options, most, halving):
    """Run proposers, each from the same seeds; only ours continues to 99 %."""
    tasks = [
        Task(
            TableSource(name, None, None),
            proposer,
            seed,
            Rules(trainings=most[proposer], halving=halving, enough=0.99 if proposer == OURS and not halving else 0.95),
        )
        for proposer in proposers
        for seed in range(options.seeds)
    ]
    runs = {proposer: [] for proposer in proposers}
    for task, run in kept_runs(tasks, jobs=options.jobs, folder=options.keep):
        runs[task.proposer].append(run)
    return runs


def kept_runs(tasks, *, jobs, folder):
    """Yield each task with its run, cached in a folder; ours always runs again."""
    if folder is None or {task.proposer for task in tasks} == {OURS}:
        yield from zip(tasks, all_runs(tasks, jobs), strict=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    files = {task: folder / f"{hashlib.sha256(repr(task).encode()).hexdigest()[:32]}.pickle" for task in tasks}
    lacking = [task for task in tasks if not files[task].exists()]
    made = zip(lacking, all_runs(lacking, jobs), strict=True)
    for task in tasks:
        if task not in lacking:
            yield task, pickle.loads(files[task].read_bytes())
            continue
        _, run = next(made)
        partial = files[task].with_suffix(".partial")
        partial.write_bytes(pickle.dumps(run))
        partial.rename(files[task])
        yield task, run


def compared(name, rivals, *, limit, options, halving=None):
    ours = runs_of(name, [OURS], options=options, most={OURS: MOST}, halving=halving)
    needed = float(np.median([run.trainings_to(0.95) for run in ours[OURS]]))
    most = {rival: math.ceil(min(MOST, needed / limit)) if rival in SLOW else MOST for rival in rivals}
    runs = ours | runs_of(name, rivals, options=options, most=most, halving=halving)
    return comparison(synthetic_table(name), runs, rules=Rules(trainings=MOST, halving=halving))


def rows_of(name, rivals, *, options, console):
    """Compare on one table; return its figures: (quantity, number, limit, whether that is the least)."""
    unseen = RECIPES[name].unseen
    limit = UNSEEN_LIMIT if unseen else LIMIT
    made = compared(name, rivals, limit=limit, options=options)
    for each in comparison_tables(made):
        console.print(each)
    within = sum(run.trainings_to(0.99) <= made.size / 10 for run in made.runs if run.proposer == OURS)
    needed = options.seeds if name == "additive" else math.ceil(WITHIN * options.seeds)
    rows = [
        ("trainings to 95 %, over the best other's", best_ratio(made), limit, False),
        ("largest p, Holm", max(rival.p for rival in made.rivals), 0.05, False),
        ("runs to 99 % within a tenth of the table", within, needed, True),
    ]
    if unseen:
        halved = compared(name, rivals, limit=HOURS_LIMIT, options=options, halving=HALVING)
        for each in comparison_tables(halved):
            console.print(each)
        hours = best_ratio(halved, hours=True)
        rows.append(("hours to 95 %, over the best other's, all with halving", hours, HOURS_LIMIT, False))
    return rows


def ask_seconds(count):
    table = synthetic_table("network")
    rows = np.random.default_rng(0).permutation(table.size)[:count]
    records = [
        Record(
            number,
            table.architectures[row],
            tuple(table.decisions[row].items()),
            0,
            0,
            Measurement("trained", costs=table.costs[row], dice=float(table.truth[row])),
            "",
        )
        for number, row in enumerate(rows)
    ]
    proposer, took = KnownCostProposer(problem_of_table(table, seed=0)), []
    next(proposer.proposals(records[:-3]))
    for last in (2, 1, 0):
        begun = time.perf_counter()
        next(proposer.proposals(records[: count - last]))
        took.append(time.perf_counter() - begun)
    return max(took)


def speed_rows():
    """Return the cost of asks, and the share of many workers' time that remains."""
    rules = Rules(workers=1024, trainings=3072, enough=1.1)
    busy = simulate(synthetic_table("network"), OURS, seed=0, rules=rules).busy
    return [
        ("utilisation of 1,024 workers, trainings of unequal length", busy, 0.95, True),
        *(
            (f"seconds of an ask at {count:,} records", ask_seconds(count), limit, False)
            for count, limit in ((1_000, 1.0), (10_000, 3.0))
        ),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", default="", help="proposers, with commas")
    parser.add_argument("--tables", default=",".join(RECIPES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes of parallel runs
    rivals = [name for name in PROPOSERS if name not in (OURS, *options.without.split(","))]
    console = Console(width=170)
    sections = {name: rows_of(name, rivals, options=options, console=console) for name in options.tables.split(",")}
    sections["network, speed"] = speed_rows()
    for name, rows in sections.items():
        kind = f"{name} (unseen)" if name in RECIPES and RECIPES[name].unseen else name
        for what, number, limit, at_least in rows:
            report(f"{kind}: {what}", number, limit=limit, at_least=at_least)


if __name__ == "__main__":
    main()

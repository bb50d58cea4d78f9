"""The numbers that the search has to reach: known-cost against every other proposer on made tables.

Run: make bench-search (hours on two cores, nearly all of them Optuna's Gaussian process; --quick leaves that and TPE
out and takes about 15 minutes). Limits are those of the last column.
"""

import argparse
import math
import time

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from search.proposers.known_cost import KnownCostProposer
from search.proposers.propose import PROPOSERS
from search.records import Measurement, Record
from search.simulate.call import Task, all_runs
from search.simulate.clock import Rules, problem_of_table, simulate
from search.simulate.compare import Comparison, best_ratio, comparison
from search.simulate.show import comparison_tables
from search.simulate.synthetic import RECIPES, synthetic_table
from search.study.schema import Halving

SLOW = ("gp", "tpe")
MOST = 400  # trainings of a run of ours or of a quick rival
SLOW_MOST = 80  # of a slow one: more than 2.5 times what ours needs, so that a run cut off there decides the ratio
HALVING = Halving(min_epochs=9, reduction=3.0)  # of 27 epochs: earlier the made curves say little about their ends


def compared(name, proposers, *, seeds, jobs, halving=None):
    runs = {}
    for proposer in proposers:
        enough = 0.99 if proposer == "known-cost" and halving is None else 0.95
        most = SLOW_MOST if proposer in SLOW else MOST
        rules = Rules(trainings=most, enough=enough, halving=halving)
        runs[proposer] = list(all_runs([Task(name, None, proposer, seed, rules) for seed in range(seeds)], jobs))
    return comparison(synthetic_table(name), runs, rules=Rules(trainings=MOST, halving=halving))


def within_tenth(comparison: Comparison) -> int:
    ours = [run for run in comparison.runs if run.proposer == "known-cost"]
    return sum(run.trainings_to(0.99) <= comparison.size / 10 for run in ours)


def ask_seconds(count):
    table = synthetic_table("network")
    rows = np.random.default_rng(0).permutation(table.size)[:count]
    records = [
        Record(number, table.architectures[row], tuple(table.decisions[row].items()), 0, 0,
               Measurement("trained", costs=table.costs[row], dice=float(table.truth[row])), "")
        for number, row in enumerate(rows)
    ]  # fmt: skip
    proposer, took = KnownCostProposer(problem_of_table(table, seed=0)), []
    proposer.propose(records[:-3])
    for last in (2, 1, 0):
        begun = time.perf_counter()
        proposer.propose(records[: count - last])
        took.append(time.perf_counter() - begun)
    return max(took)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    proposers = [name for name in PROPOSERS if not (options.quick and name in SLOW)]
    console, grid = Console(width=170), Grid(title=f"{options.seeds} seeds each", title_justify="left")
    for heading in ("table", "what", "number", "limit"):
        grid.add_column(heading)
    for name, recipe in RECIPES.items():
        made = compared(name, proposers, seeds=options.seeds, jobs=options.jobs)
        for each in comparison_tables(made):
            console.print(each)
        kind = f"{name} (unseen)" if recipe.unseen else name
        limit, runs = (0.5, 0.8) if recipe.unseen else (0.4, 0.8)
        grid.add_row(kind, "trainings to 95 %, over the best other's", f"{best_ratio(made):.2f}", f"<= {limit}")
        worst = max((rival.p for rival in made.rivals), default=math.nan)
        grid.add_row(kind, "largest p, Holm", f"{worst:.2g}", "< 0.05")
        needed = options.seeds if name == "additive" else math.ceil(runs * options.seeds)
        grid.add_row(kind, "runs to 99 % within a tenth of the table", str(within_tenth(made)), f">= {needed}")
        if recipe.unseen:
            halved = compared(name, proposers, seeds=options.seeds, jobs=options.jobs, halving=HALVING)
            ratio = best_ratio(halved, hours=True)
            grid.add_row(kind, "hours to 95 %, over the best other's, all with halving", f"{ratio:.2f}", "<= 0.35")
    busy = simulate(
        synthetic_table("network"), "known-cost", seed=0, rules=Rules(workers=1024, trainings=3072, enough=1.1)
    ).busy
    grid.add_row("network", "utilisation of 1,024 workers", f"{busy:.3f}", ">= 0.95")
    for count, limit in ((1_000, 1.0), (10_000, 3.0)):
        grid.add_row("network", f"seconds of an ask at {count:,} records", f"{ask_seconds(count):.2f}", f"< {limit}")
    console.print(grid)


if __name__ == "__main__":
    main()

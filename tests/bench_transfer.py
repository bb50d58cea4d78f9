"""What a search gains from other tables: each table of a folder is searched with what all the others teach.

Run: make bench-transfer TABLES=FOLDER. The tables must share their space, such as those of NAS-Bench-Graph on several
data sets. Reversed sources, with the best Dice in place of the worst, must do little harm.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow
import pyarrow.parquet
from bench_figures import report

from search.simulate.call import TableSource, Task, all_runs
from search.simulate.clock import Rules
from search.simulate.compare import OURS

MOST = 150  # maximum number of trainings of a run
LIMIT, REVERSED_LIMIT = 0.6, 1.15


def median_trainings(file, sources, *, options):
    """Return the median number of trainings to 95 %; runs that never get there count with all trainings."""
    rules = Rules(trainings=MOST, enough=0.95)
    table = TableSource(file.stem, file, None)
    tasks = [Task(table, OURS, seed, rules, tuple(sources)) for seed in range(options.seeds)]
    return float(np.median([min(run.trainings_to(0.95), MOST) for run in all_runs(tasks, options.jobs)]))


def write_reversed(file, folder):
    table = pyarrow.parquet.read_table(file)
    dice = table["dice"].to_numpy()
    reversed_dice = pyarrow.array(dice.max() + dice.min() - dice)
    written = folder / f"reversed_{file.name}"
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("dice"), "dice", reversed_dice), written)
    return written


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", type=Path, help="folder of tables that share one space")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes of parallel runs
    files, ratios = sorted(options.tables.glob("*.parquet")), {"the others": [], "the others, reversed": []}
    with TemporaryDirectory() as temporary:
        backwards = {file: write_reversed(file, Path(temporary)) for file in files}
        for file in files:
            alone, others = median_trainings(file, (), options=options), [each for each in files if each != file]
            for (what, found), sources in zip(
                ratios.items(), (others, [backwards[each] for each in others]), strict=True
            ):
                needed = median_trainings(file, sources, options=options)
                found.append(needed / alone)
                report(f"{file.stem}: trainings to 95 % with {what} (without: {alone:g})", needed)
    for (what, found), limit in zip(ratios.items(), (LIMIT, REVERSED_LIMIT), strict=True):
        report(f"trainings to 95 % with {what}, over without: median of the tables", np.median(found), limit=limit)


if __name__ == "__main__":
    main()

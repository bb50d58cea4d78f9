"""What a search's user gets where one training is noisy: the true quality of the reported front and its picks.

Run: make bench-search, or this file alone. It writes a Markdown table (`--out`). `--real` adds Parquet files that
`voxnas simulate --table` reads, `--keep FOLDER` stores all runs and resumes an interrupted call (empty the folder if
the search has changed).
"""

import argparse
import os
from importlib.metadata import version
from pathlib import Path

from bench_search import kept_runs

from search.proposers.propose import PROPOSERS
from search.simulate.call import TableSource, Task
from search.simulate.clock import Rules
from search.simulate.compare import OURS, comparison
from search.simulate.compare_reports import report_summaries

TABLES = "additive,noisy-network"
OUT = Path(__file__).parents[1] / "studies" / "examples" / "noise.md"
FRONT_LIMIT, BEST_LIMIT = 0.0005, 0.002  # optimism of the reported front, and of the pick `best`
HEADINGS = (
    "table", "proposer", "repeats", "true hypervolume", "p", "optimism of the front", "optimism of best",
    "regret of best", "gap of best", "regret of knee",
)  # fmt: skip


def summaries_of(source, options):
    """Return the reports of all proposers on one table after all trainings, and that of OURS first."""
    rules = Rules(trainings=options.trainings, enough=1.0, noise=options.noise)
    tasks = [Task(source, name, seed, rules) for seed in range(options.seeds) for name in options.proposers]
    runs = {name: [] for name in options.proposers}
    for task, run in kept_runs(tasks, jobs=options.jobs, folder=options.keep):
        runs[task.proposer].append(run)
    made = comparison(source.read(), runs, rules=rules)
    return [each for each in report_summaries(made) if each.trainings == options.trainings]


def both(summary, name, sign=""):
    """Return a figure by expected Dice, and by measured Dice in parentheses."""
    return f"{getattr(summary.expected, name):{sign}.4f} ({getattr(summary.measured, name):{sign}.4f})"


def rows_of(name, summaries):
    return [
        (
            name,
            each.proposer,
            f"{each.repeated:.0f}",
            f"{each.expected.share:.1%} ({each.measured.share:.1%})",
            "" if each.p is None else f"{each.p:.2g}",
            both(each, "optimism", "+"),
            both(each, "best_optimism", "+"),
            both(each, "best_regret"),
            both(each, "best_gap"),
            both(each, "knee_regret"),
        )
        for each in summaries
    ]


def verdicts(name, summaries):
    """Return OURS against the limits on one table: (table, limit, figure, met)."""
    ours = next(each for each in summaries if each.proposer == OURS)
    others = [each for each in summaries if each.proposer != OURS]
    one, other = ours.expected, ours.measured
    better = [each.proposer for each in others if each.expected.share > one.share]
    significant = sum(each.p < 0.05 for each in others)
    found = [
        (f"optimism of the front at most {FRONT_LIMIT}", f"{one.optimism:+.4f}", one.optimism <= FRONT_LIMIT),
        (f"optimism of best at most {BEST_LIMIT}", f"{one.best_optimism:+.4f}", one.best_optimism <= BEST_LIMIT),
        (
            "true hypervolume at least every other's, p < 0.05",
            f"larger: {', '.join(better) or 'none'}; significant against {significant} of {len(others)}",
            not better and significant == len(others),
        ),
    ]
    for pick, against, title in (("best_regret", "best_gap", "best"), ("knee_regret", "knee_regret", "knee")):
        mine, most = getattr(one, pick), getattr(other, pick) / 2
        found.append(
            (f"regret of {title} at most half of that by measured Dice", f"{mine:.2g}, limit {most:.2g}", mine <= most)
        )
        mine, least = getattr(one, against), min(getattr(each.expected, against) for each in others)
        what = "gap" if against == "best_gap" else "regret"
        found.append((f"{what} of {title} at most every other's", f"{mine:.2g}, limit {least:.2g}", mine <= least))
    return [(name, what, figure, "yes" if met else "**no**") for what, figure, met in found]


def markdown(headings, rows):
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", default=TABLES, help="synthetic tables, with commas")
    parser.add_argument("--real", default="", help="Parquet files, with commas")
    parser.add_argument("--proposers", default=",".join(PROPOSERS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trainings", type=int, default=50, choices=(25, 50, 100))
    parser.add_argument("--noise", type=float, default=0.0078)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes of parallel runs
    options.proposers = options.proposers.split(",")
    sources = [TableSource(name, None, None) for name in filter(None, options.tables.split(","))]
    sources += [TableSource(Path(file).stem, Path(file), None) for file in filter(None, options.real.split(","))]
    rows, judged = [], []
    for source in sources:
        summaries = summaries_of(source, options)
        rows += rows_of(source.name, summaries)
        judged += verdicts(source.name, summaries)
    noise, last = f"{options.noise:g}", options.seeds - 1
    text = (
        "# What a user gets from a search with noisy trainings\n\n"
        f"`tests/bench_noise.py`, part of `make bench-search`, with voxnas {version('voxnas')}: {options.trainings} "
        f"trainings, noise of standard deviation {noise} Dice, medians of {options.seeds} seeds (0 to {last}). "
        f"A run is that of `voxnas simulate --noise {noise} --trainings {options.trainings} --enough 1` with its seed. "
        "Figures are by expected Dice, in parentheses by measured Dice; repeats count as trainings. p: one-sided "
        "Wilcoxon test over seeds that known-cost has the larger true hypervolume, Holm-corrected. The regret of best "
        "is the Dice lost to the best network that the same search trained, so it is small where all are poor; its "
        "gap is the Dice lost to the best network of the table.\n\n"
        f"{markdown(HEADINGS, rows)}\n\n## Limits\n\n{markdown(('table', 'limit', 'known-cost', 'met'), judged)}\n"
    )
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

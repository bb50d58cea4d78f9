"""The `voxnas simulate` command: read its options, run all simulations, and write tables, JSON and a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from search.config.errors import UserError, nearest
from search.config.schema import Halving
from search.files import require_writable
from search.proposers.propose import PROPOSERS
from search.proposers.sources import Source, shared_axes, source_of_table
from search.simulate.clock import Rules, Run, simulate
from search.simulate.compare import Comparison, anytime, comparison
from search.simulate.compare_reports import reports_tables
from search.simulate.parquet import check_objectives, directions_of, read_table
from search.simulate.show import comparison_tables, comparisons_json
from search.simulate.synthetic import RECIPES, synthetic_table
from search.simulate.tables import Table
from search.trials.table_file import read_trainings

Progress = Callable[[str, int, int], object]  # what runs, runs done, of how many


@dataclass(frozen=True)
class Call:
    """The options of the command."""

    tables: Sequence[str] | None
    synthetic: bool
    file: Path | None
    objectives: tuple[str, ...] | None
    proposers: Sequence[str]
    seeds: int
    workers: int
    trainings: int
    enough: float
    halving: str
    jobs: int
    noise: float | None = None
    learn_from: tuple[Path, ...] = ()


@dataclass(frozen=True)
class TableSource:
    """Where a table comes from: a file, or else the synthetic table of this name; objectives other than its own."""

    name: str
    file: Path | None
    objectives: tuple[str, ...] | None

    def read(self) -> Table:
        """Read or create the table. Raises UserError."""
        if self.file is not None:
            return read_table(self.file, objectives=self.objectives)
        table = synthetic_table(self.name)
        return replace(table, directions=directions_of(self.objectives)) if self.objectives else table


@dataclass(frozen=True)
class Task:
    """One run, as sent to a worker process."""

    table: TableSource
    proposer: str
    seed: int
    rules: Rules
    learn_from: tuple[Path, ...] = ()


def run_call(call: Call, *, console: Console, progress: Progress, figure: Path | None, as_json: bool) -> None:
    """Run all simulations and print each table's results when it is done.

    Raises UserError for invalid options, OSError if the figure can't be written there.
    """
    rules = _check(call)
    if figure is not None:
        require_writable(figure)
    done: list[Comparison] = []
    for name in _names(call):
        source = TableSource(name, call.file, call.objectives)
        table = source.read()
        _require_shared_axes(call, table)
        tasks = [
            Task(source, proposer, seed, rules, call.learn_from)
            for proposer in call.proposers
            for seed in range(call.seeds)
        ]
        runs: dict[str, list[Run]] = {proposer: [] for proposer in call.proposers}
        for task, run in zip(tasks, all_runs(tasks, call.jobs), strict=True):
            runs[task.proposer].append(run)
            progress(f"{name}: {task.proposer}", sum(map(len, runs.values())), len(tasks))
        done.append(comparison(table, runs, rules=rules))
        for grid in () if as_json else [*comparison_tables(done[-1]), *reports_tables(done[-1])]:
            console.print(grid)
    if as_json:
        print(comparisons_json(done))
    if figure is not None:
        _write(done, figure)


def _check(call: Call) -> Rules:
    mistakes = []
    if call.synthetic == (call.file is not None):
        mistakes.append("simulate: pass either --synthetic or --table FILE")
    if call.tables and not call.synthetic:
        mistakes.append("simulate: --only selects synthetic tables and needs --synthetic")
    for name in call.tables or ():
        if name not in RECIPES:
            mistakes.append(f"simulate: --only: there is no synthetic table {name!r}{nearest(name, list(RECIPES))}")
    for name in call.proposers:
        if name not in PROPOSERS:
            mistakes.append(f"simulate: --proposers: there is no proposer {name!r}{nearest(name, PROPOSERS)}")
    mistakes += check_objectives(call.objectives) if call.objectives is not None else []
    halving = None if call.halving == "off" else _halving(call.halving)
    if isinstance(halving, str):
        mistakes.append(halving)
    if mistakes or isinstance(halving, str):
        raise UserError(mistakes)
    return Rules(call.workers, call.trainings, call.enough, halving, call.noise)


def _halving(text: str) -> Halving | str:
    message = f"simulate: --halving: {text!r} is neither off nor MIN_EPOCHS,REDUCTION[,BRACKETS], such as 3,3"
    parts = text.split(",")
    try:
        least, reduction, brackets = int(parts[0]), float(parts[1]), int(parts[2]) if len(parts) > 2 else 1
    except (ValueError, IndexError):
        return message
    return (
        Halving(least, reduction, brackets)
        if least >= 1 and 1 < reduction < math.inf and 1 <= brackets <= 5
        else message
    )


def _require_shared_axes(call: Call, table: Table) -> None:
    """Raise UserError for each source that a search of the table can't learn from."""
    useless = [file for file in call.learn_from if not shared_axes(table.space, _learned(file))]
    if useless:
        raise UserError([f"simulate: --learn-from: {file} shares no axis with {table.name}" for file in useless])


def _names(call: Call) -> Sequence[str]:
    return [call.file.stem] if call.file else call.tables or list(RECIPES)


def all_runs(tasks: Sequence[Task], jobs: int) -> Iterable[Run]:
    """Yield the tasks' runs in order, computed in this process or in `jobs` processes."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) if jobs > 1 else None
    with pool or nullcontext():
        yield from (pool.map(_run, tasks) if pool else map(_run, tasks))


def _run(task: Task) -> Run:
    sources = tuple(map(_learned, task.learn_from))
    return simulate(_read(task.table), task.proposer, seed=task.seed, rules=task.rules, sources=sources)


@lru_cache
def _read(source: TableSource) -> Table:
    return source.read()


@lru_cache
def _learned(file: Path) -> Source:
    return source_of_table(file.stem, read_trainings(file))


def _write(done: Sequence[Comparison], file: Path) -> None:
    from search.visualization.figures.runs import draw_anytime
    from search.visualization.html import write_components

    figures = []
    for compared in done:
        names = [summary.proposer for summary in compared.summaries]
        curves = [
            (name, anytime([run for run in compared.runs if run.proposer == name], until=compared.rules.trainings))
            for name in names
        ]
        figures.append(draw_anytime(curves, title=f"{compared.table}: {compared.character}"))
    write_components(figures, file, title="voxnas simulate")

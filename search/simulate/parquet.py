"""Tables of known results as Parquet files: one row per training and epoch.

Columns: `architecture` (JSON of decisions or of an architecture's entries), `seed`, `epoch` (from 1), `dice` (0 to 1),
any of the costs `params`, `macs`, `memory_bytes`, `inference_memory_bytes`, `latency_s`, and optionally `epoch_s`,
the seconds of an epoch (default: 1). Messages count rows from 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.config.errors import UserError, nearest
from search.config.objectives import COSTS, OBJECTIVES
from search.files import replace_file
from search.simulate.check_table import REQUIRED, TableErrors, column_errors, entries_of
from search.simulate.tables import Table
from search.trials.records import Costs, Latency
from space.architecture import Architecture, Value
from space.axes import Axis
from space.canonical import Context, Decisions
from space.space import Space

COLUMNS = {OBJECTIVES[name].column: name for name in COSTS}  # of the costs
USUAL = ("memory", "latency")  # the costs that are objectives by default, if the table has them
ABSENT = "-"  # the choice of an axis for architectures without the entry
NO_CONTEXT = Context((1, 1, 1), (1.0, 1.0, 1.0), 1, 1)  # a placeholder: networks of a table are never built


@dataclass(frozen=True)
class Trainings:
    """The checked content of a table: entries, curves (seeds, epochs) and known costs of each architecture."""

    entries: tuple[dict[str, Value], ...]
    seeds: tuple[tuple[int, ...], ...]
    curves: tuple[NDArray[np.float64], ...]
    costs: dict[str, NDArray[np.float64]]
    epoch_s: NDArray[np.float64]

    @property
    def epochs(self) -> int:
        """The length of the longest training; shorter curves repeat their last Dice."""
        return int(self.curves[0].shape[1])


def write_table(table: Table, file: Path, *, seeds: int = 1) -> None:
    """Write a table with trainings of each architecture for `seeds` seeds."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, list[Any]] = {name: [] for name in (*REQUIRED, *COLUMNS, "epoch_s")}
    for row, decisions in enumerate(table.decisions):
        text, costs = json.dumps(decisions), table.costs[row]
        for seed in range(seeds):
            curve = table.curve(row, seed).tolist()
            columns["architecture"] += [text] * len(curve)
            columns["seed"] += [seed] * len(curve)
            columns["epoch"] += range(1, len(curve) + 1)
            columns["dice"] += curve
            columns["epoch_s"] += [float(table.epoch_s[row])] * len(curve)
            for column, objective in COLUMNS.items():
                columns[column] += [costs.of(objective)] * len(curve)
    replace_file(file, lambda part: pyarrow.parquet.write_table(pyarrow.table(columns), part))


def read_table(file: Path, *, objectives: Sequence[str] | None = None) -> Table:
    """Read a table. Each entry of its architectures becomes an axis, with the choice ABSENT if some lack the entry.

    Without `objectives` they are Dice with memory and latency, as far as the table has them, or else with all of its
    costs. Raises UserError for missing columns, invalid values, missing objectives, and objectives that leave nothing
    to search.
    """
    trainings = read_trainings(file)
    directions = _directions(file, trainings, objectives)
    space, decisions = _flat_space(trainings.entries)
    table = Table(
        name=file.stem,
        character=f"read from {file.name}",
        space=space,
        directions=directions,
        decisions=decisions,
        architectures=tuple(Architecture.of(each) for each in decisions),
        costs=tuple(_costs(trainings, row) for row in range(len(decisions))),
        truth=np.array([runs[:, -1].mean() for runs in trainings.curves]),
        epochs=trainings.epochs,
        epoch_s=trainings.epoch_s,
        curve=lambda row, seed: trainings.curves[row][seed % len(trainings.curves[row])],
        sparse=True,
    )
    _require_choice(file, table)
    return table


def read_trainings(file: Path) -> Trainings:
    """Read and check the trainings of a table. Raises UserError with every mistake, each with its column and row."""
    columns = _columns(file)
    errors = TableErrors(file)
    numbers = column_errors(columns, costs=COLUMNS, errors=errors)
    entries = entries_of(columns["architecture"], errors)
    errors.raise_any()
    first: dict[tuple[tuple[str, Value], ...], int] = {}
    runs: list[dict[int, dict[int, int]]] = []  # of each architecture: seed, epoch, row
    for row, each in enumerate(entries):
        number = first.setdefault(tuple(sorted(each.items())), len(first))
        if number == len(runs):
            runs.append({})
        run = runs[number].setdefault(int(numbers["seed"][row]), {})
        earlier = run.setdefault(int(numbers["epoch"][row]), row)
        if earlier != row:
            errors.add("epoch", row, f"repeats row {earlier}, with the same architecture and seed")
    errors.raise_any()
    epochs = int(numbers["epoch"].max())
    rows = [next(iter(next(iter(each.values())).values())) for each in runs]
    every = [[row for run in each.values() for row in run.values()] for each in runs]
    seconds = numbers.get("epoch_s")
    return Trainings(
        entries=tuple(entries[row] for row in rows),
        seeds=tuple(tuple(sorted(each)) for each in runs),
        curves=tuple(_curves(each, numbers["dice"], epochs) for each in runs),
        costs={name: numbers[name][rows] for name in COLUMNS if name in numbers},
        epoch_s=np.ones(len(rows)) if seconds is None else np.array([seconds[each].mean() for each in every]),
    )


def _columns(file: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    if not file.is_file():
        raise UserError([f"{file}: {'is a folder' if file.is_dir() else 'no such file'}"])
    with file.open("rb"):
        pass  # raises for a file that this user may not read
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError([f"{file}: not a Parquet file: {str(error).splitlines()[0]}"]) from None
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise UserError([f"{file}: missing columns: {', '.join(missing)} (found: {', '.join(table.column_names)})"])
    if not table.num_rows:
        raise UserError([f"{file}: the table has no rows"])
    known = [name for name in table.column_names if name in (*REQUIRED, *COLUMNS, "epoch_s")]
    return {name: table[name].to_pylist() for name in known}


def _directions(file: Path, trainings: Trainings, objectives: Sequence[str] | None) -> dict[str, str]:
    present = [COLUMNS[column] for column in trainings.costs]
    if objectives is None:
        usual = [name for name in USUAL if name in present] or present
        objectives = ("dice", *usual)
    absent = [name for name in objectives if name not in ("dice", *present)]
    if absent:
        found = ", ".join(["dice", *present])
        raise UserError([f"{file}: missing objectives: {', '.join(absent)} (found: {found})"])
    return directions_of(objectives)


def directions_of(objectives: Sequence[str]) -> dict[str, str]:
    """Return the objectives with their directions."""
    return {name: OBJECTIVES[name].direction for name in objectives}


def check_objectives(names: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of objectives."""
    mistakes = [
        f"simulate: --objectives: there is no objective {name!r}{nearest(name, tuple(OBJECTIVES))}"
        for name in names
        if name not in OBJECTIVES
    ]
    if "dice" not in names:
        mistakes.append("simulate: --objectives: dice is missing; costs are known without a search")
    if len(set(names)) < len(names):
        mistakes.append("simulate: --objectives: a name is repeated")
    return mistakes


def _require_choice(file: Path, table: Table) -> None:
    """Raise UserError if an objective is equal everywhere, or if no architecture beats the worst values at once."""
    if table.size < 2:
        raise UserError([f"{file}: architecture is the same in all rows; a search needs two or more"])
    columns = {name: OBJECTIVES[name].column for name in table.directions}
    equal = [columns[name] for name, losses in zip(columns, table.losses.T, strict=True) if np.ptp(losses) == 0]
    if equal:
        hint = "leave it out with --objectives" if equal != ["dice"] else "there is nothing to learn"
        raise UserError([f"{file}: {name} is equal for all architectures; {hint}" for name in equal])
    if table.best_volume <= 0:
        named = ", ".join(columns.values())
        raise UserError(
            [f"{file}: {named}: each architecture has the worst value of one of them, so no search can gain"]
        )


def _flat_space(entries: Sequence[dict[str, Value]]) -> tuple[Space, tuple[Decisions, ...]]:
    names = list(dict.fromkeys(name for each in entries for name in each))
    decisions: tuple[Decisions, ...] = tuple({name: each.get(name, ABSENT) for name in names} for each in entries)
    axes = []
    for name in names:
        choices = dict.fromkeys(each[name] for each in decisions)
        axes.append(Axis(name, tuple(sorted(choices, key=lambda value: (isinstance(value, str), str(value)))), ""))
    return _TableSpace(tuple(axes), NO_CONTEXT), decisions


class _TableSpace(Space):
    """A flat space whose architectures equal its decisions."""

    def architecture(self, decisions: Any) -> Architecture:
        """Return the decisions as an architecture."""
        return Architecture.of(decisions)


def _curves(runs: dict[int, dict[int, int]], dice: NDArray[np.float64], epochs: int) -> NDArray[np.float64]:
    """Return the Dice after each epoch, one row per seed; missing epochs repeat the last known Dice."""
    curves = np.zeros((len(runs), epochs))
    for number, run in enumerate(runs[seed] for seed in sorted(runs)):
        known = np.array(sorted(run))
        latest = np.maximum(np.searchsorted(known, np.arange(1, epochs + 1), side="right") - 1, 0)
        curves[number] = dice[[run[epoch] for epoch in known[latest].tolist()]]
    return curves


def _costs(trainings: Trainings, row: int) -> Costs:
    def of(name: str) -> float:
        return float(trainings.costs[name][row]) if name in trainings.costs else 0.0

    timed = "latency_s" in trainings.costs
    latency = Latency(of("latency_s"), 0.0, 1, True, "table", 1, "unknown") if timed else None
    return Costs(
        int(of("params")), int(of("macs")), int(of("memory_bytes")), int(of("inference_memory_bytes")), latency
    )

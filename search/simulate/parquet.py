"""Tables of known results as Parquet files: one row per training and epoch.

Columns: `architecture` (JSON of decisions or of an architecture's entries), `seed`, `epoch` (from 1), `dice` (0 to 1),
any of the costs `params`, `macs`, `memory_bytes`, `inference_memory_bytes`, `latency_s`, and optionally `epoch_s`,
the seconds of an epoch (default: 1).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.config.errors import UserError
from search.config.objectives import COSTS, OBJECTIVES
from search.simulate.tables import Table
from search.trials.records import Costs, Latency
from space.architecture import Architecture, Value, freeze
from space.axes import Axis
from space.canonical import Context, Decisions
from space.space import Space

REQUIRED = ("architecture", "seed", "epoch", "dice")
COLUMNS = {OBJECTIVES[name].column: name for name in COSTS}  # of the costs
ABSENT = "-"  # the choice of an axis for architectures without the entry
NO_CONTEXT = Context((1, 1, 1), (1.0, 1.0, 1.0), 1, 1)  # a placeholder: networks of a table are never built


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
    pyarrow.parquet.write_table(pyarrow.table(columns), file)


def read_table(file: Path, *, objectives: tuple[str, ...] = ("memory", "latency")) -> Table:
    """Read a table. Each entry of its architectures becomes an axis, with the choice ABSENT if some lack the entry.

    Raises UserError for missing columns, invalid values, or missing `objectives`.
    """
    columns = _columns(file, objectives)
    by_architecture: dict[str, dict[int, dict[int, float]]] = {}
    first: dict[str, int] = {}
    for index, (text, seed, epoch, dice) in enumerate(zip(*(columns[name] for name in REQUIRED), strict=True)):
        first.setdefault(text, index)
        by_architecture.setdefault(text, {}).setdefault(int(seed), {})[int(epoch)] = float(dice)
    epochs = max(max(run) for runs in by_architecture.values() for run in runs.values())
    entries = [_entries(text, file) for text in by_architecture]
    space, decisions = _flat_space(entries)
    curves = [_curves(runs, epochs) for runs in by_architecture.values()]
    rows = [first[text] for text in by_architecture]
    seconds = columns.get("epoch_s")
    return Table(
        name=file.stem,
        character=f"read from {file.name}",
        space=space,
        directions={name: OBJECTIVES[name].direction for name in ("dice", *objectives)},
        decisions=decisions,
        architectures=tuple(Architecture.of(each) for each in decisions),
        costs=tuple(_costs(columns, row) for row in rows),
        truth=np.array([runs[:, -1].mean() for runs in curves]),
        epochs=epochs,
        epoch_s=np.array([float(seconds[row]) if seconds else 1.0 for row in rows]),
        curve=lambda row, seed: curves[row][seed % len(curves[row])],
        sparse=True,
    )


def _columns(file: Path, objectives: tuple[str, ...]) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    if not file.is_file():
        raise UserError([f"{file}: no such file"])
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError([f"{file}: not a Parquet file: {str(error).splitlines()[0]}"]) from None
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise UserError([f"{file}: missing columns: {', '.join(missing)} (found: {', '.join(table.column_names)})"])
    present = [objective for column, objective in COLUMNS.items() if column in table.column_names]
    absent = [name for name in objectives if name not in present]
    if absent:
        known = ", ".join(["dice", *present])
        raise UserError([f"{file}: missing objectives: {', '.join(absent)} (found: {known})"])
    columns: dict[str, list[Any]] = {name: table[name].to_pylist() for name in table.column_names}
    problems = _bad_values(file, columns)
    if problems:
        raise UserError(problems)
    return columns


def _bad_values(file: Path, columns: dict[str, list[Any]]) -> list[str]:
    if not columns["architecture"]:
        return [f"{file}: the table is empty"]
    problems = []
    for name, values in columns.items():
        if name in COLUMNS or name in ("dice", "epoch_s", "epoch", "seed"):
            low, high = OBJECTIVES[name].range if name == "dice" else (float(name == "epoch"), math.inf)
            for row, value in enumerate(values):
                if not isinstance(value, (int, float)) or not low <= value <= high:
                    problems.append(f"{file}: row {row}: {name} is {value!r}, not a number from {low:g} to {high:g}")
                    break
    return problems


def _entries(text: str, file: Path) -> dict[str, Value]:
    try:
        values = json.loads(text)
        return {str(name): freeze(value) for name, value in values.items()}
    except (ValueError, AttributeError):
        raise UserError([f"{file}: architecture is not a JSON object of plain values: {text[:60]!r}"]) from None


def _flat_space(entries: list[dict[str, Value]]) -> tuple[Space, tuple[Decisions, ...]]:
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


def _curves(runs: dict[int, dict[int, float]], epochs: int) -> NDArray[np.float64]:
    """Return the Dice after each epoch, one row per seed; missing epochs repeat the last known Dice."""
    curves = np.zeros((len(runs), epochs))
    for number, run in enumerate(runs[seed] for seed in sorted(runs)):
        last = run[min(run)]
        for epoch in range(1, epochs + 1):
            last = run.get(epoch, last)
            curves[number, epoch - 1] = last
    return curves


def _costs(columns: dict[str, list[Any]], row: int) -> Costs:
    def of(name: str) -> float:
        return float(columns[name][row]) if name in columns else 0.0

    latency = Latency(of("latency_s"), 0.0, 1, True, "table", 1, "unknown") if "latency_s" in columns else None
    return Costs(
        int(of("params")), int(of("macs")), int(of("memory_bytes")), int(of("inference_memory_bytes")), latency
    )
